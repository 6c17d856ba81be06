//! XML as AWS answers: elements and their text, bounded.

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;

/// Elements in elements; answers of Route 53 have seven.
const MAX_DEPTH: usize = 32;
/// Elements in all.
const MAX_ELEMENTS: usize = 20_000;

#[derive(Debug, Default, Eq, PartialEq)]
pub(in crate::dns) struct Element {
    /// Without its namespace.
    pub(in crate::dns) name: String,
    text: String,
    pub(in crate::dns) children: Vec<Self>,
}

impl Element {
    pub(in crate::dns) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::from_str(std::str::from_utf8(bytes).ok()?);
        let mut open = vec![Self::default()];
        let mut count = 0;
        loop {
            match reader.read_event().ok()? {
                Event::Start(start) => {
                    count += 1;
                    if count > MAX_ELEMENTS || open.len() > MAX_DEPTH {
                        return None;
                    }
                    open.push(Self::named(start.local_name().into_inner()));
                }
                Event::Empty(start) => {
                    count += 1;
                    if count > MAX_ELEMENTS {
                        return None;
                    }
                    let element = Self::named(start.local_name().into_inner());
                    open.last_mut()?.children.push(element);
                }
                Event::End(_) => {
                    let element = open.pop()?;
                    open.last_mut()?.children.push(element);
                }
                Event::Text(text) => open.last_mut()?.text.push_str(&text.xml10_content()),
                Event::CData(text) => open.last_mut()?.text.push_str(&text.xml10_content()),
                Event::GeneralRef(reference) => {
                    let text = &mut open.last_mut()?.text;
                    match reference.resolve_char_ref().ok()? {
                        Some(letter) => text.push(letter),
                        None => text.push_str(resolve_predefined_entity(&reference.into_inner())?),
                    }
                }
                // Declared entities grow without end; AWS has none.
                Event::DocType(_) => return None,
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
                Event::Eof => break,
            }
        }
        let root = open.pop()?;
        (open.is_empty()).then_some(())?;
        root.children.into_iter().next()
    }

    fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Without the white space around it.
    pub(in crate::dns) fn text(&self) -> String {
        self.text.trim().to_owned()
    }

    /// The first element of that name, however deep.
    pub(in crate::dns) fn find(&self, name: &str) -> Option<&Self> {
        self.children.iter().find_map(|child| {
            if child.name == name {
                return Some(child);
            }
            child.find(name)
        })
    }

    /// All elements of that name, however deep.
    pub(in crate::dns) fn all<'a>(&'a self, name: &str) -> Vec<&'a Self> {
        let mut found = Vec::new();
        for child in &self.children {
            if child.name == name {
                found.push(child);
            } else {
                found.extend(child.all(name));
            }
        }
        found
    }
}

/// Text as it may stand in an element.
pub(in crate::dns) fn escape(text: &str) -> String {
    quick_xml::escape::escape(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn elements_are_found_with_their_text() {
        let text = r#"<?xml version="1.0"?>
            <a:R xmlns:a="x"><Zone><Name> vt.edu. </Name></Zone><Empty/>
            <Zone><Name>a&amp;b&quot;&#65;<![CDATA[<c>]]></Name></Zone></a:R>"#;
        let root = Element::parse(text.as_bytes()).unwrap();
        assert_eq!(root.name, "R");
        assert_eq!(root.find("Name").unwrap().text(), "vt.edu.");
        let zones = root.all("Zone");
        assert_eq!(zones[1].find("Name").unwrap().text(), "a&b\"A<c>");
        assert_eq!(escape("a&b\"<c>"), "a&amp;b&quot;&lt;c&gt;");
    }

    #[test]
    fn what_is_broken_or_too_much_is_nothing() {
        let deep = "<a>".repeat(100) + &"</a>".repeat(100);
        let wide = format!("<a>{}</a>", "<b/>".repeat(MAX_ELEMENTS + 1));
        let cases = [
            "",
            "text",
            "<a>",
            "<a></b>",
            "<a>&unknown;</a>",
            "<!DOCTYPE a [<!ENTITY b \"c\">]><a>&b;</a>",
            &deep,
            &wide,
        ];
        for text in cases {
            assert_eq!(Element::parse(text.as_bytes()), None, "{:.40}", text);
        }
        assert_eq!(Element::parse(&[0xff, 0xfe]), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_reading_panic(text in "[<>/a-c&;#x0-9! \\[\\]\"'=?-]{0,80}") {
            let _ = Element::parse(text.as_bytes());
        }
    }
}
