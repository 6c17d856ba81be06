//! What a file may contain. The only serde in the crate, and the source of the JSON Schema.
//!
//! Doc comments here are what an editor shows; defaults stand in them and are applied in
//! [`super::parse`].

mod dns;
mod issuer;
mod kubernetes;
mod policy;
mod upstream;

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

pub(super) use dns::*;
pub(super) use issuer::*;
pub(super) use kubernetes::*;
pub(super) use upstream::*;

/// A value that remembers where it stands.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct At<T>(pub(super) Spanned<T>);

impl<T> std::ops::Deref for At<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.get_ref()
    }
}

impl<T> At<T> {
    pub(super) fn span(&self) -> std::ops::Range<usize> {
        self.0.span()
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        T::json_schema(generator)
    }
}

pub(super) use policy::*;

type Text = At<String>;
type Table<T> = BTreeMap<String, T>;

/// A Postern configuration file.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct RawFile {
    /// Settings that are fixed for the life of the process. Main file only.
    pub runtime: Option<RawRuntime>,
    /// One line a request. Main file only.
    pub access_log: Option<RawAccessLog>,
    /// Health, metrics and the live configuration. Main file only.
    pub admin: Option<RawAdmin>,
    /// What the process may take of the machine. Main file only.
    pub limits: Option<RawLimits>,
    /// What is taken from a cluster. Main file only.
    pub kubernetes: Option<RawKubernetes>,
    /// Addresses that accept connections, by name.
    pub listeners: Table<RawListener>,
    /// Certificates, by name.
    pub certificates: Table<RawCertificate>,
    /// Whom the gateway asks about names. Main file only.
    pub dns: Option<RawDns>,
    /// Ways to write TXT records for challenges of kind dns-01, by name.
    pub dns_solvers: Table<RawDnsSolver>,
    /// Certificate authorities (ACME, RFC 8555) from which the gateway gets certificates, by name.
    pub issuers: Table<RawIssuer>,
    /// Groups of endpoints, by name.
    pub upstreams: Table<RawUpstream>,
    /// Policies in WebAssembly, by name.
    pub plugins: Table<RawPlugin>,
    /// Built-in policies, by name. Plugins and policies share their names.
    pub policies: Table<RawPolicy>,
    /// Hosts, and the rules below them.
    pub routes: Vec<RawRoute>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawRuntime {
    /// Worker threads. Default: one a processor.
    pub workers: Option<At<i64>>,
    /// Where plugins are kept between starts, as compiled and as fetched; made with mode 0700.
    /// Default: none, they are fetched and compiled at each start.
    pub cache_dir: Option<Text>,
    /// Where the gateway keeps accounts at issuers, and the keys and certificates that it got from
    /// them; made with mode 0700, files in it with 0600. To be backed up: it cannot be made again
    /// without new orders. Needed by `issuers`.
    pub state_dir: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawAccessLog {
    /// Default: "json".
    pub format: Option<RawLogFormat>,
    /// The file that lines are appended to. Default: standard output.
    pub path: Option<Text>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawLogFormat {
    Json,
    Text,
    Off,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawAdmin {
    /// Address and port. Default: "127.0.0.1:9180".
    pub bind: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawLimits {
    /// Open client connections, all listeners together. Default: 18000, or 72 % of the file
    /// descriptors that the process may open, whichever is less.
    pub connections: Option<At<i64>>,
    /// Percent of the memory that the control group allows from which on answers close their
    /// connection. Default: 90.
    pub memory_close: Option<At<i64>>,
    /// The same from which on requests are answered 503. Default: 95.
    pub memory_refuse: Option<At<i64>>,
    /// The same from which on connections are closed as soon as they are accepted. Default: 98.
    pub memory_stop: Option<At<i64>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawListener {
    /// Address and port, as in "[::]:8443" or "0.0.0.0:8080".
    pub bind: Text,
    /// Makes the listener speak TLS; `{}` takes every default.
    pub tls: Option<RawTls>,
    /// Networks whose X-Forwarded-* fields are believed, as in "10.0.0.0/8". Default: none.
    pub trusted_proxies: Option<Vec<Text>>,
    /// Whether a load balancer in front says who the client is, by PROXY protocol version 1 or 2.
    /// "required": every connection begins with a header. "optional": one may be missing, as with
    /// health checks. Default: "off".
    pub proxy_protocol: Option<At<RawProxyProtocol>>,
    /// Networks that may send the header. From elsewhere, "required" closes the connection and
    /// "optional" takes it as it is. Needed unless `proxy-protocol` is "off".
    pub proxy_protocol_from: Option<Vec<Text>>,
    /// What to do with %2F in a path. Default: "reject".
    pub encoded_slash: Option<RawEncodedSlash>,
    pub timeouts: Option<RawListenerTimeouts>,
    pub limits: Option<RawListenerLimits>,
    /// What one HTTP/2 connection may cost before it is ended.
    pub http2: Option<RawHttp2Limits>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawProxyProtocol {
    Off,
    Optional,
    Required,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawEncodedSlash {
    Reject,
    Keep,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawTls {
    /// Default: "1.2".
    pub min_version: Option<RawTlsVersion>,
    /// Names of the certificates to serve. Default: all of them.
    pub certificates: Option<Vec<Text>>,
    /// The certificate for clients whose server name none covers. Default: the first by name.
    pub default_certificate: Option<Text>,
    /// Files with secrets of session tickets, at least 32 random bytes each, so that a client can
    /// resume its session with any replica that has them: the first encrypts, all of them decrypt.
    /// To replace one, put the new one second everywhere, then first, and half a day later take the
    /// old one away. Default: keys of this process, which change every six hours.
    #[serde(default)]
    pub ticket_keys: Vec<Text>,
    /// Server names whose connections go to an upstream as they are, TLS included: no route and no
    /// policy sees them.
    #[serde(default)]
    pub passthrough: Vec<At<RawPassthrough>>,
    /// Hosts whose clients show a certificate. The upstream learns of it by the fields
    /// ssl-client-verify ("SUCCESS" or "NONE"), ssl-client-subject-dn, ssl-client-issuer-dn,
    /// ssl-client-fingerprint (SHA-256) and ssl-client-cert (PEM, percent-encoded).
    #[serde(default)]
    pub client_auth: Vec<At<RawClientAuth>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawPassthrough {
    /// Exact names, or "*." and a name.
    pub hosts: At<Vec<Text>>,
    /// Its balancing, health checks and `proxy-protocol` hold; its `tls` does not, since the TLS is
    /// the client's.
    pub upstream: Text,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawClientAuth {
    /// Exact names, or "*." and a name. Default: every host that no other entry names, and clients
    /// that name none.
    #[serde(default)]
    pub hosts: Vec<Text>,
    /// PEM: the authorities that may have signed the certificate.
    pub ca_file: Text,
    /// "required": a client without certificate is refused. "optional": it is served, and the
    /// upstream is told. Default: "required".
    pub mode: Option<RawClientAuthMode>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawClientAuthMode {
    Optional,
    Required,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
pub(super) enum RawTlsVersion {
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawListenerTimeouts {
    /// From accept to the end of a PROXY protocol header. Default: "5s".
    pub proxy_header: Option<Text>,
    /// From there to the end of the TLS handshake. Default: "10s".
    pub handshake: Option<Text>,
    /// From accept to the end of the request head. Default: "10s".
    pub request_head: Option<Text>,
    /// Idle time between requests. Default: "60s".
    pub keep_alive: Option<Text>,
    /// How long a request body may stand still before its response begins. Default: "30s".
    pub body_idle: Option<Text>,
    /// How long a client may take nothing of a response: over HTTP/1 no byte, over HTTP/2 less
    /// than 16 KiB of a stream. Default: "30s".
    pub write_idle: Option<Text>,
    /// How long a request body may be slower than limits.body-rate. Default: "10s".
    pub body_grace: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawListenerLimits {
    /// Open connections, all workers together. Default: 20000.
    pub connections: Option<At<i64>>,
    /// Size of a request head, as in "64KiB", which is the default.
    pub head: Option<Text>,
    /// Size of a request line, which is part of the head: method, target and version, as in "8KiB",
    /// which is the default. A longer one is answered 414.
    pub request_line: Option<Text>,
    /// Fields of a request. Default: 100. More are answered 431; over HTTP/2, where one byte can stand
    /// for a field, twice as many end the connection.
    pub head_fields: Option<At<i64>>,
    /// Open streams of one HTTP/2 connection. Default: 100.
    pub streams: Option<At<i64>>,
    /// Requests of one connection, which is then closed in order. Default: 10000.
    pub requests: Option<At<i64>>,
    /// Bytes a second that a client has to send of a request body; "0B" waits for any. gRPC over
    /// HTTP/2 is let off. Default: "500B".
    pub body_rate: Option<Text>,
}

/// Budgets of one HTTP/2 connection. One that spends more is ended with ENHANCE_YOUR_CALM.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawHttp2Limits {
    /// Size of a decoded request head, each field counted with 32 bytes more. Default: "32KiB".
    pub head: Option<Text>,
    /// The time that budgets "in a window" are for. Default: "10s".
    pub window: Option<Text>,
    /// Requests that the client may reset before their response, in the life of a connection.
    /// Default: 50.
    pub resets: Option<At<i64>>,
    /// The same in a window, with resets of streams that are over. Default: 100.
    pub resets_in_window: Option<At<i64>>,
    /// Resets that the client may cause by its own faults, in the life of a connection.
    /// Default: 200.
    pub faults: Option<At<i64>>,
    /// SETTINGS frames in a window. Default: 50.
    pub settings: Option<At<i64>>,
    /// PING frames in a window, over one for each DATA frame sent to the client. Default: 100.
    pub pings: Option<At<i64>>,
    /// PRIORITY frames, and frames of unknown types, in a window, over one for each request.
    /// Default: 100.
    pub priorities: Option<At<i64>>,
    /// WINDOW_UPDATE frames in a window, over what was sent to the client calls for. Default: 100.
    pub window_updates: Option<At<i64>>,
    /// DATA frames without data in a row. Default: 100.
    pub empty_data: Option<At<i64>>,
}

/// Either `cert-file` and `key-file`, or `issuer` and `hosts`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawCertificate {
    /// PEM: the certificate, then its chain.
    pub cert_file: Option<Text>,
    /// PEM: the private key.
    pub key_file: Option<Text>,
    /// The name of the issuer that the gateway gets the certificate from, and renews it at.
    pub issuer: Option<Text>,
    /// What it is for: exact names, or "*." and a name. One certificate for each, so that one name
    /// that cannot be validated holds up no other.
    pub hosts: Option<At<Vec<Text>>>,
    /// Whether there is one certificate for all `hosts` instead. Default: false.
    pub as_one: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawPlugin {
    /// The component: a file, "https://..." with `sha256`, or an artifact in a registry by its
    /// digest, "oci://registry/repository@sha256:...".
    pub source: Text,
    /// The SHA-256 of the component in hexadecimal. Needed by https sources, and only by them: other
    /// bytes are refused.
    pub sha256: Option<Text>,
    /// How a source that is no file is fetched.
    pub fetch: Option<At<RawFetch>>,
    /// What a request gets when the plugin fails: "deny" (503), "allow" (it goes on without the
    /// plugin, and with none of what it did; a body of which it has changed a piece is cut), or a
    /// status from 400 to 599. Default: "deny".
    pub on_error: Option<At<RawOnError>>,
    /// "plugin": an instance serves many requests, one after the other; "request": each call has an
    /// instance of its own, at about twenty times the cost. Default: "plugin".
    pub isolation: Option<RawIsolation>,
    pub limits: Option<RawPluginLimits>,
    /// What the plugin may do beyond looking at requests. Default: nothing.
    pub grants: Option<RawGrants>,
    /// Given to the plugin, which checks it.
    #[serde(default)]
    pub config: Table<serde_json::Value>,
}

/// A login is `user` and `password-file`, or `docker-config`. All files are read at each attempt.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawFetch {
    /// Who to log in as. Default: nobody.
    pub user: Option<Text>,
    /// Holds the password of `user`, or a token; a line end behind it does not belong to it.
    pub password_file: Option<Text>,
    /// A file as `docker login` writes it, or a Secret of the type kubernetes.io/dockerconfigjson.
    /// Helper programs that it names are not run.
    pub docker_config: Option<Text>,
    /// PEM roots to trust. Default: the system's.
    pub ca_file: Option<Text>,
    /// Whether clear text will do. Default: false, but for registries on this machine (localhost,
    /// 127.0.0.0/8, ::1) without `ca-file`.
    pub plain_http: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum RawOnError {
    Word(String),
    Status(i64),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawPluginLimits {
    /// Processor time a call. Default: "50ms".
    pub cpu: Option<Text>,
    /// Wall time a call, callouts included. Default: "1s".
    pub time: Option<Text>,
    /// Memory an instance. Default: "64MiB".
    pub memory: Option<Text>,
    /// Instances in one worker. Default: 32.
    pub instances: Option<At<i64>>,
    /// Log lines a second. Default: 100.
    pub log_lines: Option<At<i64>>,
    /// Bytes of a body that are held for the plugin, or taken from it instead. Default: "1MiB".
    pub body: Option<Text>,
    /// Requests to granted upstreams that one call may make. Default: 16.
    pub callouts: Option<At<i64>>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawIsolation {
    Plugin,
    Request,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct RawGrants {
    /// Names of upstreams that the plugin may send requests to.
    pub upstreams: Vec<Text>,
    /// Secrets by the name that the plugin asks for.
    pub secrets: BTreeMap<At<String>, At<RawSecret>>,
    /// Memory that its instances share, as in "1MiB".
    pub shared_state: Option<Text>,
    /// Whether it may answer ACME HTTP-01 challenges. Default: false.
    pub challenges: bool,
    /// Whether it may write DNS records for certificates. Default: false.
    pub dns: bool,
}

/// One of `file` and `env`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawSecret {
    /// A file; one line end at its end is not part of the secret.
    pub file: Option<Text>,
    /// A variable of the gateway's environment.
    pub env: Option<Text>,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct RawHeaderEdits {
    /// Fields to take out.
    pub remove: Vec<Text>,
    /// Fields that get this one value.
    pub set: BTreeMap<At<String>, Text>,
    /// Fields that get one value more.
    pub add: BTreeMap<At<String>, Text>,
}

impl PartialEq for At<String> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for At<String> {}

impl PartialOrd for At<String> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for At<String> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawRoute {
    /// For logs and `explain`. Default: the first host, or "default".
    pub name: Option<Text>,
    /// Exact names, or "*." and a name for one more label. Default: every host that no other route
    /// covers.
    #[serde(default)]
    pub hosts: Vec<Text>,
    pub rules: At<Vec<At<RawRule>>>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawRule {
    /// Default: every path.
    pub path: Option<At<RawPathMatch>>,
    /// Default: any.
    #[serde(default)]
    pub methods: Vec<Text>,
    /// All of them have to hold.
    #[serde(default)]
    pub headers: Vec<At<RawFieldMatch>>,
    /// All of them have to hold.
    #[serde(default)]
    pub query: Vec<At<RawFieldMatch>>,

    /// Where to forward to: one upstream.
    pub upstream: Option<Text>,
    /// Where to forward to: several upstreams by weight.
    pub upstreams: Option<At<Vec<RawBackend>>>,
    /// Answers with a redirect instead.
    pub redirect: Option<At<RawRedirect>>,
    /// Answers with a fixed response instead.
    pub respond: Option<At<RawRespond>>,

    /// Names of plugins and policies, in the order in which they see the request.
    #[serde(default)]
    pub policies: Vec<Text>,
    pub request_headers: Option<RawHeaderEdits>,
    pub response_headers: Option<RawHeaderEdits>,
    pub rewrite: Option<At<RawRewrite>>,
    pub timeouts: Option<RawRuleTimeouts>,
}

/// One of `exact`, `prefix` and `regex`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawPathMatch {
    pub exact: Option<Text>,
    /// By whole path elements: "/api" accepts /api and /api/v1, not /apis.
    pub prefix: Option<Text>,
    /// Has to match the whole path.
    pub regex: Option<Text>,
}

/// `name`, and one of `exact`, `regex` and `present`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawFieldMatch {
    pub name: Text,
    pub exact: Option<String>,
    /// Has to match the whole value.
    pub regex: Option<Text>,
    /// Whether it has to be there, or has to be absent.
    pub present: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawBackend {
    pub name: Text,
    /// Share of the requests. Default: 1.
    pub weight: Option<At<i64>>,
}

/// Parts that are not given stay as requested.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawRedirect {
    /// 301, 302, 303, 307 or 308. Default: 308.
    pub status: Option<At<i64>>,
    pub scheme: Option<RawScheme>,
    pub host: Option<Text>,
    pub port: Option<At<i64>>,
    /// The whole path becomes this.
    pub path: Option<Text>,
    /// The matched prefix becomes this.
    pub prefix: Option<Text>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RawScheme {
    Http,
    Https,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawRespond {
    /// From 200 to 599.
    pub status: At<i64>,
    /// Default: empty.
    pub body: Option<String>,
}

/// One of `path` and `prefix`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawRewrite {
    /// The whole path becomes this.
    pub path: Option<Text>,
    /// The matched prefix becomes this.
    pub prefix: Option<Text>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct RawRuleTimeouts {
    /// To the first byte of the response. Default: the upstream's.
    pub first_byte: Option<Text>,
}
