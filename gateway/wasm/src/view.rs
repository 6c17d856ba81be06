//! Views: the values that a plugin asked for, handed over with the call.
//!
//! The names are read once, when the plugin is configured. A call then copies the values into one
//! buffer that the instance keeps, so that a view costs no allocation however many names it has.

use std::fmt::Write as _;
use std::ops::Range;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Version;
use http::header;
use postern_core::name::PolicyName;

use crate::error::PluginError;
use crate::exchange::Exchange;
use crate::limits::MAX_VIEW;

/// Views up to this size are lent from the stack.
const SMALL: usize = 8;

/// One value to hand over.
#[derive(Clone, Debug, Eq, PartialEq)]
enum ViewName {
    Method,
    Scheme,
    Authority,
    Path,
    PeerIp,
    ClientIp,
    Sni,
    Listener,
    Route,
    HttpVersion,
    State,
    Traceparent,
    RequestField(HeaderName),
    Status,
    ResponseField(HeaderName),
}

/// The names of one view.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct ViewSpec(Vec<ViewName>);

impl ViewSpec {
    pub(crate) fn request(names: &[String]) -> Result<Self, PluginError> {
        Self::parse("request", names, request_name)
    }

    pub(crate) fn response(names: &[String]) -> Result<Self, PluginError> {
        Self::parse("response", names, response_name)
    }

    pub(crate) fn has_request_fields(&self) -> bool {
        let mut names = self.0.iter();
        names.any(|name| matches!(name, ViewName::RequestField(_)))
    }

    fn parse(
        view: &'static str,
        names: &[String],
        parse: fn(&str) -> Option<ViewName>,
    ) -> Result<Self, PluginError> {
        if names.len() > MAX_VIEW {
            return Err(PluginError::ViewSize {
                view,
                limit: MAX_VIEW,
            });
        }
        let parsed = names.iter().map(|text| {
            parse(text).ok_or_else(|| {
                let mut name = String::new();
                crate::limits::push_escaped(&mut name, text, 128);
                PluginError::View { view, name }
            })
        });
        parsed.collect::<Result<_, _>>().map(Self)
    }
}

fn request_name(text: &str) -> Option<ViewName> {
    exchange_name(text).or_else(|| {
        Some(match text {
            ":method" => ViewName::Method,
            ":scheme" => ViewName::Scheme,
            ":authority" | "host" => ViewName::Authority,
            ":path" => ViewName::Path,
            _ => ViewName::RequestField(field_name(text)?),
        })
    })
}

fn response_name(text: &str) -> Option<ViewName> {
    if let Some(of_request) = text.strip_prefix("req.") {
        return request_name(of_request);
    }
    exchange_name(text).or_else(|| {
        Some(match text {
            ":status" => ViewName::Status,
            _ => ViewName::ResponseField(field_name(text)?),
        })
    })
}

fn exchange_name(text: &str) -> Option<ViewName> {
    Some(match text {
        "@peer-ip" => ViewName::PeerIp,
        "@client-ip" => ViewName::ClientIp,
        "@sni" => ViewName::Sni,
        "@listener" => ViewName::Listener,
        "@route" => ViewName::Route,
        "@http-version" => ViewName::HttpVersion,
        "@state" => ViewName::State,
        "@traceparent" => ViewName::Traceparent,
        _ => return None,
    })
}

/// Lower case only: `from_lowercase` refuses the rest.
fn field_name(text: &str) -> Option<HeaderName> {
    let name = HeaderName::from_lowercase(text.as_bytes()).ok()?;
    // Its values may not be joined (RFC 9110, 5.3), and the first alone would mislead.
    (name != header::SET_COOKIE).then_some(name)
}

/// The values of one call.
#[derive(Default)]
pub(crate) struct ViewBuffer {
    text: String,
    values: Vec<Option<Range<usize>>>,
}

impl ViewBuffer {
    pub(crate) fn fill(&mut self, spec: &ViewSpec, exchange: &Exchange, plugin: &PolicyName) {
        self.text.clear();
        self.values.clear();
        for name in &spec.0 {
            let start = self.text.len();
            let value = push(&mut self.text, name, exchange, plugin).map(|()| {
                let end = self.text.len();
                start..end
            });
            if value.is_none() {
                self.text.truncate(start);
            }
            self.values.push(value);
        }
    }

    /// Runs `f` on the values.
    pub(crate) async fn lend<T>(&self, f: impl AsyncFnOnce(&[Option<&str>]) -> T) -> T {
        let value = |range: &Option<Range<usize>>| range.clone().map(|range| &self.text[range]);
        if self.values.len() <= SMALL {
            let mut values = [None; SMALL];
            for (slot, range) in values.iter_mut().zip(&self.values) {
                *slot = value(range);
            }
            f(&values[..self.values.len()]).await
        } else {
            let values: Vec<_> = self.values.iter().map(value).collect();
            f(&values).await
        }
    }
}

/// Appends a value, or answers none if it is absent. What was appended then is to be cut off.
fn push(
    text: &mut String,
    name: &ViewName,
    exchange: &Exchange,
    plugin: &PolicyName,
) -> Option<()> {
    let request = &exchange.request;
    match name {
        ViewName::Method => text.push_str(request.method.as_str()),
        ViewName::Scheme => text.push_str(request.scheme.as_str()),
        ViewName::Authority => text.push_str(request.authority.as_str()),
        ViewName::Path => text.push_str(request.path.as_str()),
        ViewName::PeerIp => push_display(text, exchange.peer?.ip()),
        ViewName::ClientIp => push_display(text, exchange.client?),
        ViewName::Sni => text.push_str(exchange.sni.as_ref()?),
        ViewName::Listener => text.push_str(exchange.listener.as_ref()?.as_str()),
        ViewName::Route => text.push_str(exchange.route.as_ref()?.as_str()),
        ViewName::HttpVersion => text.push_str(version(exchange.version)),
        ViewName::State => match exchange.state(plugin) {
            [] => return None,
            state => text.push_str(std::str::from_utf8(state).ok()?),
        },
        ViewName::Traceparent => text.push_str(exchange.traceparent.as_ref()?),
        ViewName::RequestField(field) => return push_joined(text, &request.headers, field),
        ViewName::Status => push_display(text, exchange.response.as_ref()?.status.as_u16()),
        ViewName::ResponseField(field) => {
            return push_joined(text, &exchange.response.as_ref()?.headers, field);
        }
    }
    Some(())
}

fn push_display(text: &mut String, value: impl std::fmt::Display) {
    // Writing to a string cannot fail.
    let _ = write!(text, "{value}");
}

/// Every value of a field, with ", " between; none if it is absent or one is not UTF-8.
pub(crate) fn push_joined(text: &mut String, headers: &HeaderMap, name: &HeaderName) -> Option<()> {
    let mut values = headers.get_all(name).iter();
    text.push_str(utf8(values.next()?)?);
    for value in values {
        text.push_str(", ");
        text.push_str(utf8(value)?);
    }
    Some(())
}

pub(crate) fn utf8(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

pub(crate) fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        // `Version` is an open type; the rest of it is this one.
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::ResponseHead;
    use http::StatusCode;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn unknown_names_are_refused() {
        let cases: [(&str, bool, bool); 9] = [
            ("accept", true, true),
            (":path", true, false),
            (":status", false, true),
            ("req.:path", false, true),
            ("@sni", true, true),
            ("Accept", false, false),
            ("@nothing", false, false),
            ("set-cookie", false, false),
            ("a b", false, false),
        ];
        for (name, in_request, in_response) in cases {
            let text = names(&[name]);
            assert_eq!(ViewSpec::request(&text).is_ok(), in_request, "{name}");
            assert_eq!(ViewSpec::response(&text).is_ok(), in_response, "{name}");
        }
        let many = names(&["a"; MAX_VIEW + 1]);
        assert!(matches!(
            ViewSpec::request(&many),
            Err(PluginError::ViewSize { .. })
        ));
    }

    #[tokio::test]
    async fn a_view_has_the_values_in_the_order_of_its_names() {
        let mut exchange = Exchange::default();
        let headers = &mut exchange.request.headers;
        headers.append("accept", HeaderValue::from_static("a"));
        headers.append("accept", HeaderValue::from_static("b"));
        headers.append("x-half", HeaderValue::from_static("text"));
        headers.append("x-half", HeaderValue::from_bytes(b"\xff").unwrap());
        exchange.response = Some(ResponseHead {
            status: StatusCode::NOT_FOUND,
            headers: HeaderMap::new(),
        });
        let spec = names(&[
            "req.accept",
            "req.x-half",
            ":status",
            "x-none",
            "@http-version",
        ]);
        let spec = ViewSpec::response(&spec).unwrap();
        let mut buffer = ViewBuffer::default();
        for _ in 0..2 {
            buffer.fill(&spec, &exchange, &PolicyName::parse("p").unwrap());
            let got = buffer
                .lend(async |values: &[Option<&str>]| {
                    values
                        .iter()
                        .map(|v| v.map(str::to_owned))
                        .collect::<Vec<_>>()
                })
                .await;
            let want = [Some("a, b"), None, Some("404"), None, Some("1.1")];
            assert_eq!(got, want.map(|v| v.map(str::to_owned)));
        }
    }
}
