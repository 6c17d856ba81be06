//! What a call is about: one request, its response if there is one, and what is known of both.
//!
//! The proxy owns an [`Exchange`]. It is moved into an instance for a call and back afterwards,
//! also after a fault, so that host functions edit the real thing and nothing is copied.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::StatusCode;
use http::Version;
use postern_core::name::ListenerName;
use postern_core::name::PolicyName;
use postern_core::name::RouteName;
use postern_core::name::UpstreamName;
use postern_core::path::EncodedSlash;
use postern_core::request::RequestHead;

use crate::limits::MAX_STATE_BYTES;
use crate::limits::MAX_VAR_BYTES;
use crate::limits::MAX_VAR_NAME_LEN;
use crate::limits::MAX_VARS;

/// One request and its response, as plugins see and edit them.
#[derive(Debug)]
pub struct Exchange {
    /// Unique in the process.
    pub id: u64,
    pub request: RequestHead,
    /// There once the upstream, or a plugin, has answered.
    pub response: Option<ResponseHead>,
    /// The other end of the connection.
    pub peer: Option<SocketAddr>,
    /// The client: the peer, or whom a trusted peer speaks for.
    pub client: Option<IpAddr>,
    /// Server name of the TLS handshake.
    pub sni: Option<Arc<str>>,
    pub listener: Option<ListenerName>,
    pub route: Option<RouteName>,
    /// What the client speaks.
    pub version: Version,
    /// The `traceparent` field that goes upstream, if there is one.
    pub traceparent: Option<Arc<str>>,
    /// What a plugin may do with `%2F`: the listener's rule.
    pub encoded_slash: EncodedSlash,
    /// The upstreams that exist.
    pub upstreams: Option<Arc<Upstreams>>,
    /// The upstream that a plugin chose, one of `upstreams`.
    pub upstream: Option<UpstreamName>,
    /// Keep what is needed to take back the edits of a call that fails. It costs a copy of the
    /// message before the first edit, so only for plugins that fail open.
    pub undo: bool,
    pub(crate) notes: Notes,
}

/// What plugins have set beside the messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    vars: Vec<(Box<str>, Box<str>)>,
    /// Each plugin has its own, or one could read what another wrote.
    states: Vec<(PolicyName, Vec<u8>)>,
}

impl Default for Exchange {
    fn default() -> Self {
        Self {
            id: 0,
            request: RequestHead::default(),
            response: None,
            peer: None,
            client: None,
            sni: None,
            listener: None,
            route: None,
            version: Version::HTTP_11,
            traceparent: None,
            encoded_slash: EncodedSlash::default(),
            upstreams: None,
            upstream: None,
            undo: false,
            notes: Notes::default(),
        }
    }
}

impl Exchange {
    /// An exchange of which only the request is known.
    pub fn new(request: RequestHead) -> Self {
        Self {
            request,
            ..Self::default()
        }
    }

    /// The same exchange for a phase that runs beside the others, as those of streams do: what is
    /// known so far, without the response.
    pub fn fork(&self) -> Self {
        Self {
            request: self.request.clone(),
            sni: self.sni.clone(),
            listener: self.listener.clone(),
            route: self.route.clone(),
            traceparent: self.traceparent.clone(),
            upstreams: self.upstreams.clone(),
            upstream: self.upstream.clone(),
            notes: self.notes.clone(),
            response: None,
            ..*self
        }
    }

    /// Takes over what plugins have set in a fork of this exchange.
    pub fn join(&mut self, fork: &Self) {
        self.notes.clone_from(&fork.notes);
    }

    /// Takes back what was done to the request, and what was set beside it, since the fork.
    pub fn restore(&mut self, fork: Self) {
        self.request = fork.request;
        self.upstream = fork.upstream;
        self.notes = fork.notes;
    }

    /// What plugins have set, in the order of first setting.
    pub fn vars(&self) -> impl Iterator<Item = (&str, &str)> {
        self.notes
            .vars
            .iter()
            .map(|(name, value)| (&**name, &**value))
    }

    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    pub(crate) fn set_var(&mut self, name: String, value: String) -> Result<(), VarError> {
        let is_name = (1..=MAX_VAR_NAME_LEN).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !is_name {
            return Err(VarError::Name);
        }
        let vars = &mut self.notes.vars;
        let others: usize = vars
            .iter()
            .filter(|(n, _)| **n != *name)
            .map(|(n, v)| n.len() + v.len())
            .sum();
        if others + name.len() + value.len() > MAX_VAR_BYTES {
            return Err(VarError::Size);
        }
        match vars.iter().position(|(n, _)| **n == *name) {
            Some(index) => vars[index].1 = value.into(),
            None if vars.len() == MAX_VARS => return Err(VarError::Size),
            None => vars.push((name.into(), value.into())),
        }
        Ok(())
    }

    pub(crate) fn state(&self, plugin: &PolicyName) -> &[u8] {
        let states = &self.notes.states;
        let state = states.iter().find(|(name, _)| name == plugin);
        state.map_or(&[], |(_, state)| state)
    }

    /// Answers whether it was small enough to be kept.
    pub(crate) fn set_state(&mut self, plugin: &PolicyName, state: Vec<u8>) -> bool {
        if state.len() > MAX_STATE_BYTES {
            return false;
        }
        let states = &mut self.notes.states;
        match states.iter_mut().find(|(name, _)| name == plugin) {
            Some((_, old)) => *old = state,
            None => states.push((plugin.clone(), state)),
        }
        true
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum VarError {
    Name,
    Size,
}

/// Status and fields of a response.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    /// End-to-end fields. `content-length` may be among them: plugins cannot touch it.
    pub headers: HeaderMap,
}

/// The names of the upstreams that a plugin may choose from.
#[derive(Debug, Default)]
pub struct Upstreams(Box<[UpstreamName]>);

impl Upstreams {
    pub fn new(names: impl IntoIterator<Item = UpstreamName>) -> Self {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_unstable();
        Self(names.into())
    }

    pub(crate) fn find(&self, name: &str) -> Option<&UpstreamName> {
        let found = self.0.binary_search_by(|other| other.as_str().cmp(name));
        found.ok().map(|index| &self.0[index])
    }
}

/// What a plugin decided.
#[derive(Debug)]
pub enum Action {
    /// Go on with the next plugin.
    Next,
    /// Answer with this.
    Respond(LocalResponse),
    /// Hold the message and call the body phase of the same plugin, which is there.
    NeedBody(BodyRequest),
    /// End the connection or stream without an answer.
    Abort,
}

/// A response that a plugin made. Its fields are end-to-end and its status is 200 to 599.
#[derive(Debug)]
pub struct LocalResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// How a plugin wants a body held.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BodyRequest {
    /// At most the plugin's limit.
    pub limit: usize,
    pub on_overflow: Overflow,
}

/// What becomes of a body that is longer than its plugin wants to hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Overflow {
    /// 413 for a request, 502 for a response.
    Reject,
    /// The plugin sees the beginning, the rest passes untouched.
    Truncate,
}

/// A body that is held for a plugin.
#[derive(Clone, Debug, Default)]
pub struct HeldBody {
    pub bytes: Bytes,
    /// There is more, which the plugin does not see.
    pub is_truncated: bool,
    /// The plugin put `bytes` in the place of what was there.
    pub is_replaced: bool,
}

/// What a plugin decided on one piece of a body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ChunkAction {
    Pass,
    /// Empty: the piece is dropped.
    Replace(Bytes),
    /// End the message here, so that nobody takes it for the whole.
    Abort,
}

/// How an exchange ended.
#[derive(Clone, Debug)]
pub struct Summary {
    pub status: Option<StatusCode>,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub duration: Duration,
    pub upstream: Option<UpstreamName>,
    /// "ok", or the reason of the access log.
    pub outcome: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vars_are_bounded_in_number_bytes_and_names() {
        let mut exchange = Exchange::default();
        let set = |exchange: &mut Exchange, name: &str, value: String| {
            exchange.set_var(name.into(), value)
        };
        assert_eq!(set(&mut exchange, "", "v".into()), Err(VarError::Name));
        assert_eq!(set(&mut exchange, "a\nb", "v".into()), Err(VarError::Name));
        let large = "v".repeat(MAX_VAR_BYTES);
        assert_eq!(set(&mut exchange, "a", large), Err(VarError::Size));
        for n in 0..MAX_VARS {
            assert_eq!(set(&mut exchange, &format!("v{n}"), "1".into()), Ok(()));
        }
        assert_eq!(set(&mut exchange, "more", "1".into()), Err(VarError::Size));
        assert_eq!(set(&mut exchange, "v0", "2".into()), Ok(()));
        assert_eq!(exchange.var("v0"), Some("2"));
        assert_eq!(exchange.vars().count(), MAX_VARS);
    }

    #[test]
    fn each_plugin_has_its_own_state() {
        let [a, b] = ["a", "b"].map(|name| PolicyName::parse(name).unwrap());
        let mut exchange = Exchange::default();
        assert!(exchange.set_state(&a, b"one".to_vec()));
        assert!(exchange.set_state(&a, b"two".to_vec()));
        assert!(!exchange.set_state(&b, vec![0; MAX_STATE_BYTES + 1]));
        assert_eq!(exchange.state(&a), b"two");
        assert_eq!(exchange.state(&b), b"");
    }

    #[test]
    fn upstreams_are_found_by_name() {
        let names = ["c", "a", "b"].map(|name| UpstreamName::parse(name).unwrap());
        let upstreams = Upstreams::new(names);
        assert_eq!(upstreams.find("b").map(UpstreamName::as_str), Some("b"));
        assert_eq!(upstreams.find("d"), None);
    }
}
