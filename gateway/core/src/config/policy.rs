//! Policies: one variant each, whatever source declared it.

use http::HeaderName;
use http::HeaderValue;

use super::plugin::PluginSpec;

/// One step on request and response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PolicySpec {
    Headers(HeadersSpec),
    Plugin(PluginSpec),
}

/// Field edits in both directions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HeadersSpec {
    pub request: HeaderEdits,
    pub response: HeaderEdits,
}

/// Applied in this order: remove, set, add.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HeaderEdits {
    pub remove: Vec<HeaderName>,
    pub set: Vec<(HeaderName, HeaderValue)>,
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderEdits {
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }

    pub fn apply(&self, headers: &mut http::HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
    }
}
