//! JSON from the gateway's configuration, and from anywhere else: what is parsed here may have been
//! written by a client.
//!
//! Invariants:
//! - No text can exhaust the stack: values nest [`MAX_DEPTH`] deep and no deeper.
//! - A text has one meaning: an object with the same name twice is refused, and so is everything that
//!   RFC 8259 does not allow.

use std::fmt;

/// How deep arrays and objects may stand in each other. A plugin's stack has 32 KiB.
pub const MAX_DEPTH: usize = 32;

/// A JSON value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    /// As it was written; few programs need more of one than a whole number.
    Number(String),
    String(String),
    Array(Vec<Self>),
    /// Sorted by name.
    Object(Vec<(String, Self)>),
}

/// Why a text is not JSON, and at which byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotJson {
    pub at: usize,
    pub reason: &'static str,
}

impl fmt::Display for NotJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.reason, self.at)
    }
}

impl std::error::Error for NotJson {}

impl Value {
    /// Reads a whole text.
    pub fn parse(text: &str) -> Result<Self, NotJson> {
        let mut parser = Parser { text, at: 0 };
        let value = parser.value(0)?;
        parser.skip_space();
        if parser.at < text.len() {
            return parser.fail("more than one value");
        }
        Ok(value)
    }

    /// A member of an object.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else {
            return None;
        };
        let at = members.binary_search_by(|(n, _)| n.as_str().cmp(name));
        at.ok().map(|at| &members[at].1)
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A whole number that was written as one.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_object(&self) -> Option<&[(String, Self)]> {
        match self {
            Self::Object(members) => Some(members),
            _ => None,
        }
    }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl Parser<'_> {
    fn fail<T>(&self, reason: &'static str) -> Result<T, NotJson> {
        Err(NotJson {
            at: self.at,
            reason,
        })
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_it = self.peek() == Some(byte);
        if is_it {
            self.at += 1;
        }
        is_it
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, NotJson> {
        if depth > MAX_DEPTH {
            return self.fail("nested too deep");
        }
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(Value::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(_) => self.fail("not a value"),
            None => self.fail("the text ends too early"),
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, NotJson> {
        if !self.text[self.at..].starts_with(word) {
            return self.fail("not a value");
        }
        self.at += word.len();
        Ok(value)
    }

    fn number(&mut self) -> Result<Value, NotJson> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(Value::Number(self.text[start..self.at].to_owned()))
    }

    fn digits(&mut self) -> Result<(), NotJson> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        if start == self.at {
            return self.fail("a digit is missing");
        }
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<Value, NotJson> {
        self.at += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.take(b']') {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.skip_space();
            if self.take(b']') {
                return Ok(Value::Array(items));
            }
            if !self.take(b',') {
                return self.fail("`,` or `]` is missing");
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, NotJson> {
        self.at += 1;
        let mut members: Vec<(String, Value)> = Vec::new();
        self.skip_space();
        if self.take(b'}') {
            return Ok(Value::Object(members));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return self.fail("a name is missing");
            }
            let name = self.string()?;
            self.skip_space();
            if !self.take(b':') {
                return self.fail("`:` is missing");
            }
            members.push((name, self.value(depth + 1)?));
            self.skip_space();
            if self.take(b'}') {
                break;
            }
            if !self.take(b',') {
                return self.fail("`,` or `}` is missing");
            }
        }
        members.sort_by(|(a, _), (b, _)| a.cmp(b));
        if members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return self.fail("an object has a name twice");
        }
        Ok(Value::Object(members))
    }

    fn string(&mut self) -> Result<String, NotJson> {
        self.at += 1;
        let mut text = String::new();
        loop {
            let rest = &self.text[self.at..];
            let plain = rest
                .bytes()
                .position(|b| b < 0x20 || b == b'"' || b == b'\\');
            let Some(plain) = plain else {
                return self.fail("a string does not end");
            };
            text.push_str(&rest[..plain]);
            self.at += plain;
            if self.take(b'"') {
                return Ok(text);
            }
            if !self.take(b'\\') {
                return self.fail("a control character in a string");
            }
            text.push(self.escape()?);
        }
    }

    fn escape(&mut self) -> Result<char, NotJson> {
        let escape = self.peek();
        self.at += 1;
        Ok(match escape {
            Some(b @ (b'"' | b'\\' | b'/')) => char::from(b),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let unit = self.unit()?;
                let code = match unit {
                    0xD800..0xDC00 if self.take(b'\\') && self.take(b'u') => {
                        let low = self.unit()?;
                        if !(0xDC00..0xE000).contains(&low) {
                            return self.fail("half of a character");
                        }
                        0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)
                    }
                    unit => unit,
                };
                match char::from_u32(code) {
                    Some(c) => c,
                    None => return self.fail("half of a character"),
                }
            }
            _ => {
                self.at -= 1;
                return self.fail("not an escape");
            }
        })
    }

    fn unit(&mut self) -> Result<u32, NotJson> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let mut unit = 0;
        for digit in digits.unwrap_or(b"-") {
            match char::from(*digit).to_digit(16) {
                Some(digit) => unit = unit << 4 | digit,
                None => return self.fail("not four hexadecimal digits"),
            }
        }
        self.at += 4;
        Ok(unit)
    }
}

#[cfg(test)]
mod tests;
