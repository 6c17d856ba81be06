//! JSON as a TOML document of which each line knows which field it came from.

use std::fmt::Write as _;

use serde_json::Map;
use serde_json::Value;

use postern_core::config::problem::Severity;

use crate::object::Reason;
use crate::read::Finding;
use crate::read::Findings;

/// How deep a value may be nested.
const MAX_DEPTH: usize = 48;

#[derive(Default)]
pub(super) struct Document {
    text: String,
    /// By line.
    fields: Vec<String>,
}

impl Document {
    pub(super) fn line(&mut self, text: &str, field: &str) {
        for line in text.lines() {
            self.text.push_str(line);
            self.text.push('\n');
            self.fields.push(field.to_owned());
        }
    }

    /// An upstream that only has to be there.
    pub(super) fn stub(&mut self, upstream: &str) {
        let heading = format!("[upstreams.{}]", quoted(upstream));
        // Named twice, it is there already.
        if !self.text.contains(&heading) {
            self.line(&heading, "spec");
            self.line("endpoints = [\"192.0.2.1:1\"]", "spec");
        }
    }

    pub(super) fn table(
        &mut self,
        section: &str,
        name: &str,
        table: &Map<String, Value>,
        findings: &mut Findings,
    ) {
        self.line(&format!("[{section}.{}]", quoted(name)), "spec");
        self.pairs("", "spec", table, findings, 0);
    }

    /// One line a leaf, with dotted keys.
    fn pairs(
        &mut self,
        prefix: &str,
        field: &str,
        table: &Map<String, Value>,
        findings: &mut Findings,
        depth: usize,
    ) {
        for (key, value) in table {
            let field = format!("{field}.{key}");
            let key = format!("{prefix}{}", quoted(key));
            match value {
                // As absent: that is what an object without a value has.
                Value::Null => {}
                Value::Object(inner) if !inner.is_empty() && depth < MAX_DEPTH => {
                    self.pairs(&format!("{key}."), &field, inner, findings, depth + 1);
                }
                value => {
                    let mut text = format!("{key} = ");
                    match write_value(&mut text, value, depth) {
                        Ok(()) => self.line(&text, &field),
                        Err(message) => findings.add(Finding {
                            field,
                            severity: Severity::Error,
                            reason: Reason::Malformed,
                            message: message.to_owned(),
                            help: None,
                        }),
                    }
                }
            }
        }
    }

    /// The text, and the field of each of its lines.
    pub(super) fn finish(self) -> (String, Vec<String>) {
        (self.text, self.fields)
    }
}

fn write_value(text: &mut String, value: &Value, depth: usize) -> Result<(), &'static str> {
    if depth > MAX_DEPTH {
        return Err("it is nested too deeply");
    }
    match value {
        Value::Null => return Err("a list holds null, which is no value here"),
        Value::Bool(flag) => {
            let _ = write!(text, "{flag}");
        }
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => {
                let _ = write!(text, "{number}");
            }
            (None, Some(number)) if !number.is_finite() || number.fract() == 0.0 => {
                return Err("the number is too large");
            }
            // With a point or an exponent, as TOML wants a float to have.
            (None, Some(number)) => {
                let _ = write!(text, "{number:?}");
            }
            (None, None) => return Err("the number is too large"),
        },
        Value::String(string) => text.push_str(&quoted(string)),
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write_value(text, item, depth + 1)?;
                text.push(',');
            }
            text.push(']');
        }
        Value::Object(table) => {
            text.push('{');
            let mut is_first = true;
            for (key, value) in table {
                if value.is_null() {
                    continue;
                }
                if !is_first {
                    text.push(',');
                }
                is_first = false;
                text.push_str(&quoted(key));
                text.push('=');
                write_value(text, value, depth + 1)?;
            }
            text.push('}');
        }
    }
    Ok(())
}

/// A basic string of TOML, on one line whatever it holds.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
