//! Reads a plugin's configuration, and says everything that is wrong with it at once.
//!
//! ```
//! use postern_plugin::config;
//!
//! struct Banner {
//!     text: String,
//!     status: u16,
//! }
//!
//! fn configure(config: &str) -> Result<Banner, String> {
//!     config::read(config, |config| {
//!         let text = config.need("text").text();
//!         let status = config.get("status").number(200..=599).unwrap_or(200);
//!         Some(Banner { text: text?, status: status as u16 })
//!     })
//! }
//!
//! assert_eq!(configure(r#"{ "text": "hello" }"#).unwrap().status, 200);
//! assert_eq!(
//!     configure(r#"{ "status": 99, "txt": "hello" }"#).err().unwrap(),
//!     "text: is missing; status: must be a whole number from 200 to 599; \
//!      txt: is not known here; known are text, status",
//! );
//! ```
//!
//! A key that nobody asked for is refused: what is misspelt would otherwise have no effect. So ask
//! for every key before the first `?`.

use std::cell::RefCell;
use std::ops::RangeInclusive;

use crate::json::Value;
use crate::net::Network;

/// Problems that are told at once; a file with more has one cause.
const MAX_PROBLEMS: usize = 20;

/// Fields that the gateway writes, whatever a policy says.
const RESERVED: [&str; 10] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Reads `text`, the plugin's section as JSON, with `make`. The error has every problem that was
/// found, each with its place.
pub fn read<T>(text: &str, make: impl FnOnce(&Section<'_>) -> Option<T>) -> Result<T, String> {
    let value = Value::parse(text).map_err(|error| format!("not JSON: {error}"))?;
    let problems = Problems::default();
    let root = Item {
        value: Some(&value),
        place: String::new(),
        problems: &problems,
    };
    let made = root.section(make);
    let problems = problems.0.into_inner();
    match made {
        Some(made) if problems.is_empty() => Ok(made),
        _ if problems.is_empty() => Err("not a configuration".to_owned()),
        _ => Err(problems.join("; ")),
    }
}

#[derive(Debug, Default)]
struct Problems(RefCell<Vec<String>>);

impl Problems {
    fn add(&self, place: &str, message: &str) {
        let mut problems = self.0.borrow_mut();
        if problems.len() < MAX_PROBLEMS {
            problems.push(if place.is_empty() {
                message.to_owned()
            } else {
                format!("{place}: {message}")
            });
        }
    }
}

/// An object of the configuration, with keys that mean something.
#[derive(Debug)]
pub struct Section<'a> {
    members: &'a [(String, Value)],
    place: &'a str,
    problems: &'a Problems,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// What stands at a key, if anything.
    pub fn get(&self, key: &'static str) -> Item<'a> {
        self.known.borrow_mut().push(key);
        let found = self.members.iter().find(|(name, _)| name == key);
        Item {
            value: found.map(|(_, value)| value),
            place: join(self.place, key),
            problems: self.problems,
        }
    }

    /// As [`Section::get`]; it is a problem if there is nothing.
    pub fn need(&self, key: &'static str) -> Item<'a> {
        let item = self.get(key);
        if item.value.is_none() {
            self.problems.add(&item.place, "is missing");
        }
        item
    }

    /// Takes note of a problem that is about more than one key.
    pub fn wrong<T>(&self, message: &str) -> Option<T> {
        self.problems.add(self.place, message);
        None
    }

    fn refuse_unknown(&self) {
        let known = self.known.borrow();
        for (name, _) in self.members {
            if !known.contains(&name.as_str()) {
                let message = match known.as_slice() {
                    [] => "is not known here; there are no keys".to_owned(),
                    known => format!("is not known here; known are {}", known.join(", ")),
                };
                self.problems.add(&join(self.place, name), &message);
            }
        }
    }
}

/// What stands at a place of the configuration, or nothing.
///
/// A function that reads it answers none if there is nothing, and if it is not what it should be:
/// then the problem has been taken note of.
#[derive(Debug)]
pub struct Item<'a> {
    value: Option<&'a Value>,
    place: String,
    problems: &'a Problems,
}

impl<'a> Item<'a> {
    /// The value as it is, for a key that takes several kinds.
    pub fn value(&self) -> Option<&'a Value> {
        self.value
    }

    pub fn is_given(&self) -> bool {
        self.value.is_some()
    }

    /// Takes note of a problem here.
    pub fn wrong<T>(&self, message: &str) -> Option<T> {
        self.problems.add(&self.place, message);
        None
    }

    pub fn text(self) -> Option<String> {
        match self.value? {
            Value::String(text) => Some(text.clone()),
            _ => self.wrong("must be a text"),
        }
    }

    /// A text, of which `parse` makes a value; its error says what it must be.
    pub fn parsed<T>(self, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match self.value? {
            Value::String(text) => match parse(text) {
                Ok(parsed) => Some(parsed),
                Err(message) => self.wrong(&message),
            },
            _ => self.wrong("must be a text"),
        }
    }

    /// One of several texts, and what it means.
    pub fn one_of<T: Copy>(self, choices: &[(&str, T)]) -> Option<T> {
        let value = self.value?;
        let found = choices
            .iter()
            .find(|(name, _)| value.as_str() == Some(name));
        found.map(|(_, choice)| *choice).or_else(|| {
            let names: Vec<String> = choices
                .iter()
                .map(|(name, _)| format!("\"{name}\""))
                .collect();
            self.wrong(&format!("must be one of {}", names.join(", ")))
        })
    }

    pub fn flag(self) -> Option<bool> {
        match self.value? {
            Value::Bool(flag) => Some(*flag),
            _ => self.wrong("must be true or false"),
        }
    }

    pub fn number(self, range: RangeInclusive<u64>) -> Option<u64> {
        match self.value?.as_u64() {
            Some(number) if range.contains(&number) => Some(number),
            _ => self.wrong(&format!(
                "must be a whole number from {} to {}",
                range.start(),
                range.end()
            )),
        }
    }

    /// A text with a unit (ms, s, m, h or d), in milliseconds.
    pub fn duration_ms(self, range: RangeInclusive<u64>) -> Option<u64> {
        match self.value?.as_str().and_then(milliseconds) {
            Some(ms) if range.contains(&ms) => Some(ms),
            Some(_) => self.wrong(&format!(
                "must be from {} to {}",
                in_units(*range.start()),
                in_units(*range.end())
            )),
            None => self.wrong("must be a time with its unit (ms, s, m, h or d), as in \"5s\""),
        }
    }

    /// The name of a field that a policy may write, in lower case.
    pub fn field_name(self) -> Option<String> {
        self.parsed(field_name)
    }

    /// The value of a field.
    pub fn field_value(self) -> Option<String> {
        self.parsed(|value| {
            let is_control = |c: char| c != '\t' && c.is_control();
            if value.contains(is_control) || value.trim_ascii() != value {
                return Err("a value has no control characters and no space at its ends".to_owned());
            }
            Ok(value.to_owned())
        })
    }

    /// A path without query.
    pub fn path(self) -> Option<String> {
        self.parsed(|path| {
            let is_graphic = path.bytes().all(|b| b.is_ascii_graphic());
            if path.starts_with('/') && is_graphic && !path.contains(['?', '#', '\\']) {
                Ok(path.to_owned())
            } else {
                Err("must be a path that begins with `/`, without a query".to_owned())
            }
        })
    }

    /// Addresses, as in "192.0.2.0/24".
    pub fn network(self) -> Option<Network> {
        self.parsed(Network::parse)
    }

    /// A list. None if any of its items is.
    pub fn list<T>(self, mut each: impl FnMut(Item<'a>) -> Option<T>) -> Option<Vec<T>> {
        let Value::Array(items) = self.value? else {
            return self.wrong("must be a list");
        };
        let mut made = Vec::with_capacity(items.len());
        for (index, value) in items.iter().enumerate() {
            made.extend(each(Item {
                value: Some(value),
                place: format!("{}[{index}]", self.place),
                problems: self.problems,
            }));
        }
        (made.len() == items.len()).then_some(made)
    }

    /// An object whose keys are names that the operator chose, in their order. None if any of what
    /// is made of its members is.
    pub fn pairs<T>(self, mut each: impl FnMut(&str, Item<'a>) -> Option<T>) -> Option<Vec<T>> {
        let Value::Object(members) = self.value? else {
            return self.wrong("must be an object");
        };
        let mut made = Vec::with_capacity(members.len());
        for (name, value) in members {
            let item = Item {
                value: Some(value),
                place: join(&self.place, name),
                problems: self.problems,
            };
            made.extend(each(name, item));
        }
        (made.len() == members.len()).then_some(made)
    }

    /// Names and values of fields.
    pub fn fields(self) -> Option<Vec<(String, String)>> {
        self.pairs(|name, item| {
            let name = match field_name(name) {
                Ok(name) => Some(name),
                Err(message) => item.wrong(&message),
            };
            let value = item.field_value();
            Some((name?, value?))
        })
    }

    /// An object with keys that mean something.
    pub fn section<T>(self, make: impl FnOnce(&Section<'_>) -> Option<T>) -> Option<T> {
        let Value::Object(members) = self.value? else {
            return self.wrong("must be an object");
        };
        let section = Section {
            members,
            place: &self.place,
            problems: self.problems,
            known: RefCell::default(),
        };
        let made = make(&section);
        section.refuse_unknown();
        made
    }
}

fn join(place: &str, key: &str) -> String {
    if place.is_empty() {
        key.to_owned()
    } else {
        format!("{place}.{key}")
    }
}

/// Whether it may be a field's name, or a method's (RFC 9110, 5.6.2).
pub fn is_token(text: &str) -> bool {
    let is_char = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_char)
}

/// The name of a field that a policy may write, in lower case.
pub fn field_name(text: &str) -> Result<String, String> {
    if !is_token(text) {
        return Err("not a field name".to_owned());
    }
    let name = text.to_ascii_lowercase();
    if RESERVED.contains(&name.as_str()) {
        return Err("the gateway writes this field itself".to_owned());
    }
    Ok(name)
}

fn milliseconds(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim_start() {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 60 * 60 * 1000,
        "d" => 24 * 60 * 60 * 1000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale)
}

fn in_units(ms: u64) -> String {
    let units = [
        (24 * 60 * 60 * 1000, "d"),
        (60 * 60 * 1000, "h"),
        (60 * 1000, "m"),
        (1000, "s"),
    ];
    let fits = |&(scale, _): &(u64, &str)| ms > 0 && ms.is_multiple_of(scale);
    match units.into_iter().find(fits) {
        Some((scale, unit)) => format!("{}{unit}", ms / scale),
        None => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests;
