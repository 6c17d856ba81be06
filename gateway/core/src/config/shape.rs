//! Whether a parsed file has the shape that the schema gives, and every place where it has not.
//!
//! A deserializer stops at its first error; an operator wants all of them in one round. So the
//! tree is held against the generated JSON Schema first. An unknown key is reported and taken out,
//! so that the rest of its table is still checked; what has the wrong shape is reported, and the
//! part that holds it is not read any further.

use serde_json::Value;
use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

use super::problem::Lines;
use super::problem::Problem;
use super::problem::suggest;

/// How deep a value may be nested; nothing that is configured needs half of it.
const MAX_DEPTH: usize = 64;

pub(super) struct Shape<'s> {
    root: &'s Value,
    lines: &'s Lines<'s>,
    problems: &'s mut Vec<Problem>,
}

impl<'s> Shape<'s> {
    pub(super) fn new(
        root: &'s Value,
        lines: &'s Lines<'s>,
        problems: &'s mut Vec<Problem>,
    ) -> Self {
        Self {
            root,
            lines,
            problems,
        }
    }

    /// Removes and reports the unknown keys of the file itself.
    pub(super) fn check_root(&mut self, table: &mut DeTable<'_>) {
        self.remove_unknown(table, self.root, "");
    }

    /// Whether the value can be read; `at` is its dotted name, for messages.
    pub(super) fn check(
        &mut self,
        value: &mut Spanned<DeValue<'_>>,
        schema: &'s Value,
        at: &str,
    ) -> bool {
        self.check_at(value, schema, at, 0)
    }

    fn check_at(
        &mut self,
        value: &mut Spanned<DeValue<'_>>,
        schema: &'s Value,
        at: &str,
        depth: usize,
    ) -> bool {
        if depth > MAX_DEPTH {
            return self.report(value, format!("{at} is nested too deeply"));
        }
        let schema = self.resolve(schema);
        if let Some(options) = schema.get("anyOf").and_then(Value::as_array) {
            let mut options = options.iter().filter(|option| !is_null(option));
            // An optional value is "anyOf [it, null]"; a choice of types is told by type alone.
            let first = options.next();
            if let (Some(only), None) = (first, options.next()) {
                return self.check_at(value, only, at, depth + 1);
            }
            let is_table = |option: &&Value| option.get("properties").is_some();
            if let (true, Some(table)) = (value.get_ref().is_table(), options_of(schema, is_table))
            {
                return self.check_at(value, table, at, depth + 1);
            }
        }
        if let Some(kinds) = kinds(schema) {
            return self.check_kind(value, &kinds, at, depth);
        }
        let words = words(schema);
        if !words.is_empty() {
            return self.check_word(value, &words, at);
        }
        if !has_type(value.get_ref(), schema) {
            let expected = expected(schema);
            let found = with_article(value.get_ref().type_str());
            return self.report(value, format!("{at} must be {expected}, not {found}"));
        }
        match value.get_mut() {
            DeValue::Table(table) => {
                let span_problem = self.check_required(table, schema, at);
                let is_sound = self.check_table(table, schema, at, depth);
                if let Some(missing) = span_problem {
                    return self.report(value, missing);
                }
                is_sound
            }
            DeValue::Array(items) => {
                let Some(item_schema) = schema.get("items") else {
                    return true;
                };
                let mut is_sound = true;
                for (index, item) in items.iter_mut().enumerate() {
                    let at = format!("{at}[{index}]");
                    is_sound &= self.check_at(item, item_schema, &at, depth + 1);
                }
                is_sound
            }
            _ => true,
        }
    }

    fn check_table(
        &mut self,
        table: &mut DeTable<'_>,
        schema: &'s Value,
        at: &str,
        depth: usize,
    ) -> bool {
        self.remove_unknown(table, schema, at);
        let properties = schema.get("properties");
        let others = schema.get("additionalProperties");
        let mut is_sound = true;
        for (key, value) in table.iter_mut() {
            let key = key.get_ref();
            let value_schema = properties.and_then(|p| p.get(key.as_ref())).or(others);
            if let Some(value_schema) = value_schema {
                let at = join(at, key);
                is_sound &= self.check_at(value, value_schema, &at, depth + 1);
            }
        }
        is_sound
    }

    fn check_required(&self, table: &DeTable<'_>, schema: &Value, at: &str) -> Option<String> {
        let required = schema.get("required")?.as_array()?;
        let missing: Vec<&str> = required
            .iter()
            .filter_map(Value::as_str)
            .filter(|key| !table.contains_key(*key))
            .collect();
        match missing.as_slice() {
            [] => None,
            [key] => Some(format!("{at} lacks the key '{key}'")),
            keys => Some(format!("{at} lacks the keys '{}'", keys.join("', '"))),
        }
    }

    fn remove_unknown(&mut self, table: &mut DeTable<'_>, schema: &Value, at: &str) {
        // Without this, the keys are names of the operator's choice.
        if schema.get("additionalProperties") != Some(&Value::Bool(false)) {
            return;
        }
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            return;
        };
        let unknown: Vec<_> = table
            .keys()
            .filter(|key| !properties.contains_key(key.get_ref().as_ref()))
            .cloned()
            .collect();
        for key in unknown {
            let name = key.get_ref();
            let place = if at.is_empty() { "the file" } else { at };
            let mut problem = Problem::error(
                self.lines.origin(key.span()),
                format!("unknown key '{name}' in {place}"),
            );
            problem.help = Some(match suggest(name, properties.keys().map(String::as_str)) {
                Some(near) => format!("did you mean '{near}'?"),
                None => {
                    let keys: Vec<_> = properties.keys().map(String::as_str).collect();
                    format!("the keys here are {}", keys.join(", "))
                }
            });
            self.problems.push(problem);
            table.remove(&key);
        }
    }

    /// A table whose `kind` says what else it may hold.
    fn check_kind(
        &mut self,
        value: &mut Spanned<DeValue<'_>>,
        kinds: &[(&'s str, &'s Value)],
        at: &str,
        depth: usize,
    ) -> bool {
        let words: Vec<&str> = kinds.iter().map(|(kind, _)| *kind).collect();
        let DeValue::Table(table) = value.get_ref() else {
            let found = with_article(value.get_ref().type_str());
            return self.report(value, format!("{at} must be a table, not {found}"));
        };
        let Some(kind) = table.get(KIND) else {
            let problem = Problem::error(
                self.lines.origin(value.span()),
                format!("{at} lacks the key '{KIND}'"),
            );
            let help = format!("write one of {}", quoted(&words));
            self.problems.push(problem.with_help(help));
            return false;
        };
        if !self.check_word(kind, &words, &join(at, KIND)) {
            return false;
        }
        let word = kind.get_ref().as_str();
        let option = kinds.iter().find(|(kind, _)| Some(*kind) == word);
        // The word is one of theirs.
        option.is_none_or(|(_, schema)| self.check_at(value, schema, at, depth + 1))
    }

    fn check_word(&mut self, value: &Spanned<DeValue<'_>>, words: &[&str], at: &str) -> bool {
        let Some(word) = value.get_ref().as_str() else {
            let found = with_article(value.get_ref().type_str());
            let message = format!("{at} must be one of {}, not {found}", quoted(words));
            return self.report(value, message);
        };
        if words.contains(&word) {
            return true;
        }
        let problem = Problem::error(
            self.lines.origin(value.span()),
            format!("{at} cannot be '{word}'"),
        )
        .with_help(match suggest(word, words.iter().copied()) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("write one of {}", quoted(words)),
        });
        self.problems.push(problem);
        false
    }

    fn report(&mut self, value: &Spanned<DeValue<'_>>, message: String) -> bool {
        let origin = self.lines.origin(value.span());
        self.problems.push(Problem::error(origin, message));
        false
    }

    fn resolve(&self, schema: &'s Value) -> &'s Value {
        let Some(reference) = schema.get("$ref").and_then(Value::as_str) else {
            return schema;
        };
        reference
            .strip_prefix('#')
            .and_then(|pointer| self.root.pointer(pointer))
            .unwrap_or(schema)
    }
}

/// The key that tells variants of a table apart.
const KIND: &str = "kind";

/// Takes out the key that chose the variant.
pub(super) fn take_kind(value: &mut Spanned<DeValue<'_>>) -> Option<String> {
    let DeValue::Table(table) = value.get_mut() else {
        return None;
    };
    let kind = table.remove(KIND)?;
    kind.get_ref().as_str().map(str::to_owned)
}

/// The variants of a table that holds a `kind`.
fn kinds(schema: &Value) -> Option<Vec<(&str, &Value)>> {
    let options = schema.get("oneOf")?.as_array()?;
    options.first()?.pointer("/properties/kind/const")?;
    let kinds = options.iter().filter_map(|option| {
        let kind = option.pointer("/properties/kind/const")?.as_str()?;
        Some((kind, option))
    });
    Some(kinds.collect())
}

pub(super) fn join(at: &str, key: &str) -> String {
    if at.is_empty() {
        key.to_owned()
    } else {
        format!("{at}.{key}")
    }
}

fn options_of(schema: &Value, fits: impl Fn(&&Value) -> bool) -> Option<&Value> {
    schema.get("anyOf")?.as_array()?.iter().find(fits)
}

fn is_null(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_str) == Some("null")
}

/// The words of an enumeration, however the generator wrote it down.
fn words(schema: &Value) -> Vec<&str> {
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return words.iter().filter_map(Value::as_str).collect();
    }
    match schema.get("oneOf").and_then(Value::as_array) {
        Some(options) => options
            .iter()
            .filter_map(|option| option.get("const").and_then(Value::as_str))
            .collect(),
        None => Vec::new(),
    }
}

fn types(schema: &Value) -> Vec<&str> {
    let of = |schema: &'_ Value| -> Vec<String> {
        match schema.get("type") {
            Some(Value::String(name)) => vec![name.clone()],
            Some(Value::Array(names)) => names
                .iter()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
            _ => Vec::new(),
        }
    };
    let names = match schema.get("anyOf").and_then(Value::as_array) {
        Some(options) => options.iter().flat_map(of).collect(),
        None => of(schema),
    };
    let known = ["string", "integer", "number", "boolean", "array", "object"];
    known
        .into_iter()
        .filter(|known| names.iter().any(|name| name == known))
        .collect()
}

fn has_type(value: &DeValue<'_>, schema: &Value) -> bool {
    let types = types(schema);
    types.is_empty()
        || types.iter().any(|name| {
            matches!(
                (value, *name),
                (DeValue::String(_), "string")
                    | (DeValue::Integer(_), "integer" | "number")
                    | (DeValue::Float(_), "number")
                    | (DeValue::Boolean(_), "boolean")
                    | (DeValue::Array(_), "array")
                    | (DeValue::Table(_), "object")
            )
        })
}

fn expected(schema: &Value) -> String {
    let words: Vec<&str> = types(schema)
        .into_iter()
        .map(|name| match name {
            "string" => "a string",
            "integer" => "an integer",
            "number" => "a number",
            "boolean" => "true or false",
            "array" => "an array",
            _ => "a table",
        })
        .collect();
    words.join(" or ")
}

fn with_article(name: &str) -> String {
    if name.starts_with(['a', 'i']) {
        format!("an {name}")
    } else {
        format!("a {name}")
    }
}

fn quoted(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    quoted.join(", ")
}
