//! Header fields as a plugin may edit them.
//!
//! The one place that decides which name and which value a plugin may write, for messages in
//! transit and for responses of its own: nothing that a plugin writes may frame a message, speak
//! of a connection, or begin another field.

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use postern_core::header::FieldKind;
use postern_core::header::is_editable;

use crate::bindings::postern::plugin::types::EditError;
use crate::limits::MAX_FIELD_BYTES;
use crate::limits::MAX_FIELDS;
use crate::view::push_joined;
use crate::view::utf8;

/// A name that a plugin may write or remove.
pub(crate) fn editable_name(name: &str) -> Result<HeaderName, EditError> {
    if name.starts_with(':') {
        return Err(EditError::Forbidden);
    }
    let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| EditError::Invalid)?;
    if is_editable(&name) && !is_twin(&name) {
        Ok(name)
    } else {
        Err(EditError::Forbidden)
    }
}

/// `content_length` is `content-length` to whatever reads fields as CGI variables.
fn is_twin(name: &HeaderName) -> bool {
    name.as_str().contains('_')
        && !matches!(
            FieldKind::of(&name.as_str().replace('_', "-")),
            FieldKind::EndToEnd | FieldKind::Identity
        )
}

/// A value that a plugin may write: no control character, and no space at its ends, where a
/// parser would drop it.
pub(crate) fn valid_value(value: String) -> Result<HeaderValue, EditError> {
    let is_control = |b: u8| (b < 0x20 && b != b'\t') || b == 0x7f;
    let bytes = value.as_bytes();
    if bytes.iter().copied().any(is_control) || bytes.trim_ascii().len() != bytes.len() {
        return Err(EditError::Invalid);
    }
    HeaderValue::from_maybe_shared(Bytes::from(value)).map_err(|_| EditError::Invalid)
}

/// The fields of a message under edit, kept within their limits.
pub(crate) struct Fields<'a> {
    map: &'a mut HeaderMap,
    bytes: &'a mut Option<usize>,
}

impl<'a> Fields<'a> {
    /// `bytes` is the size of the fields if it is known, and is kept up to date.
    pub(crate) fn new(map: &'a mut HeaderMap, bytes: &'a mut Option<usize>) -> Self {
        Self { map, bytes }
    }

    pub(crate) fn set(&mut self, name: &str, value: String) -> Result<(), EditError> {
        let (name, value) = (editable_name(name)?, valid_value(value)?);
        let old = size_of(self.map, &name);
        let fields = self.map.len() - old.fields + 1;
        let bytes = self.bytes() - old.bytes + name.as_str().len() + value.len();
        self.check(fields, bytes)?;
        match self.map.try_insert(name, value) {
            Ok(_) => *self.bytes = Some(bytes),
            Err(_) => return Err(EditError::TooLarge),
        }
        Ok(())
    }

    pub(crate) fn append(&mut self, name: &str, value: String) -> Result<(), EditError> {
        let (name, value) = (editable_name(name)?, valid_value(value)?);
        let bytes = self.bytes() + name.as_str().len() + value.len();
        self.check(self.map.len() + 1, bytes)?;
        match self.map.try_append(name, value) {
            Ok(_) => *self.bytes = Some(bytes),
            Err(_) => return Err(EditError::TooLarge),
        }
        Ok(())
    }

    pub(crate) fn remove(&mut self, name: &str) -> Result<(), EditError> {
        let name = editable_name(name)?;
        let old = size_of(self.map, &name);
        if old.fields > 0 {
            *self.bytes = Some(self.bytes() - old.bytes);
            self.map.remove(&name);
        }
        Ok(())
    }

    fn bytes(&mut self) -> usize {
        let map = &*self.map;
        let measure = || map.iter().map(|(n, v)| n.as_str().len() + v.len()).sum();
        *self.bytes.get_or_insert_with(measure)
    }

    /// A message that was above the limits before may still be made smaller.
    fn check(&self, fields: usize, bytes: usize) -> Result<(), EditError> {
        let before = self.bytes.unwrap_or_default();
        let is_more = fields > self.map.len() || bytes > before;
        if is_more && (fields > MAX_FIELDS || bytes > MAX_FIELD_BYTES) {
            return Err(EditError::TooLarge);
        }
        Ok(())
    }
}

struct Size {
    fields: usize,
    bytes: usize,
}

fn size_of(map: &HeaderMap, name: &HeaderName) -> Size {
    let empty = Size {
        fields: 0,
        bytes: 0,
    };
    map.get_all(name).iter().fold(empty, |size, value| Size {
        fields: size.fields + 1,
        bytes: size.bytes + name.as_str().len() + value.len(),
    })
}

/// A name to look up. None cannot be in a message.
fn lookup(name: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).ok()
}

pub(crate) fn joined(map: &HeaderMap, name: &str) -> Option<String> {
    let mut text = String::new();
    push_joined(&mut text, map, &lookup(name)?)?;
    Some(text)
}

pub(crate) fn all(map: &HeaderMap, name: &str) -> Vec<String> {
    let Some(name) = lookup(name) else {
        return Vec::new();
    };
    let values = map.get_all(name);
    values.iter().filter_map(utf8).map(str::to_owned).collect()
}

pub(crate) fn all_bytes(map: &HeaderMap, name: &str) -> Vec<Vec<u8>> {
    let Some(name) = lookup(name) else {
        return Vec::new();
    };
    let values = map.get_all(name);
    values
        .iter()
        .map(|value| value.as_bytes().to_vec())
        .collect()
}

pub(crate) fn names(map: &HeaderMap) -> Vec<String> {
    map.keys().map(|name| name.as_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_writes_end_to_end_fields_only() {
        let cases = [
            ("x-a", None),
            ("X-A", None),
            ("x-forwarded-for", None),
            ("x_custom", None),
            ("content_length", Some(EditError::Forbidden)),
            ("Content-Length", Some(EditError::Forbidden)),
            ("transfer-encoding", Some(EditError::Forbidden)),
            ("connection", Some(EditError::Forbidden)),
            ("upgrade", Some(EditError::Forbidden)),
            ("host", Some(EditError::Forbidden)),
            (":path", Some(EditError::Forbidden)),
            ("a b", Some(EditError::Invalid)),
            ("a:", Some(EditError::Invalid)),
            ("a\r\nb", Some(EditError::Invalid)),
            ("", Some(EditError::Invalid)),
        ];
        for (name, want) in cases {
            assert_eq!(editable_name(name).err(), want, "{name:?}");
        }
    }

    #[test]
    fn a_value_cannot_end_its_line() {
        let cases = [
            ("v", true),
            ("", true),
            ("a\tb", true),
            ("ä", true),
            ("a\r\nb", false),
            ("a\nb", false),
            ("a\0", false),
            ("a\u{7f}", false),
            (" a", false),
            ("a\t", false),
        ];
        for (value, want) in cases {
            assert_eq!(valid_value(value.into()).is_ok(), want, "{value:?}");
        }
    }

    #[test]
    fn size_follows_the_edits() {
        let mut map = HeaderMap::new();
        map.insert("x-there", HeaderValue::from_static("12345"));
        let mut bytes = None;
        let mut fields = Fields::new(&mut map, &mut bytes);
        fields.set("x-a", "1".into()).unwrap();
        fields.append("x-a", "2".into()).unwrap();
        fields.set("x-there", "1".into()).unwrap();
        fields.set("x-a", "333".into()).unwrap();
        fields.remove("x-none").unwrap();
        let before = *fields.bytes;
        *fields.bytes = None;
        assert_eq!(before, Some(fields.bytes()));
        fields.remove("x-a").unwrap();
        assert_eq!(bytes, Some("x-there1".len()));
    }

    #[test]
    fn a_message_stays_within_its_limits() {
        let mut map = HeaderMap::new();
        let mut bytes = None;
        let mut fields = Fields::new(&mut map, &mut bytes);
        for _ in 0..MAX_FIELDS {
            fields.append("x-a", "v".into()).unwrap();
        }
        assert_eq!(fields.append("x-a", "v".into()), Err(EditError::TooLarge));
        assert_eq!(fields.set("x-b", "v".into()), Err(EditError::TooLarge));
        // One value in the place of all.
        fields.set("x-a", "v".into()).unwrap();
        let large = "v".repeat(MAX_FIELD_BYTES);
        assert_eq!(fields.set("x-a", large), Err(EditError::TooLarge));
        assert_eq!(map["x-a"], "v");
    }
}
