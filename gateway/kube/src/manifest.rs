//! Manifests: YAML or JSON as JSON values that know where their fields stand.
//!
//! Read as `kubectl` reads them: several documents a file, `List` objects, anchors, the words of
//! YAML 1.1 for true and false. What a file may hold is bounded, so that a few lines of anchors
//! cannot become a gigabyte.

mod load;

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value;

pub use load::ManifestError;
pub use load::load;

/// One object, and where its fields stand.
#[derive(Clone, Debug, Default)]
pub struct Manifest {
    pub value: Value,
    places: BTreeMap<String, Range<usize>>,
}

impl Manifest {
    /// Bytes of the text: of the key of a field as problems name them, or of the nearest that
    /// holds it.
    pub fn place(&self, field: &str) -> Range<usize> {
        let mut field = field;
        loop {
            if let Some(place) = self.places.get(field) {
                return place.clone();
            }
            let Some(end) = field.rfind(['.', '[']) else {
                break;
            };
            // A key in brackets may hold dots.
            field = match field.strip_suffix(']').and_then(|_| field.rfind('[')) {
                Some(start) => &field[..start],
                None => &field[..end],
            };
        }
        self.places.get("").cloned().unwrap_or(0..0)
    }

    /// The objects of a document: itself, or the items of a list.
    fn objects(self) -> Vec<Self> {
        let kind = self.value.get("kind").and_then(Value::as_str);
        let is_list = kind.is_some_and(|kind| kind.ends_with("List"));
        let Some(items) = self.value.get("items").and_then(Value::as_array) else {
            return vec![self];
        };
        if !is_list {
            return vec![self];
        }
        // `IngressList` says for all of its items what they are.
        let of_items = kind.and_then(|kind| kind.strip_suffix("List"));
        let of_items = of_items.filter(|kind| !kind.is_empty());
        let version = self.value.get("apiVersion").cloned();
        let items = items.iter().enumerate();
        let items = items.map(|(index, item)| {
            let mut value = item.clone();
            if let (Some(kind), Value::Object(item)) = (of_items, &mut value) {
                item.entry("kind").or_insert_with(|| kind.into());
                if let Some(version) = &version {
                    item.entry("apiVersion").or_insert_with(|| version.clone());
                }
            }
            let prefix = format!("items[{index}]");
            let places = self
                .places
                .range(prefix.clone()..)
                .map_while(|(key, place)| {
                    let rest = key.strip_prefix(&prefix)?;
                    Some((rest.trim_start_matches('.').to_owned(), place.clone()))
                });
            Self {
                value,
                places: places.collect(),
            }
        });
        items.collect()
    }
}

#[cfg(test)]
mod tests;
