//! What is printed is read back as the same configuration, and hides what it should.

use postern_core::config::parse::parse;
use postern_core::config::problem::ConfigText;

use super::*;

const EVERY_KEY: &str = r#"
[runtime]
workers = 3
cache-dir = "/var/cache/postern"
[access-log]
format = "text"
path = "/var/log/postern.log"
[admin]
bind = "127.0.0.1:9999"
[limits]
connections = 1000
memory-close = 70
memory-refuse = 80
memory-stop = 90
[kubernetes]
controller = "example.com/edge"
ingress-classes = ["internal"]
class-less = true
share-hosts = true
endpoints = "service"
external-names = ["api.test", "*.b.test"]
default-certificate = "ns/tls"
publish-hostname = "edge.test"
publish-addresses = ["192.0.2.1", "2001:db8::1"]
publish-service = "ns/edge"
trusted-namespaces = ["platform"]
plugin-dir = "/plugins"
secrets = "cluster"
lease = "edge"
[listeners.http]
bind = "0.0.0.0:8080"
trusted-proxies = ["10.0.0.0/8", "::1"]
proxy-protocol = "optional"
proxy-protocol-from = ["10.0.0.0/8"]
encoded-slash = "keep"
timeouts = { proxy-header = "2s", handshake = "1s", request-head = "1500ms", keep-alive = "2m", body-idle = "3s", write-idle = "4s", body-grace = "5s" }
limits = { connections = 5, head = "16KiB", request-line = "4KiB", head-fields = 7, streams = 9, requests = 10, body-rate = "1KiB" }
http2 = { head = "8KiB", window = "1s", resets = 1, resets-in-window = 2, faults = 3, settings = 4, pings = 5, priorities = 6, window-updates = 7, empty-data = 9 }
[listeners.https]
bind = "[::]:8443"
tls = { min-version = "1.3", certificates = ["shop"], default-certificate = "shop", ticket-keys = ["/t1", "/t2"], passthrough = [{ hosts = ["p.test", "*.p.test"], upstream = "b" }], client-auth = [{ hosts = ["a.test", "*.a.test"], ca-file = "/ca.pem", mode = "optional" }, { ca-file = "/ca.pem" }] }
[certificates.shop]
cert-file = "/c.pem"
key-file = "/k.pem"
[upstreams."ns/app:80"]
endpoints = ["[::1]:9001", "app.internal:80"]
balance = "least-requests"
protocol = "http2"
tls = { server-name = "app.test", ca-file = "/ca.pem" }
timeouts = { connect = "1s", first-byte = "2s", body-idle = "3s", keep-alive = "4s" }
idle-connections = 11
limits = { connections = 12, pending = 13, requests = 14 }
retries = { count = 2, budget = 15, per-try = "500ms", on-status = [502, 503] }
health-check = { path = "/healthz", host = "h.test", interval = "1s", timeout = "2s", healthy = 3, unhealthy = 4, status = "200-204" }
ejection = { failures = 0, time = "2s", max-time = "30s", max-percent = 20 }
fail-open = false
host = "app.test:81"
slow-start = "30s"
[upstreams.b]
endpoints = ["127.0.0.1:1", { address = "127.0.0.1:2", weight = 3, priority = 1 }]
balance = "hash"
hash-key = "cookie:sid"
sticky = { cookie = "at", max-age = "1h", same-site = "none", secure = true }
proxy-protocol = "v1"
tls = { cert-file = "/c.pem", key-file = "/k.pem", insecure = true }
health-check = {}
[plugins.auth]
source = "/auth.wasm"
on-error = 429
limits = { cpu = "1ms", time = "2s", memory = "1GiB", instances = 3, log-lines = 4 }
config = { token = "hush", list = [1, 2.5, true], deep = { "a b" = "\u0001\u007f\"" }, none = {} }
[policies.edit]
kind = "headers"
request-headers = { remove = ["x-a"], set = { x-b = "hush" }, add = { x-c = "2" } }
response-headers = { set = { server = "x" } }
[policies.limit]
kind = "rate-limit"
rate = "100/m"
burst = 7
key = "header:x-key"
keys = 100
status = 503
headers = false
[policies.staff]
kind = "basic-auth"
users-file = "/users"
realm = "staff"
user-header = "x-user"
keep-credentials = true
[policies.body]
kind = "body-size"
limit = "3MiB"
[policies.small]
kind = "compression"
codings = ["gzip", "zstd"]
types = ["text/*", "application/json"]
min-size = "2KiB"
responses = 7
[policies.flight]
kind = "concurrency"
requests = 4
key = "cookie:id"
keys = 9
status = 429
[policies.new]
kind = "canary"
upstream = "b"
weight = 7
header = "x-new"
header-value = "hush"
cookie = "new"
by = "request"
[policies.copy]
kind = "mirror"
upstream = "b"
percent = 7
body = "2KiB"
requests = 8
timeout = "3s"
[policies.pages]
kind = "error-pages"
statuses = ["404", "500-599"]
file = "/5xx.html"
content-type = "text/plain"
[policies.page]
kind = "error-pages"
statuses = ["403"]
body = "no"
[policies.cors]
kind = "cors"
origins = ["https://a.test", "https://*.a.test:8443"]
methods = ["GET"]
headers = ["x-a"]
expose = ["x-b"]
credentials = true
max-age = "1m"
[policies.ask]
kind = "forward-auth"
upstream = "b"
path = "/verify?x=1"
host = "auth.test:8443"
request-headers = ["cookie"]
upstream-headers = ["x-user"]
client-headers = ["x-seen"]
signin = "https://auth.test/in"
signin-parameter = "to"
timeout = "2s"
on-unavailable = 502
cache = "30s"
cache-key = ["x-api-key"]
[policies.access]
kind = "ip-access"
allow = ["10.0.0.0/8"]
deny = ["10.0.0.1", "2001:db8::/32"]
[policies.repair]
kind = "maintenance"
on = false
status = 502
retry-after = "5m"
content-type = "text/plain"
body = "back soon"
allow = ["127.0.0.1"]
[policies.https]
kind = "redirect"
status = 301
scheme = "https"
host = "a.test"
port = 8443
path = "/x"
[policies.id]
kind = "request-id"
header = "x-trace"
keep = true
[policies.security]
kind = "security-headers"
hsts = { max-age = "730d", include-subdomains = true, preload = true }
nosniff = false
frame-options = "DENY"
referrer-policy = "no-referrer"
content-security-policy = "default-src 'self'"
permissions-policy = "camera=()"
overwrite = true
[[routes]]
hosts = ["a.test", "*.a.test"]
rules = [
  { path.prefix = "/api", methods = ["GET"], upstream = "b", policies = ["auth", "edit"], rewrite.prefix = "" },
  { path.exact = "/e", headers = [{ name = "x", exact = "hush" }, { name = "y", regex = "a|b" }], upstreams = [{ name = "b", weight = 3 }, { name = "ns/app:80" }] },
  { path.regex = "/r|s", query = [{ name = "k", exact = "hush" }, { name = "q", present = true }, { name = "z", present = false }], redirect = { status = 301, scheme = "https", host = "b.test", port = 8443, path = "/x" } },
  { respond = { status = 404, body = "no\n" }, timeouts.first-byte = "7s" },
  { path.prefix = "/w", redirect.prefix = "/v", request-headers.set = { x-d = "hush" } },
]
[[routes]]
rules = [{ upstream = "b", rewrite.path = "/y" }]
"#;

fn read(text: &str) -> Config {
    let file = ConfigText {
        path: "a.toml".into(),
        text: text.to_owned(),
    };
    parse(&[file]).unwrap().config
}

#[test]
fn what_is_printed_is_read_back_as_the_same() {
    for text in [
        EVERY_KEY,
        "[upstreams.b]\nendpoints = ['127.0.0.1:1']",
        "[policies.nothing]\nkind = 'headers'\n[[routes]]\nrules = [{ respond.status = 404, policies = ['nothing'] }]",
        "[listeners.a]\nbind = '[::]:0'",
        "policies.a = { kind = 'cors', origins = ['*'] }\npolicies.b = { kind = 'maintenance' }\npolicies.c = { kind = 'security-headers', hsts = {} }\npolicies.d = { kind = 'request-id' }\npolicies.e = { kind = 'concurrency', requests = 1 }\npolicies.f = { kind = 'rate-limit', rate = '3/d' }\npolicies.g = { kind = 'compression' }",
    ] {
        let first = read(text);
        let printed = toml::render(&config(&first, Secrets::Shown));
        assert_eq!(read(&printed), first, "{printed}");
        // Defaults are filled in, so that printing again changes nothing.
        assert_eq!(
            toml::render(&config(&read(&printed), Secrets::Shown)),
            printed
        );
    }
}

/// Whatever the fuzzers have come to that is a configuration.
#[test]
fn what_fuzzers_found_is_printed_and_read_back() {
    let corpus = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fuzz/corpus/config_toml"
    );
    let mut read_back = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let Ok(text) = std::fs::read_to_string(entry.unwrap().path()) else {
            continue;
        };
        let path = "a.toml".into();
        let Ok(first) = parse(&[ConfigText { path, text }]) else {
            continue;
        };
        let printed = toml::render(&config(&first.config, Secrets::Shown));
        assert_eq!(read(&printed), first.config, "{printed}");
        read_back += 1;
    }
    assert!(read_back > 0, "no configuration in {corpus}");
}

#[test]
fn what_may_be_a_secret_is_hidden_from_the_network() {
    let first = read(EVERY_KEY);
    let shown = config(&first, Secrets::Shown).to_string();
    assert_eq!(shown.matches("hush").count(), 6, "{shown}");
    let hidden = config(&first, Secrets::Hidden).to_string();
    assert_eq!(hidden.matches("hush").count(), 0, "{hidden}");
    assert!(hidden.contains("/k.pem"), "{hidden}");
}

#[test]
fn durations_keep_their_unit() {
    assert_eq!(duration(Duration::from_millis(1500)), "1500ms");
    assert_eq!(duration(Duration::from_secs(90)), "90s");
}
