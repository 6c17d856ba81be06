//! What a file may say about built-in policies.
//!
//! [`RawPolicy`] is there for the schema alone: a tagged enum would be buffered by serde, and lose
//! where its values stand. The parser looks at `kind` and reads the table of that kind.

use schemars::JsonSchema;
use serde::Deserialize;

use super::At;
use super::RawHeaderEdits;
use super::Text;

/// A built-in policy; `kind` says which.
#[derive(Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[expect(dead_code, reason = "read by the schema generator alone")]
pub(in crate::config) enum RawPolicy {
    /// Asks for a name and a password: 401 without.
    BasicAuth(RawBasicAuth),
    /// Bounds how large a request body may be: 413 beyond, also midway.
    BodySize(RawBodySize),
    /// Sends a share of the requests to another upstream.
    Canary(RawCanary),
    /// Makes responses smaller for clients that can read that. What is compressed already, a part of
    /// something, or marked `no-transform` goes as it is; an ETag becomes a weak one.
    Compression(RawCompression),
    /// Bounds how many requests may be in flight at once.
    Concurrency(RawConcurrency),
    /// Lets pages of other origins use a route, and answers their preflights.
    Cors(RawCors),
    /// Puts a page of your own in place of a failure's, whoever it came from.
    ErrorPages(RawErrorPages),
    /// Asks another service whether a request may pass.
    ForwardAuth(RawForwardAuth),
    /// Edits of header fields.
    Headers(RawHeaders),
    /// Lets clients pass by address: 403 for the others. At least one of `allow` and `deny`.
    IpAccess(RawIpAccess),
    /// Answers everybody while something is repaired.
    Maintenance(RawMaintenance),
    /// Sends copies of requests to another upstream, and drops its answers. No client waits for it.
    Mirror(RawMirror),
    /// Bounds how often clients may ask.
    RateLimit(RawRateLimit),
    /// Sends a client elsewhere unless it is there already. Challenges of certificate authorities,
    /// below /.well-known/acme-challenge, are let through.
    Redirect(RawRedirectPolicy),
    /// Gives each request an id, for the upstream and for the client.
    RequestId(RawRequestId),
    /// Sets fields by which browsers protect their users.
    SecurityHeaders(RawSecurityHeaders),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawBasicAuth {
    /// Lines of `user:hash`. Best are bcrypt hashes, as `htpasswd -B` writes them; files that exist
    /// may hold `$apr1$`, `$1$`, `$5$`, `$6$` and `{SHA}`. Read again when it changes.
    pub users_file: Text,
    /// What a browser shows when it asks. Default: "restricted".
    pub realm: Option<Text>,
    /// A request field that tells the upstream the user's name. Default: none.
    pub user_header: Option<Text>,
    /// Whether the upstream sees name and password. Default: false.
    pub keep_credentials: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawBodySize {
    /// Largest body, as in "8MiB".
    pub limit: Text,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawCanary {
    /// Where the chosen requests go.
    pub upstream: Text,
    /// Percent of the requests that neither field nor cookie decides. Default: 0.
    pub weight: Option<At<i64>>,
    /// A request field: "always" chooses the canary and "never" does not. Default: none.
    pub header: Option<Text>,
    /// Instead, this value of the field chooses the canary, and others decide nothing.
    pub header_value: Option<Text>,
    /// A cookie: "always" chooses the canary and "never" does not. Default: none.
    pub cookie: Option<Text>,
    /// What keeps a visitor on one side as long as the weight does not take it from there:
    /// "address", "header:NAME" or "cookie:NAME"; or "request", by which each request chooses for
    /// itself. Without the field or cookie it is the address. Default: "address".
    pub by: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawCompression {
    /// The best first, for clients that like them equally. Default: "zstd", "br", "gzip".
    pub codings: Option<At<Vec<Text>>>,
    /// Media types that are compressed, as in "text/html" or "text/*". Default: CSS, CSV, HTML,
    /// JavaScript, JSON, Markdown, plain text, SVG, WebAssembly, XML, and web manifests.
    pub types: Option<Vec<Text>>,
    /// Smallest body that is, if its size is known, as in "1KiB", which is the default.
    pub min_size: Option<Text>,
    /// Responses that are compressed at a time, which takes about 1 MiB each; others go as they
    /// are. Default: 100.
    pub responses: Option<At<i64>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawErrorPages {
    /// From 400 to 599: single ones, as in "404", and ranges, as in "500-599".
    pub statuses: At<Vec<Text>>,
    /// The page: a file. Read again when it changes.
    pub file: Option<Text>,
    /// The page itself, instead.
    pub body: Option<Text>,
    /// Default: "text/html; charset=utf-8".
    pub content_type: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawConcurrency {
    /// Requests in flight, from their head to the end of their response, a WebSocket for as long
    /// as it is open.
    pub requests: At<i64>,
    /// What shares the limit: "all", "address" (a client; IPv6 clients of one /64 are one),
    /// "header:NAME" or "cookie:NAME". Requests without the field or cookie are told apart by
    /// address. Default: "all".
    pub key: Option<Text>,
    /// Keys that are counted at a time, eight bytes each; beyond, new ones are not. Default: 65536.
    pub keys: Option<At<i64>>,
    /// What a request too many is answered with, from 400 to 599. Default: 503.
    pub status: Option<At<i64>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawCors {
    /// "https://app.example.com", "https://*.example.com" for one label more, or "*".
    pub origins: At<Vec<Text>>,
    /// Default: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS.
    pub methods: Option<Vec<Text>>,
    /// Request fields that pages may send. Default: those that a preflight asks for.
    pub headers: Option<Vec<Text>>,
    /// Response fields that pages may read. Default: none besides the usual ones.
    #[serde(default)]
    pub expose: Vec<Text>,
    /// Whether cookies and the like may be sent; not with the origin "*". Default: false.
    pub credentials: Option<At<bool>>,
    /// How long a browser may remember. Default: "2h".
    pub max_age: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawForwardAuth {
    /// The upstream that is asked: a GET without body, with the fields x-original-url,
    /// x-original-method, x-forwarded-uri and x-forwarded-method. 2xx lets the request pass; 3xx,
    /// 401 and 403 go to the client; anything else is no answer.
    pub upstream: Text,
    /// What is asked for there. Default: "/".
    pub path: Option<Text>,
    /// The host that is asked. Default: the request's own.
    pub host: Option<Text>,
    /// Request fields that the service sees. Default: all of them.
    pub request_headers: Option<Vec<Text>>,
    /// Fields of the answer that the upstream sees, in place of those that the client sent.
    #[serde(default)]
    pub upstream_headers: Vec<Text>,
    /// Fields of the answer that a client sees that may pass. Default: "set-cookie".
    pub client_headers: Option<Vec<Text>>,
    /// Where a client is sent, with 302, when the service says 401. Default: nowhere.
    pub signin: Option<Text>,
    /// The query parameter that tells the sign-in page where the client came from. Default: "rd".
    pub signin_parameter: Option<Text>,
    /// How long the service may take. Default: "5s".
    pub timeout: Option<Text>,
    /// What a request gets when there is no answer: "deny" (503), "allow", or a status from 400 to
    /// 599. Default: "deny".
    pub on_unavailable: Option<At<super::RawOnError>>,
    /// How long an answer that lets a request pass holds for others like it, unless its
    /// cache-control says less. Default: not at all.
    pub cache: Option<Text>,
    /// Request fields that tell clients apart for `cache`, besides method and URL. Default: all
    /// that the service sees, the client's address among them.
    pub cache_key: Option<Vec<Text>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawIpAccess {
    /// Networks that may pass, as in "10.0.0.0/8". Default: all that are not denied.
    #[serde(default)]
    pub allow: Vec<Text>,
    /// Networks that may not, whatever `allow` says.
    #[serde(default)]
    pub deny: Vec<Text>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawMaintenance {
    /// Whether it answers at all. Default: true.
    pub on: Option<bool>,
    /// From 400 to 599. Default: 503.
    pub status: Option<At<i64>>,
    /// What `retry-after` says. Default: nothing.
    pub retry_after: Option<Text>,
    /// Default: "text/html; charset=utf-8" with a body, else plain text.
    pub content_type: Option<Text>,
    /// Default: a page that says the status.
    pub body: Option<Text>,
    /// Networks that are served as ever.
    #[serde(default)]
    pub allow: Vec<Text>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawMirror {
    /// Where the copies go, as they would to the rule's own upstream. What is refused, answered by
    /// the gateway, or switches protocols is not copied.
    pub upstream: Text,
    /// Percent of the requests that are copied. Default: 100.
    pub percent: Option<At<i64>>,
    /// Largest body that is copied, up to "16MiB"; a request with a larger one is not. Default:
    /// "64KiB".
    pub body: Option<Text>,
    /// Copies that are made and sent at a time, all workers together; others are let go of and
    /// counted. Default: 100.
    pub requests: Option<At<i64>>,
    /// How long a copy may take. Default: "10s".
    pub timeout: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawRedirectPolicy {
    /// 301, 302, 303, 307 or 308. Default: 308.
    pub status: Option<At<i64>>,
    /// "https" sends clear-text clients to TLS. A trusted proxy's x-forwarded-proto counts.
    pub scheme: Option<super::RawScheme>,
    pub host: Option<Text>,
    pub port: Option<At<i64>>,
    /// The whole path becomes this.
    pub path: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawRequestId {
    /// Default: "x-request-id".
    pub header: Option<Text>,
    /// Whether an id of up to 128 visible characters that a client sends is kept. Default: false.
    pub keep: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawSecurityHeaders {
    /// `strict-transport-security`, on responses over TLS. Default: not sent; `{}` takes every
    /// default.
    pub hsts: Option<RawHsts>,
    /// `x-content-type-options: nosniff`. Default: true.
    pub nosniff: Option<bool>,
    /// `x-frame-options`, as in "DENY" or "SAMEORIGIN". Default: not sent.
    pub frame_options: Option<Text>,
    /// Default: not sent.
    pub referrer_policy: Option<Text>,
    /// Default: not sent.
    pub content_security_policy: Option<Text>,
    /// Default: not sent.
    pub permissions_policy: Option<Text>,
    /// Whether fields that the upstream sent are replaced. Default: false.
    pub overwrite: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawHsts {
    /// Up to two years, as in "730d". Default: "365d".
    pub max_age: Option<Text>,
    /// Default: false.
    pub include_subdomains: Option<bool>,
    /// Default: false.
    pub preload: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawHeaders {
    /// Edits of request fields.
    pub request_headers: Option<RawHeaderEdits>,
    /// Edits of response fields.
    pub response_headers: Option<RawHeaderEdits>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(in crate::config) struct RawRateLimit {
    /// Requests in a second, minute, hour or day: "100/s", "1000/m", "20/h", "5/d".
    pub rate: Text,
    /// Requests that may come at once after a quiet time. Default: the number in `rate`.
    pub burst: Option<At<i64>>,
    /// What shares a limit: "address" (a client; IPv6 clients of one /64 are one), "header:NAME",
    /// "cookie:NAME", or "all". Requests without the field or cookie are told apart by address.
    /// Default: "address".
    pub key: Option<Text>,
    /// Keys that are told apart at a time, eight bytes each; beyond, the one that has asked least
    /// lately is forgotten. Default: 65536.
    pub keys: Option<At<i64>>,
    /// What a request too many is answered with, from 400 to 599. Default: 429.
    pub status: Option<At<i64>>,
    /// Whether responses carry the fields `ratelimit` and `ratelimit-policy`. Default: true.
    pub headers: Option<bool>,
}
