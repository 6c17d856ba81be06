//! Text to values.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::ops::Range;

use granit_parser::Event;
use granit_parser::Parser;
use granit_parser::ScalarStyle;
use granit_parser::Span;
use serde_json::Map;
use serde_json::Number;
use serde_json::Value;

use super::Manifest;

/// Largest file, in bytes.
const MAX_BYTES: usize = 64 << 20;
/// Values of one file, those that anchors repeat counted each time.
const MAX_VALUES: usize = 5_000_000;
/// How deep values may be nested.
const MAX_DEPTH: usize = 100;

/// What is wrong with a text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ManifestError {
    /// Bytes of the text.
    pub place: Range<usize>,
    /// What is wrong: lower-case, no full stop.
    pub message: String,
}

/// The objects of a text, and what is wrong with it. What stands behind an error is not read.
pub fn load(text: &str) -> (Vec<Manifest>, Vec<ManifestError>) {
    let mut loader = Loader {
        events: Parser::new_from_str(text),
        text,
        anchors: HashMap::new(),
        places: BTreeMap::new(),
        values: 0,
        errors: Vec::new(),
    };
    let mut manifests = Vec::new();
    if text.len() > MAX_BYTES {
        let message = format!("the file is larger than {} MiB", MAX_BYTES >> 20);
        return (
            manifests,
            vec![ManifestError {
                place: 0..0,
                message,
            }],
        );
    }
    while let Some(document) = loader.document() {
        // An empty document, as between two `---`.
        if !document.value.is_null() {
            manifests.extend(document.objects());
        }
    }
    (manifests, loader.errors)
}

struct Loader<'t> {
    events: Parser<'t, granit_parser::StrInput<'t>>,
    text: &'t str,
    /// Values that can be repeated, and how many each is.
    anchors: HashMap<usize, (Value, usize)>,
    places: BTreeMap<String, Range<usize>>,
    values: usize,
    errors: Vec<ManifestError>,
}

impl<'t> Loader<'t> {
    /// `None` at the end, or after what cannot be read on from.
    fn document(&mut self) -> Option<Manifest> {
        loop {
            let (event, _) = self.next()?;
            match event {
                Event::DocumentStart(..) => break,
                Event::StreamEnd => return None,
                _ => {}
            }
        }
        self.places.clear();
        self.anchors.clear();
        let (event, span) = self.next()?;
        self.place(String::new(), &span);
        let value = self.value(event, &span, "", 0)?;
        Some(Manifest {
            value,
            places: std::mem::take(&mut self.places),
        })
    }

    fn next(&mut self) -> Option<(Event<'t>, Span)> {
        loop {
            match self.events.next()? {
                Ok((Event::Comment(..), _)) => {}
                Ok(next) => return Some(next),
                Err(error) => {
                    let index = error.marker().byte_offset().unwrap_or_default();
                    let message = format!("not YAML: {}", error.info());
                    self.fail(index..index, message);
                    return None;
                }
            }
        }
    }

    /// `None` after what cannot be read on from.
    fn value(&mut self, event: Event<'t>, span: &Span, at: &str, depth: usize) -> Option<Value> {
        self.values += 1;
        if self.values > MAX_VALUES {
            self.fail(
                range(span),
                format!("the file has more than {MAX_VALUES} values"),
            );
            return None;
        }
        if depth > MAX_DEPTH {
            self.fail(range(span), "it is nested too deeply".to_owned());
            return None;
        }
        let before = self.values;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = style != ScalarStyle::Plain
                    || tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
                let value = match is_text {
                    true => Value::String(text.into_owned()),
                    false => plain(&text),
                };
                (value, anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.next()?;
                    if event == Event::SequenceEnd {
                        break;
                    }
                    let at = format!("{at}[{}]", items.len());
                    self.place(at.clone(), &span);
                    items.push(self.value(event, &span, &at, depth + 1)?);
                }
                (Value::Array(items), anchor)
            }
            Event::MappingStart(_, anchor, _) => (Value::Object(self.mapping(at, depth)?), anchor),
            Event::Alias(id) => {
                let Some((value, count)) = self.anchors.get(&id) else {
                    self.fail(range(span), "it repeats what holds it".to_owned());
                    return None;
                };
                self.values += count;
                if self.values > MAX_VALUES {
                    let message = format!("the file has more than {MAX_VALUES} values");
                    self.fail(range(span), message);
                    return None;
                }
                return Some(value.clone());
            }
            _ => return Some(Value::Null),
        };
        if anchor > 0 {
            let count = self.values - before;
            self.anchors.insert(anchor, (value.clone(), count));
        }
        Some(value)
    }

    fn mapping(&mut self, at: &str, depth: usize) -> Option<Map<String, Value>> {
        let mut table = Map::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => break,
                Event::Scalar(key, ..) => key.into_owned(),
                _ => {
                    self.fail(range(&span), "a key has to be a text".to_owned());
                    return None;
                }
            };
            let field = match (at, key.contains(['.', '/'])) {
                ("", _) => key.clone(),
                (at, true) => format!("{at}[{key}]"),
                (at, false) => format!("{at}.{key}"),
            };
            self.place(field.clone(), &span);
            let (event, value_span) = self.next()?;
            let value = self.value(event, &value_span, &field, depth + 1)?;
            if key == "<<" {
                merged.push(value);
            } else if table.insert(key, value).is_some() {
                self.fail(range(&span), format!("the key {field} is there twice"));
            }
        }
        for value in merged {
            let tables = match value {
                Value::Array(tables) => tables,
                table => vec![table],
            };
            for (key, value) in tables.into_iter().filter_map(into_object).flatten() {
                table.entry(key).or_insert(value);
            }
        }
        Some(table)
    }

    fn place(&mut self, field: String, span: &Span) {
        let mut range = range(span);
        // Of a mapping or a list, its first line is enough.
        let rest = self.text.get(range.start..range.end).unwrap_or_default();
        range.end = range.start + rest.lines().next().map_or(0, str::len);
        self.places.insert(field, range);
    }

    fn fail(&mut self, place: Range<usize>, message: String) {
        self.errors.push(ManifestError { place, message });
    }
}

fn into_object(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(table) => Some(table),
        _ => None,
    }
}

fn range(span: &Span) -> Range<usize> {
    span.byte_range().unwrap_or(0..0)
}

/// What a scalar without quotes is.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    let first = text.bytes().next().unwrap_or_default();
    if !first.is_ascii_digit() && !matches!(first, b'-' | b'+' | b'.') {
        return Value::String(text.to_owned());
    }
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    if let Ok(number) = text.parse::<u64>() {
        return number.into();
    }
    let is_float = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E'));
    let float = text.parse::<f64>().ok().filter(|_| is_float);
    match float.and_then(Number::from_f64) {
        Some(number) => Value::Number(number),
        None => Value::String(text.to_owned()),
    }
}
