//! Calls to AWS: signed requests and XML answers, and no more of it than Route 53 needs.
//!
//! The SDK for this one service is 185 crates and 15 MB of program; what is used of it is below.

pub mod credentials;
mod http;
mod sigv4;
#[cfg(test)]
pub(super) mod test_util;
mod xml;

use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderValue;
use ::http::Method;
use ::http::StatusCode;
use ::http::header;
use bytes::Bytes;
use jiff::Timestamp;

pub use credentials::AwsEnvironment;
pub use credentials::CredentialSource;
use credentials::Credentials;
pub use credentials::Role;
pub use http::AwsError;
pub(super) use http::Http;
pub(super) use xml::Element;
pub(super) use xml::escape;

/// How long one call may take.
const CALL_TIME: Duration = Duration::from_secs(15);
/// Times that a call is made which AWS is too busy for.
const ATTEMPTS: u32 = 5;
/// Pause after the first of them; doubled after each.
const FIRST_PAUSE: Duration = Duration::from_millis(300);
/// Bytes of an error's message that are passed on.
const MAX_MESSAGE: usize = 500;

/// One service in one region, called with credentials of somebody.
pub(super) struct Service {
    pub(super) http: Arc<Http>,
    pub(super) endpoint: String,
    pub(super) name: &'static str,
    pub(super) region: String,
}

/// One request to a service.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Of characters that need no escape.
    pub(super) path: String,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) body: String,
    /// Of the body.
    pub(super) kind: Option<&'static str>,
}

impl Call {
    pub(super) fn get(path: String, query: Vec<(&'static str, String)>) -> Self {
        Self {
            method: Method::GET,
            path,
            query,
            body: String::new(),
            kind: None,
        }
    }
}

impl Service {
    /// Signs, sends, and repeats while AWS is too busy.
    pub(super) async fn call(
        &self,
        call: &Call,
        credentials: &Credentials,
    ) -> Result<Element, AwsError> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..ATTEMPTS {
            match self.once(call, Some(credentials)).await {
                Err(error) if error.is_busy() => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                answer => return answer,
            }
        }
        self.once(call, Some(credentials)).await
    }

    /// Without credentials, unsigned: what proves the caller is in the body.
    async fn once(
        &self,
        call: &Call,
        credentials: Option<&Credentials>,
    ) -> Result<Element, AwsError> {
        let query = sigv4::query(&call.query);
        let separator = if query.is_empty() { "" } else { "?" };
        let endpoint = self.endpoint.trim_end_matches('/');
        let url = format!("{endpoint}{}{separator}{query}", call.path);
        let host = http::host_of(&url)?;
        let mut headers = match credentials {
            Some(credentials) => sigv4::sign(
                &sigv4::Request {
                    method: call.method.as_str(),
                    host: &host,
                    path: &call.path,
                    query: &query,
                    body: call.body.as_bytes(),
                },
                credentials,
                &self.region,
                self.name,
                Timestamp::now(),
            )?,
            None => Vec::new(),
        };
        if let Some(kind) = call.kind {
            headers.push((header::CONTENT_TYPE, HeaderValue::from_static(kind)));
        }
        let body = Bytes::from(call.body.clone());
        let method = call.method.clone();
        let answer = self
            .http
            .send(method, &url, headers, body, CALL_TIME)
            .await?;
        let element = Element::parse(&answer.body);
        if answer.status.is_success() {
            return element.ok_or(AwsError::Malformed { host });
        }
        Err(refusal(host, answer.status, element.as_ref()))
    }
}

/// What an answer says that is none.
fn refusal(host: String, status: StatusCode, element: Option<&Element>) -> AwsError {
    // <ErrorResponse><Error>, and of changes <InvalidChangeBatch><Messages>.
    let text = |name: &str| {
        element
            .and_then(|element| element.find(name))
            .map(Element::text)
    };
    let code = text("Code")
        .or_else(|| element.map(|element| element.name.clone()))
        .unwrap_or_default();
    let message = text("Message").unwrap_or_default();
    AwsError::Refused {
        host,
        status,
        code: code.chars().take(100).collect(),
        message: message.chars().take(MAX_MESSAGE).collect(),
    }
}
