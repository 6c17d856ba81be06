//! Annotations of ingress-nginx that say what a built-in policy says: they become that policy.
//!
//! A value is looked at as data and becomes a value of the policy, which is read as one of a Policy
//! object is. What cannot be said exactly is left to [`annotation`](super::annotation), which tells
//! the author, and refuses requests where the annotation would have kept somebody out.

use postern_core::config::PolicySpec;
use postern_core::config::route::RewriteSpec;
use postern_core::path::EncodedSlash;
use postern_core::path::RequestPath;
use serde_json::Value;
use serde_json::json;

use super::annotation::NGINX;
use crate::object::Kind;
use crate::object::ObjectName;
use crate::read::At;
use crate::read::Findings;
use crate::record::AppProtocol;
use crate::record::Ingress;
use crate::record::Record;

/// What ingress-nginx lets pages of other origins do unless it is told otherwise.
const CORS_METHODS: &str = "GET, PUT, POST, DELETE, PATCH, OPTIONS";
const CORS_HEADERS: &str = "DNT, Keep-Alive, User-Agent, X-Requested-With, If-Modified-Since, \
                            Cache-Control, Content-Type, Range, Authorization";
const CORS_MAX_AGE: u32 = 1_728_000;
/// No browser remembers longer, whatever it is told.
const LONGEST_MAX_AGE: u32 = 24 * 60 * 60;
/// Items of one list.
const MAX_ITEMS: usize = 1000;

/// What the annotations of an Ingress say, as far as it can be said here.
#[derive(Default)]
pub(super) struct Nginx {
    /// In the order in which they see a request, each with the part of its name that tells it from
    /// the others.
    pub(super) policies: Vec<(&'static str, PolicySpec)>,
    /// What every path becomes, but for the one that it is.
    pub(super) rewrite: Option<String>,
    pub(super) protocol: Option<AppProtocol>,
    /// Names, without the prefix, of those that nothing more need be said of.
    taken: Vec<&'static str>,
}

impl Nginx {
    pub(super) fn read(name: &ObjectName, ingress: &Ingress) -> Self {
        let mut nginx = Self::default();
        if ingress.annotations.is_empty() {
            return nginx;
        }
        let said = Said { name, ingress };
        nginx.tls(&said);
        nginx.addresses(&said);
        nginx.body_size(&said);
        nginx.cors(&said);
        nginx.target(&said);
        nginx.backend(&said);
        nginx
    }

    pub(super) fn has_taken(&self, key: &str) -> bool {
        let name = key.strip_prefix(NGINX);
        name.is_some_and(|name| self.taken.contains(&name))
    }

    /// What a path of the Ingress becomes. ingress-nginx leaves one alone that is its own target.
    pub(super) fn rewrite_of(&self, path: &str) -> Option<RewriteSpec> {
        let target = self.rewrite.as_ref()?;
        let is_it = path == target || path.is_empty() && target == "/";
        (!is_it).then(|| RewriteSpec::Path(target.clone()))
    }

    fn add(&mut self, part: &'static str, policy: Option<PolicySpec>, of: &[&'static str]) {
        if let Some(policy) = policy {
            self.policies.push((part, policy));
            self.taken.extend(of);
        }
    }

    fn tls(&mut self, said: &Said<'_>) {
        let redirect = || {
            let spec = json!({ "kind": "redirect", "scheme": "https", "status": 308 });
            said.policy(&spec)
        };
        if said.get("force-ssl-redirect") == Some("true") {
            let both = ["force-ssl-redirect", "ssl-redirect"];
            self.add("ssl-redirect", redirect(), &both);
            return;
        }
        if said.get("ssl-redirect") != Some("true") {
            return;
        }
        let Ingress { rules, tls, .. } = said.ingress;
        let has_tls = |host| {
            tls.iter()
                .any(|tls| tls.hosts.is_empty() || tls.hosts.contains(host))
        };
        let hosts = rules.iter().map(|rule| rule.host.as_ref());
        let covered = hosts.filter(|host| host.is_some_and(has_tls)).count();
        if covered == 0 {
            // Nothing is redirected where there is no certificate.
            self.taken.push("ssl-redirect");
        } else if covered == rules.len() {
            self.add("ssl-redirect", redirect(), &["ssl-redirect"]);
        }
    }

    /// All of them or none: a list that is not understood must not widen another.
    fn addresses(&mut self, said: &Said<'_>) {
        let both = ["allowlist-source-range", "whitelist-source-range"];
        let allow = match both.map(|key| said.get(key)) {
            // ingress-nginx takes one of them, and only its authors know which.
            [Some(_), Some(_)] => return,
            [one, other] => one.or(other),
        };
        let deny = said.get("denylist-source-range");
        if allow.is_none() && deny.is_none() {
            return;
        }
        let mut spec = json!({ "kind": "ip-access" });
        for (key, ranges) in [("allow", allow), ("deny", deny)] {
            if let Some(ranges) = ranges {
                let ranges = list(ranges);
                if ranges.is_empty() {
                    return;
                }
                spec[key] = json!(ranges);
            }
        }
        let all = [both[0], both[1], "denylist-source-range"];
        self.add("source-range", said.policy(&spec), &all);
    }

    fn body_size(&mut self, said: &Said<'_>) {
        let Some(text) = said.get("proxy-body-size") else {
            return;
        };
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor: Option<u64> = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" => Some(1),
            "k" => Some(1 << 10),
            "m" => Some(1 << 20),
            "g" => Some(1 << 30),
            _ => None,
        };
        let size = digits.parse::<u64>().ok().zip(factor);
        match size.and_then(|(number, factor)| number.checked_mul(factor)) {
            // Without a bound, as it is here.
            Some(0) => self.taken.push("proxy-body-size"),
            Some(bytes) => {
                let spec = json!({ "kind": "body-size", "limit": format!("{bytes}B") });
                self.add("body-size", said.policy(&spec), &["proxy-body-size"]);
            }
            None => {}
        }
    }

    fn cors(&mut self, said: &Said<'_>) {
        if said.get("enable-cors") != Some("true") {
            return;
        }
        let text = |key: &str, default: &'static str| said.get(key).unwrap_or(default).to_owned();
        let origins = list(&text("cors-allow-origin", "*"));
        // With "*", browsers send no credentials, whatever they are told.
        let is_open = origins.contains(&"*".to_owned());
        let age = match said.get("cors-max-age").map(str::parse::<u32>) {
            None => CORS_MAX_AGE,
            Some(Ok(age)) => age,
            Some(Err(_)) => return,
        };
        let mut spec = json!({
            "kind": "cors",
            "origins": if is_open { vec!["*".to_owned()] } else { origins },
            "methods": list(&text("cors-allow-methods", CORS_METHODS)),
            "headers": list(&text("cors-allow-headers", CORS_HEADERS)),
            "credentials": !is_open && text("cors-allow-credentials", "true") == "true",
            "max-age": format!("{}s", age.clamp(1, LONGEST_MAX_AGE)),
        });
        if let Some(fields) = said.get("cors-expose-headers") {
            spec["expose"] = json!(list(fields));
        }
        let all = [
            "enable-cors",
            "cors-allow-origin",
            "cors-allow-methods",
            "cors-allow-headers",
            "cors-allow-credentials",
            "cors-expose-headers",
            "cors-max-age",
        ];
        self.add("cors", said.policy(&spec), &all);
    }

    fn target(&mut self, said: &Said<'_>) {
        // With a regular expression, it is made of what that has found.
        let Some(target) = said.get("rewrite-target") else {
            return;
        };
        if said.get("use-regex") == Some("true") || target.contains(['$', '?', '#']) {
            return;
        }
        let path = RequestPath::from_text(target, EncodedSlash::Reject).ok();
        if path.is_some_and(|path| path.path() == target) {
            self.rewrite = Some(target.to_owned());
            self.taken.push("rewrite-target");
        }
    }

    fn backend(&mut self, said: &Said<'_>) {
        let protocol = said.get("backend-protocol").map(str::to_ascii_uppercase);
        self.protocol = match protocol.as_deref() {
            Some("HTTP") => Some(AppProtocol::Http),
            Some("HTTPS") => Some(AppProtocol::Https),
            Some("GRPC") => Some(AppProtocol::H2c),
            _ => None,
        };
        if self.protocol.is_some() {
            self.taken.push("backend-protocol");
        }
    }
}

/// The annotations of one Ingress.
struct Said<'i> {
    name: &'i ObjectName,
    ingress: &'i Ingress,
}

impl<'i> Said<'i> {
    fn get(&self, name: &str) -> Option<&'i str> {
        let mut annotations = self.ingress.annotations.iter();
        let found = annotations.find(|(key, _)| key.strip_prefix(NGINX) == Some(name));
        found.map(|(_, value)| value.trim())
    }

    /// `None` if one of its values is none.
    fn policy(&self, spec: &Value) -> Option<PolicySpec> {
        let object = json!({ "spec": spec });
        let mut findings = Findings::default();
        let root = At::root(&object);
        let record = Record::read(Kind::Policy, self.name, &root, &mut findings)?;
        match record {
            Record::Policy(custom) if findings.into_list().is_empty() => Some(custom.spec.clone()),
            _ => None,
        }
    }
}

/// Items between commas. More than anybody writes is none at all.
fn list(text: &str) -> Vec<String> {
    let items = text.split(',').map(str::trim);
    let items: Vec<_> = items
        .filter(|item| !item.is_empty())
        .take(MAX_ITEMS + 1)
        .map(str::to_owned)
        .collect();
    match items.len() > MAX_ITEMS {
        true => Vec::new(),
        false => items,
    }
}
