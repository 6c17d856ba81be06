//! A look at JSON that never fails whole: each value knows where it stands, and what is not as it
//! should be becomes a [`Finding`] at that place.
//!
//! Places are written out only when something is wrong with them; reading a sound object allocates
//! nothing for them.

use std::fmt;
use std::sync::Arc;

use postern_core::config::problem::Severity;
use serde_json::Map;
use serde_json::Value;

use crate::object::Reason;

/// Longest part of a value that a message quotes, in characters.
const MAX_QUOTED: usize = 80;
/// Findings that are kept of one object: an object of a million errors is not worth a million
/// messages.
const MAX_FINDINGS: usize = 50;
/// Longest list in an object. The API server takes 1.5 MiB an object, in which shorter ones fit.
pub(crate) const MAX_ITEMS: usize = 20_000;

/// One thing that is wrong in an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Finding {
    pub(crate) field: String,
    pub(crate) severity: Severity,
    pub(crate) reason: Reason,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

/// What was found in one object.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    has_errors: bool,
}

impl Findings {
    pub(crate) fn add(&mut self, finding: Finding) {
        self.has_errors |=
            finding.severity == Severity::Error && finding.reason == Reason::Malformed;
        if self.list.len() < MAX_FINDINGS {
            self.list.push(finding);
        }
    }

    /// Whether the object cannot be taken as it is.
    pub(crate) fn is_malformed(&self) -> bool {
        self.has_errors
    }

    pub(crate) fn into_list(self) -> Vec<Finding> {
        self.list
    }
}

/// A value and where it stands.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    value: &'a Value,
    place: Place<'a>,
}

#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Key(&'a Self, &'a str),
    Index(&'a Self, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(&one_line(key)),
            // As kubectl writes annotations and labels.
            Self::Key(holder, key) if key.contains(['.', '/']) => {
                write!(f, "{holder}[{}]", one_line(key))
            }
            Self::Key(holder, key) => write!(f, "{holder}.{}", one_line(key)),
            Self::Index(holder, index) => write!(f, "{holder}[{index}]"),
        }
    }
}

static NULL: Value = Value::Null;

impl<'a> At<'a> {
    pub(crate) fn root(value: &'a Value) -> Self {
        Self {
            value,
            place: Place::Root,
        }
    }

    pub(crate) fn value(&self) -> &'a Value {
        self.value
    }

    /// Where it stands, as in `spec.rules[0].host`.
    pub(crate) fn field(&self) -> String {
        self.place.to_string()
    }

    pub(crate) fn is_absent(&self) -> bool {
        self.value.is_null()
    }

    /// What a key holds; absent if there is none, or if this is no object.
    pub(crate) fn key(&'a self, key: &'a str) -> Self {
        Self {
            value: self.value.get(key).unwrap_or(&NULL),
            place: Place::Key(&self.place, key),
        }
    }

    fn item(&'a self, index: usize, value: &'a Value) -> Self {
        Self {
            value,
            place: Place::Index(&self.place, index),
        }
    }

    /// The items of a list; none if it is absent.
    pub(crate) fn items(
        &'a self,
        findings: &mut Findings,
    ) -> impl Iterator<Item = At<'a>> + use<'a> {
        let items: &[Value] = match self.value {
            Value::Null => &[],
            Value::Array(items) if items.len() > MAX_ITEMS => {
                self.malformed(findings, format!("it has more than {MAX_ITEMS} items"));
                &[]
            }
            Value::Array(items) => items,
            _ => {
                self.wrong(findings, "a list");
                &[]
            }
        };
        let items = items.iter().enumerate();
        items.map(|(index, value)| self.item(index, value))
    }

    /// An object; `None` if it is absent.
    pub(crate) fn object(&self, findings: &mut Findings) -> Option<&'a Map<String, Value>> {
        match self.value {
            Value::Null => None,
            Value::Object(object) => Some(object),
            _ => {
                self.wrong(findings, "an object");
                None
            }
        }
    }

    /// An object that has to be there.
    pub(crate) fn required(&self, findings: &mut Findings) -> Option<&'a Map<String, Value>> {
        if self.is_absent() {
            self.malformed(findings, "it is missing".to_owned());
            return None;
        }
        self.object(findings)
    }

    /// The pairs of a map of texts.
    pub(crate) fn pairs(&'a self, findings: &mut Findings) -> Vec<(&'a str, &'a str)> {
        let mut pairs = Vec::new();
        for (key, value) in self.object(findings).into_iter().flatten() {
            let at = Self {
                value,
                place: Place::Key(&self.place, key),
            };
            if let Some(text) = at.text(findings) {
                pairs.push((key.as_str(), text));
            }
        }
        pairs
    }

    pub(crate) fn text(&self, findings: &mut Findings) -> Option<&'a str> {
        match self.value {
            Value::Null => None,
            Value::String(text) => Some(text),
            _ => {
                self.wrong(findings, "a text");
                None
            }
        }
    }

    /// A text that has to be there, and not empty.
    pub(crate) fn required_text(&self, findings: &mut Findings) -> Option<&'a str> {
        if self.is_absent() {
            self.malformed(findings, "it is missing".to_owned());
            return None;
        }
        let text = self.text(findings)?;
        if text.is_empty() {
            self.malformed(findings, "it is empty".to_owned());
            return None;
        }
        Some(text)
    }

    pub(crate) fn arc(&self, findings: &mut Findings) -> Option<Arc<str>> {
        self.text(findings).map(Arc::from)
    }

    pub(crate) fn flag(&self, findings: &mut Findings) -> Option<bool> {
        match self.value {
            Value::Null => None,
            Value::Bool(flag) => Some(*flag),
            _ => {
                self.wrong(findings, "true or false");
                None
            }
        }
    }

    /// A port number, 1 to 65535.
    pub(crate) fn port(&self, findings: &mut Findings) -> Option<u16> {
        if self.is_absent() {
            return None;
        }
        let port = self
            .value
            .as_u64()
            .and_then(|port| u16::try_from(port).ok());
        if let Some(port) = port.filter(|port| *port > 0) {
            return Some(port);
        }
        let shown = quoted(self.value);
        self.malformed(
            findings,
            format!("a port is a number from 1 to 65535, not {shown}"),
        );
        None
    }

    pub(crate) fn malformed(&self, findings: &mut Findings, message: String) {
        self.find(findings, Severity::Error, Reason::Malformed, message, None);
    }

    pub(crate) fn malformed_with_help(
        &self,
        findings: &mut Findings,
        message: String,
        help: String,
    ) {
        let help = Some(help);
        self.find(findings, Severity::Error, Reason::Malformed, message, help);
    }

    pub(crate) fn find(
        &self,
        findings: &mut Findings,
        severity: Severity,
        reason: Reason,
        message: String,
        help: Option<String>,
    ) {
        findings.add(Finding {
            field: self.field(),
            severity,
            reason,
            message: one_line(&message).into_owned(),
            help,
        });
    }

    fn wrong(&self, findings: &mut Findings, expected: &str) {
        let shown = quoted(self.value);
        self.malformed(findings, format!("it has to be {expected}, not {shown}"));
    }
}

/// A value as a message shows it.
pub(crate) fn quoted(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::Null => "nothing".to_owned(),
        Value::String(text) => quote(text),
        Value::Bool(_) | Value::Number(_) => shorten(&value.to_string()),
    }
}

/// A text as a message shows it.
pub(crate) fn quote(text: &str) -> String {
    format!("'{}'", shorten(text))
}

fn shorten(text: &str) -> String {
    let shown: String = text.chars().take(MAX_QUOTED).collect();
    let rest = if shown.len() < text.len() { "..." } else { "" };
    format!("{}{rest}", one_line(&shown))
}

/// What is quoted from an object must not move a cursor or forge a line of a log.
fn one_line(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let escaped = text.chars().map(|c| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    });
    escaped.collect::<String>().into()
}
