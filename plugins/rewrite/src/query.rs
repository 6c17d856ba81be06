//! What becomes of the query that a client sent.

use postern_plugin::config::Section;

/// Parameters are named as they are written: `a%62` is not `ab`.
#[derive(Debug, Default)]
pub(crate) struct QueryEdit {
    drops_all: bool,
    remove: Vec<Name>,
    /// Names and values, as they are written.
    set: Vec<(String, String)>,
}

#[derive(Debug)]
enum Name {
    Exact(String),
    /// `utm_*`
    Prefix(String),
}

impl QueryEdit {
    pub(crate) fn read(section: &Section<'_>) -> Option<Self> {
        let drops_all = section.get("drop").flag();
        let remove = section.get("remove").list(|item| {
            item.parsed(|name| match name.strip_suffix('*') {
                Some(prefix) if is_word(prefix) => Ok(Name::Prefix(prefix.to_owned())),
                None if is_word(name) => Ok(Name::Exact(name.to_owned())),
                _ => Err("must be the name of a parameter, or its beginning and `*`".to_owned()),
            })
        });
        let set = section.get("set").pairs(|name, item| {
            if !is_word(name) {
                return item.wrong("the key must be the name of a parameter");
            }
            let value = item.parsed(|value| match value.is_empty() || is_word(value) {
                true => Ok(value.to_owned()),
                false => {
                    Err("must be percent-encoded where it is not of letters and digits".to_owned())
                }
            });
            Some((name.to_owned(), value?))
        });
        Some(Self {
            drops_all: drops_all.unwrap_or(false),
            remove: remove.unwrap_or_default(),
            set: set.unwrap_or_default(),
        })
    }

    /// The query as it goes on; none if nothing is left of it.
    pub(crate) fn apply(&self, query: Option<&str>) -> Option<String> {
        let query = query.filter(|_| !self.drops_all).unwrap_or_default();
        let given = query.split('&').filter(|parameter| {
            let name = parameter.split('=').next().unwrap_or_default();
            let is_removed = self.remove.iter().any(|removed| match removed {
                Name::Exact(exact) => exact == name,
                Name::Prefix(prefix) => name.starts_with(prefix.as_str()),
            });
            // Set means: replaces what the client says.
            !parameter.is_empty() && !is_removed && !self.set.iter().any(|(set, _)| set == name)
        });
        let mut all: Vec<String> = given.map(str::to_owned).collect();
        all.extend(
            self.set
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
        (!all.is_empty()).then(|| all.join("&"))
    }
}

/// What may stand between `&` and `=` as it is.
fn is_word(text: &str) -> bool {
    let is_char = |b: u8| b.is_ascii_alphanumeric() || b"-._~%:@!$'()*,;/?[]+".contains(&b);
    !text.is_empty() && text.bytes().all(is_char)
}
