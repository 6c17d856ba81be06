//! `callout`: requests to granted upstreams.

use std::task::Poll;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderValue;
use http::uri::PathAndQuery;
use postern_core::hostname::Authority;
use tokio::time::Instant;

use crate::bindings::postern::plugin::callout::Call;
use crate::bindings::postern::plugin::callout::CallError;
use crate::bindings::postern::plugin::callout::Host;
use crate::bindings::postern::plugin::callout::Reply;
use crate::bindings::postern::plugin::types::EditError;
use crate::bindings::postern::plugin::types::Field;
use crate::callout;
use crate::callout::Callout;
use crate::callout::CalloutError;
use crate::callout::CalloutFuture;
use crate::host::HostState;
use crate::host::field::Fields;
use crate::host::request::parse_method;
use crate::limits::MAX_CALLOUT_RESPONSE;
use crate::limits::MAX_PATH_LEN;
use crate::view::utf8;

type Answer = Result<callout::Reply, CalloutError>;

/// A callout on its way, or its end.
enum Pending {
    Going(CalloutFuture),
    Done(Answer),
}

impl HostState {
    /// Checks a call and sets it going.
    fn begin(&mut self, call: Call) -> wasmtime::Result<Pending> {
        let fields: usize = call.headers.iter().map(field_len).sum();
        let text = call.upstream.len() + call.method.len() + call.path.len();
        self.meter.take_bytes(text + fields + call.body.len())?;
        if !self.meter.take_callout() {
            return Ok(Pending::Done(Err(CalloutError::Overloaded)));
        }
        let left = self.meter.callout_deadline() - Instant::now();
        Ok(match (self.callout(call, left), &self.callouts) {
            (Some(callout), Some(callouts)) => Pending::Going(callouts.send(callout)),
            _ => Pending::Done(Err(CalloutError::Denied)),
        })
    }

    /// The call as a valid request to a granted upstream, for which so much time is left.
    fn callout(&self, call: Call, left: Duration) -> Option<Callout> {
        let granted = &self.powers.upstreams;
        let upstream = granted.iter().find(|name| name.as_str() == call.upstream)?;
        let is_origin_form = call.path.starts_with('/') && call.path.len() <= MAX_PATH_LEN;
        let target = PathAndQuery::try_from(call.path).ok()?;
        if !is_origin_form {
            return None;
        }
        let mut headers = HeaderMap::new();
        let mut bytes = Some(0);
        let mut host = None;
        for Field { name, value } in call.headers {
            if name.eq_ignore_ascii_case("host") {
                let value = HeaderValue::try_from(value).ok()?;
                host = Some(Authority::parse(&value).ok()?.value().clone());
                continue;
            }
            let added: Result<(), EditError> =
                Fields::new(&mut headers, &mut bytes).append(&name, value);
            added.ok()?;
        }
        let max = call.max_response_bytes as usize;
        Some(Callout {
            upstream: upstream.clone(),
            method: parse_method(&call.method).ok()?,
            target,
            host,
            headers,
            body: call.body.into(),
            timeout: match call.timeout_ms {
                0 => left,
                asked => left.min(Duration::from_millis(asked.into())),
            },
            max_response: if (1..=MAX_CALLOUT_RESPONSE).contains(&max) {
                max
            } else {
                MAX_CALLOUT_RESPONSE
            },
        })
    }
}

impl Host for HostState {
    async fn send(&mut self, call: Call) -> wasmtime::Result<Result<Reply, CallError>> {
        self.after_configure()?;
        let answer = match self.begin(call)? {
            Pending::Going(going) => {
                let deadline = self.meter.callout_deadline();
                let answered = self.wait(tokio::time::timeout_at(deadline, going)).await;
                answered.unwrap_or(Err(CalloutError::Timeout))
            }
            Pending::Done(answer) => answer,
        };
        Ok(answer.map(reply).map_err(call_error))
    }

    async fn send_all(
        &mut self,
        calls: Vec<Call>,
    ) -> wasmtime::Result<Vec<Result<Reply, CallError>>> {
        self.after_configure()?;
        let calls = calls.into_iter().map(|call| self.begin(call));
        let mut pending = calls.collect::<wasmtime::Result<Vec<_>>>()?;
        let answered = std::future::poll_fn(|cx| {
            let mut is_going = false;
            for pending in &mut pending {
                if let Pending::Going(going) = pending {
                    match going.as_mut().poll(cx) {
                        Poll::Ready(answer) => *pending = Pending::Done(answer),
                        Poll::Pending => is_going = true,
                    }
                }
            }
            if is_going {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        });
        let deadline = self.meter.callout_deadline();
        // Those that have not answered by then are told apart below.
        let _ = self.wait(tokio::time::timeout_at(deadline, answered)).await;
        let answers = pending.into_iter().map(|pending| match pending {
            Pending::Done(answer) => answer.map(reply).map_err(call_error),
            Pending::Going(_) => Err(CallError::Timeout),
        });
        Ok(answers.collect())
    }
}

fn field_len(field: &Field) -> usize {
    field.name.len() + field.value.len()
}

fn reply(reply: callout::Reply) -> Reply {
    let fields = reply.headers.iter().filter_map(|(name, value)| {
        Some(Field {
            name: name.as_str().to_owned(),
            // What is not text cannot be handed over as text.
            value: utf8(value)?.to_owned(),
        })
    });
    Reply {
        status: reply.status.as_u16(),
        headers: fields.collect(),
        body: reply.body.into(),
    }
}

fn call_error(error: CalloutError) -> CallError {
    match error {
        CalloutError::Denied => CallError::Denied,
        CalloutError::Connect => CallError::Connect,
        CalloutError::Timeout => CallError::Timeout,
        CalloutError::TooLarge => CallError::TooLarge,
        CalloutError::Protocol => CallError::Protocol,
        CalloutError::Overloaded => CallError::Overloaded,
    }
}
