//! What `instant-acme` sends its requests over.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::BodyExt as _;
use instant_acme::BodyWrapper;
use instant_acme::BytesResponse;
use instant_acme::HttpClient;

use super::CaError;
use super::checked;
use super::excerpt;
use super::location;
use super::retry_at;
use super::text;
use crate::clock::Clock;
use crate::clock::Seconds;
use crate::http::Answer;
use crate::http::Http;
use crate::protocol::Problem;

tokio::task_local! {
    /// Of the call that is being made.
    static EXCHANGE: RefCell<Exchange>;
}

/// What is known of the last answer to a call, which may take several requests.
#[derive(Default)]
pub(super) struct Exchange {
    pub(super) retry_at: Option<Seconds>,
    location: Option<String>,
    /// Kept until it turns out that it could be read.
    answer: Option<Answer>,
}

impl Exchange {
    /// Makes a call and notes what came back.
    pub(super) async fn of<T>(call: impl Future<Output = T>) -> (T, Self) {
        let noting = async {
            let made = call.await;
            (made, EXCHANGE.with(RefCell::take))
        };
        EXCHANGE.scope(RefCell::default(), noting).await
    }

    /// Of what the last request of the call being made has created.
    pub(super) fn location() -> Option<String> {
        EXCHANGE.with(|exchange| exchange.borrow().location.clone())
    }
}

#[derive(Clone)]
pub(super) struct Wire {
    http: Arc<Http>,
    clock: Clock,
}

impl Wire {
    pub(super) fn new(http: &Arc<Http>, clock: &Clock) -> Self {
        Self {
            http: Arc::clone(http),
            clock: clock.clone(),
        }
    }

    async fn send(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, CaError> {
        let (parts, body) = request.into_parts();
        let Ok(body) = body.collect().await;
        let kind = text(&parts.headers, http::header::CONTENT_TYPE.as_str()).map(|_| super::JOSE);
        let url = parts.uri.to_string();
        let sent = self.http.send(parts.method, &url, kind, body.to_bytes());
        let answer = sent.await?;
        let exchange = Exchange {
            retry_at: retry_at(&answer.headers, &self.clock),
            location: location(&answer.headers).filter(|_| answer.status.is_success()),
            answer: Some(answer.clone()),
        };
        // Only a call that nobody listens to is made outside.
        let _ = EXCHANGE.try_with(|noted| noted.replace(exchange));
        let answer = match checked(answer.clone(), &self.clock) {
            Ok(answer) => answer,
            // Its own problems are read there.
            Err(CaError::Problem { .. }) => answer,
            Err(error) => return Err(error),
        };
        let mut response = Response::new(());
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        let (parts, ()) = response.into_parts();
        Ok(BytesResponse {
            parts,
            body: Box::new(answer.body),
        })
    }
}

impl HttpClient for Wire {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let sending = self.clone().send(request);
        Box::pin(async move {
            let sent = sending.await;
            sent.map_err(|error| instant_acme::Error::Other(Box::new(error)))
        })
    }
}

/// What an error of a call is, in our terms.
pub(super) fn error_of(error: instant_acme::Error, exchange: Exchange) -> CaError {
    match error {
        instant_acme::Error::Api(problem) => CaError::Problem {
            problem: Problem::from(problem),
            // An answer that a problem was read from is kept.
            status: exchange
                .answer
                .map_or(StatusCode::OK, |answer| answer.status),
            retry_at: exchange.retry_at,
        },
        instant_acme::Error::Other(error) => match error.downcast::<CaError>() {
            Ok(error) => *error,
            Err(error) => CaError::Refused {
                error: error.to_string(),
            },
        },
        instant_acme::Error::Json(error) => match exchange.answer {
            Some(answer) => CaError::Foreign {
                status: answer.status,
                excerpt: excerpt(&answer.body),
                retry_at: exchange.retry_at,
            },
            None => CaError::Refused {
                error: error.to_string(),
            },
        },
        instant_acme::Error::Str(what) => CaError::Lacks { what },
        other => CaError::Refused {
            error: other.to_string(),
        },
    }
}
