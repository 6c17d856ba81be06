//! Precedence between rules, as field order.

use crate::config::route::MatchSpec;
use crate::config::route::PathMatch;

/// How narrowly a rule matches; the greatest wins.
///
/// The fields stand in the documented order of precedence, so the derived `Ord` is that
/// specification. Do not reorder them.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Specificity {
    path: PathRank,
    path_len: usize,
    has_method: bool,
    headers: usize,
    query: usize,
}

/// Ascending.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum PathRank {
    Prefix,
    Regex,
    Exact,
}

impl Specificity {
    pub(super) fn of(matches: &MatchSpec) -> Self {
        let (path, path_len) = match &matches.path {
            PathMatch::Exact(path) => (PathRank::Exact, path.len()),
            PathMatch::Prefix(path) => (PathRank::Prefix, path.len()),
            PathMatch::Regex(regex) => (PathRank::Regex, regex.as_str().len()),
        };
        Self {
            path,
            path_len,
            has_method: !matches.methods.is_empty(),
            headers: matches.headers.len(),
            query: matches.query.len(),
        }
    }
}
