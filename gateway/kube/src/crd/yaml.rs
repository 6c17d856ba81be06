//! JSON as YAML for people: block style, texts in quotes where they could be anything else.

use serde_json::Value;

pub(super) fn render(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, value, 0);
    text
}

fn write(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                text.push_str(&" ".repeat(indent));
                text.push_str(&scalar(key));
                text.push(':');
                below(text, value, indent + 2);
            }
        }
        Value::Array(items) => {
            for item in items {
                text.push_str(&" ".repeat(indent));
                text.push('-');
                match item {
                    Value::Object(table) if !table.is_empty() => {
                        // The first key stands behind the dash.
                        let mut block = String::new();
                        write(&mut block, item, indent + 2);
                        text.push(' ');
                        text.push_str(block.trim_start());
                    }
                    item => below(text, item, indent + 2),
                }
            }
        }
        value => {
            text.push_str(&leaf(value));
            text.push('\n');
        }
    }
}

fn below(text: &mut String, value: &Value, indent: usize) {
    let is_block = match value {
        Value::Object(table) => !table.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if is_block {
        text.push('\n');
        write(text, value, indent);
    } else {
        text.push(' ');
        text.push_str(&leaf(value));
        text.push('\n');
    }
}

fn leaf(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        // JSON is YAML.
        value => value.to_string(),
    }
}

fn scalar(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./ ".contains(c))
        && !text.ends_with(' ')
        && !matches!(
            text.to_ascii_lowercase().as_str(),
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    match is_plain {
        true => text.to_owned(),
        // JSON's quotes are YAML's.
        false => Value::from(text).to_string(),
    }
}
