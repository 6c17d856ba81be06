//! Annotations that are not understood, and what ignoring them would do.

use postern_core::config::problem::suggest;

use super::Fault;
use crate::object::Reason;

const OURS: &str = "postern.dev/";
pub(super) const NGINX: &str = "nginx.ingress.kubernetes.io/";
/// Ours.
const KNOWN: [&str; 3] = ["endpoints", "issuer", "policies"];
/// Of ingress-nginx: beginnings of those that decide who may pass. An application behind one of
/// them would be open to everybody if it were ignored.
const GUARDS: [&str; 9] = [
    "allowlist-source-range",
    "auth-",
    "configuration-snippet",
    "denylist-source-range",
    "enable-modsecurity",
    "modsecurity-",
    "satisfy",
    "server-snippet",
    "whitelist-source-range",
];
/// Marks an Ingress that is none by itself.
pub(super) const CANARY: &str = "nginx.ingress.kubernetes.io/canary";

/// What is wrong with an annotation that nobody has taken. An error: it guards something.
pub(super) fn judge(key: &str, value: &str) -> Option<Fault> {
    if let Some(name) = key.strip_prefix(OURS) {
        if KNOWN.contains(&name) {
            return None;
        }
        let fault = Fault::warning(Reason::Unsupported, "there is no such annotation");
        return Some(match suggest(name, KNOWN.into_iter()) {
            Some(near) => fault.with_help(format!("did you mean {OURS}{near}?")),
            None => fault,
        });
    }
    let name = key.strip_prefix(NGINX)?;
    let is_off = name.starts_with("enable-") && value == "false";
    if !is_off && GUARDS.iter().any(|guard| name.starts_with(guard)) {
        let message = "this annotation of ingress-nginx keeps requests out and is not understood \
                       here, so every request is answered 503";
        let help = "state it as a Policy, name that in postern.dev/policies, and remove this one";
        return Some(Fault::error(Reason::PolicyMissing, message).with_help(help));
    }
    // What says "no" asks for nothing.
    if matches!(value, "false" | "off" | "") {
        return None;
    }
    let message = "this annotation of ingress-nginx is not understood here and has no effect";
    let help =
        "state it as a Policy, if there is one for it, and name that in postern.dev/policies";
    Some(Fault::warning(Reason::Unsupported, message).with_help(help))
}
