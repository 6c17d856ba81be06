//! Rules: conditions on a message, and the edits that follow when all of them hold.
//!
//! Rules are read once, by [`Rules::parse`], which also lists what they need to be given for each
//! message. Applying them then looks values up by position and copies nothing but a path that is
//! rewritten.

use std::borrow::Cow;
use std::fmt;

mod parse;

/// The rules for both messages.
#[derive(Debug, Default)]
pub struct Rules {
    pub request: RuleList,
    pub response: RuleList,
}

/// The rules for one message, in the order in which they are applied.
#[derive(Debug, Default)]
pub struct RuleList {
    rules: Vec<Rule>,
    view: Vec<String>,
    /// Where the path is in the view, if a rule looks at it.
    path: Option<usize>,
}

#[derive(Debug)]
struct Rule {
    conditions: Vec<Condition>,
    actions: Vec<RuleAction>,
}

/// One condition; values are given by their position in the view.
#[derive(Debug)]
enum Condition {
    PathPrefix(String),
    Method { at: usize, method: String },
    Present { at: usize },
    Absent { at: usize },
    Value { at: usize, value: String },
}

#[derive(Debug)]
enum RuleAction {
    Set { name: String, value: String },
    Add { name: String, value: String },
    Remove { name: String },
    Rewrite { prefix: String, with: String },
    Deny { status: u16, body: String },
}

/// One thing to do to the message.
#[derive(Debug, Eq, PartialEq)]
pub enum Edit<'a> {
    Set {
        name: &'a str,
        value: &'a str,
    },
    Add {
        name: &'a str,
        value: &'a str,
    },
    Remove {
        name: &'a str,
    },
    /// The path, with the query, that the request is to have.
    Path {
        path: &'a str,
    },
    /// The last edit: the message goes no further.
    Deny {
        status: u16,
        body: &'a str,
    },
}

/// What is wrong with a configuration, and where.
#[derive(Debug, Eq, PartialEq)]
pub struct Problem {
    /// As in `request[0].set.x-name`.
    pub place: String,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.place, self.message)
        }
    }
}

impl std::error::Error for Problem {}

impl RuleList {
    /// The names of the values that [`RuleList::apply`] has to be given, in this order.
    pub fn view(&self) -> &[String] {
        &self.view
    }

    /// Tells `edit` what to do to the message with these values.
    ///
    /// A condition on the path sees the path as the rules before it left it; the other conditions
    /// see the message as it came.
    pub fn apply(&self, view: &[Option<String>], mut edit: impl FnMut(Edit<'_>)) {
        let value = |at: usize| view.get(at).and_then(Option::as_deref);
        let mut path = self.path.and_then(value).map(Cow::Borrowed);
        for rule in &self.rules {
            let applies = rule.conditions.iter().all(|condition| match condition {
                Condition::PathPrefix(prefix) => path
                    .as_deref()
                    .is_some_and(|path| after_prefix(path, prefix).is_some()),
                Condition::Method { at, method } => value(*at) == Some(method),
                Condition::Present { at } => value(*at).is_some(),
                Condition::Absent { at } => value(*at).is_none(),
                Condition::Value { at, value: want } => value(*at) == Some(want),
            });
            if !applies {
                continue;
            }
            for action in &rule.actions {
                match action {
                    RuleAction::Set { name, value } => edit(Edit::Set { name, value }),
                    RuleAction::Add { name, value } => edit(Edit::Add { name, value }),
                    RuleAction::Remove { name } => edit(Edit::Remove { name }),
                    RuleAction::Rewrite { prefix, with } => {
                        if let Some(new) = path.as_deref().and_then(|p| rewritten(p, prefix, with))
                        {
                            edit(Edit::Path { path: &new });
                            path = Some(Cow::Owned(new));
                        }
                    }
                    RuleAction::Deny { status, body } => {
                        return edit(Edit::Deny {
                            status: *status,
                            body,
                        });
                    }
                }
            }
        }
    }
}

/// What follows a prefix that ends where a segment of the path does, the query included.
fn after_prefix<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(prefix)?;
    let is_boundary = prefix.ends_with('/') || rest.is_empty() || rest.starts_with(['/', '?']);
    is_boundary.then_some(rest)
}

fn rewritten(path: &str, prefix: &str, with: &str) -> Option<String> {
    let rest = after_prefix(path, prefix)?;
    let with = with.strip_suffix('/').unwrap_or(with);
    let ends_there = rest.is_empty() || rest.starts_with('?');
    let has_slash = rest.starts_with('/') || (ends_there && !with.is_empty());
    let slash = if has_slash { "" } else { "/" };
    Some([with, slash, rest].concat())
}

#[cfg(test)]
mod tests;
