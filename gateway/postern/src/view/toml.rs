//! Writes the view of a configuration as TOML.
//!
//! Sections and the items in them are tables with headings; everything below stands inline, one
//! rule a line.

use serde_json::Map;
use serde_json::Value;

/// The order in which a person reads a configuration.
const SECTIONS: [&str; 14] = [
    "runtime",
    "access-log",
    "admin",
    "limits",
    "kubernetes",
    "listeners",
    "dns",
    "dns-solvers",
    "issuers",
    "certificates",
    "upstreams",
    "plugins",
    "policies",
    "routes",
];
/// Sections whose keys are settings; the keys of the others are names.
const SETTINGS: [&str; 6] = [
    "runtime",
    "access-log",
    "admin",
    "limits",
    "kubernetes",
    "dns",
];

pub fn render(config: &Value) -> String {
    let mut text = String::new();
    for section in SECTIONS {
        match &config[section] {
            Value::Object(table) if SETTINGS.contains(&section) && table.is_empty() => {}
            Value::Object(table) if SETTINGS.contains(&section) => {
                write_table(&mut text, &format!("[{section}]"), table);
            }
            Value::Object(items) => {
                for (name, item) in items {
                    if let Value::Object(table) = item {
                        write_table(&mut text, &format!("[{section}.{}]", key(name)), table);
                    }
                }
            }
            Value::Array(items) => {
                for item in items {
                    if let Value::Object(table) = item {
                        write_table(&mut text, &format!("[[{section}]]"), table);
                    }
                }
            }
            _ => {}
        }
    }
    text
}

fn write_table(text: &mut String, heading: &str, table: &Map<String, Value>) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(heading);
    text.push('\n');
    for (name, value) in table {
        if value.is_null() {
            continue;
        }
        text.push_str(&key(name));
        text.push_str(" = ");
        write_value(text, value, true);
        text.push('\n');
    }
}

fn write_value(text: &mut String, value: &Value, is_outermost: bool) {
    match value {
        // TOML has no null; plugins get none from a file, except for what JSON cannot say (nan).
        Value::Null => text.push_str("nan"),
        Value::Bool(_) | Value::Number(_) => text.push_str(&value.to_string()),
        Value::String(string) => text.push_str(&quoted(string)),
        Value::Array(items) => {
            let has_lines = is_outermost && items.iter().any(Value::is_object);
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                match (has_lines, index) {
                    (true, _) => text.push_str("\n  "),
                    (false, 0) => {}
                    (false, _) => text.push_str(", "),
                }
                write_value(text, item, false);
                if has_lines {
                    text.push(',');
                }
            }
            text.push_str(if has_lines { "\n]" } else { "]" });
        }
        Value::Object(table) => {
            let pairs: Vec<_> = table.iter().filter(|(_, value)| !value.is_null()).collect();
            if pairs.is_empty() {
                text.push_str("{}");
                return;
            }
            for (index, (name, value)) in pairs.into_iter().enumerate() {
                text.push_str(if index == 0 { "{ " } else { ", " });
                text.push_str(&key(name));
                text.push_str(" = ");
                write_value(text, value, false);
            }
            text.push_str(" }");
        }
    }
}

fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(is_bare) {
        name.to_owned()
    } else {
        quoted(name)
    }
}

/// JSON and TOML escape alike, but for DEL, which TOML does not allow as it is.
fn quoted(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007F")
}
