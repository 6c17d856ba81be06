//! Rewrite: changes paths and queries by patterns.
//!
//! The rules are tried in their order, and the first that fits is the only one that acts. There are
//! no regular expressions: a pattern looks at each byte of a path once, whatever a client sends.

use postern_plugin::Action;
use postern_plugin::EditError;
use postern_plugin::Fault;
use postern_plugin::Plugin;
use postern_plugin::Reply;
use postern_plugin::Request;
use postern_plugin::Setup;
use postern_plugin::config;
use postern_plugin::config::Section;

mod pattern;
mod query;

use pattern::Pattern;
use pattern::Template;
use query::QueryEdit;

/// The policy, configured.
#[derive(Debug)]
pub struct Rewrite {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    path: PathRule,
    query: QueryEdit,
}

#[derive(Debug)]
enum PathRule {
    /// The path stays.
    Any,
    /// Neither ends with `/`.
    Prefix {
        from: String,
        to: String,
    },
    Match {
        pattern: Pattern,
        to: Template,
    },
}

impl Plugin for Rewrite {
    fn configure(config: &str, setup: &mut Setup) -> Result<Self, String> {
        setup.request_view([":path"]);
        config::read(config, |config| {
            let rules = config.need("rules").list(|item| item.section(rule));
            if rules.as_ref().is_some_and(Vec::is_empty) {
                return config.wrong("rules: without one nothing is rewritten");
            }
            Some(Self { rules: rules? })
        })
    }

    fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
        let target = request.path();
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target.as_str(), None),
        };
        let Some(new) = self.rules.iter().find_map(|rule| rule.apply(path, query)) else {
            return Ok(Action::Next);
        };
        if new == target {
            return Ok(Action::Next);
        }
        match request.set_path(&new) {
            Ok(()) => Ok(Action::Next),
            // What a client sends makes it so, and is answered to the client.
            Err(EditError::TooLarge) => Ok(Reply::text(414, "the path is too long\n").into()),
            Err(EditError::Invalid) => Ok(Reply::text(400, "not a path\n").into()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Rule {
    /// The new path and query. None: the rule does not fit.
    fn apply(&self, path: &str, query: Option<&str>) -> Option<String> {
        let (mut new, own_query) = match &self.path {
            PathRule::Any => (path.to_owned(), None),
            PathRule::Prefix { from, to } => {
                let rest = path.strip_prefix(from.as_str())?;
                if !rest.is_empty() && !rest.starts_with('/') {
                    return None;
                }
                (format!("{to}{rest}"), None)
            }
            PathRule::Match { pattern, to } => to.fill(&pattern.captures(path)?),
        };
        if new.is_empty() {
            new.push('/');
        }
        let kept = self.query.apply(query);
        let parts = [own_query.as_deref(), kept.as_deref()]
            .into_iter()
            .flatten();
        let mut separator = '?';
        for part in parts.filter(|part| !part.is_empty()) {
            new.push(separator);
            new.push_str(part);
            separator = '&';
        }
        Some(new)
    }
}

fn rule(section: &Section<'_>) -> Option<Rule> {
    let prefix = section.get("prefix").path();
    let with = section.get("with");
    let with = match with.value().and_then(|value| value.as_str()) {
        Some("") => Some("/".to_owned()),
        _ => with.path(),
    };
    let pattern = section.get("match").parsed(Pattern::parse);
    let to = section.get("to").parsed(Template::parse);
    let query = section.get("query");
    let has_query = query.is_given();
    let query = match has_query {
        true => query.section(QueryEdit::read),
        false => Some(QueryEdit::default()),
    };
    let trimmed = |path: String| path.trim_end_matches('/').to_owned();
    let path = match (prefix, with, pattern, to) {
        (Some(from), Some(to), None, None) => PathRule::Prefix {
            from: trimmed(from),
            to: trimmed(to),
        },
        (None, None, Some(pattern), Some(to)) => {
            if let Some(name) = to.unknown(&pattern) {
                return section.wrong(&format!("to: `match` has no {{{name}}}"));
            }
            PathRule::Match { pattern, to }
        }
        (None, None, None, None) if has_query => PathRule::Any,
        _ => {
            return section
                .wrong("give `prefix` and `with`, or `match` and `to`, or `query` alone");
        }
    };
    Some(Rule {
        path,
        query: query?,
    })
}

postern_plugin::export!(Rewrite: request);

#[cfg(test)]
mod tests;
