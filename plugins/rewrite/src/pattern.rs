//! Patterns of paths, and templates that are filled with what they caught.

/// Longest path that a pattern looks at; a gateway has no longer ones.
const MAX_SEGMENTS: usize = 64;

/// A path whose segments may be names in braces.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Pattern {
    segments: Vec<Segment>,
    /// What catches the segments after those.
    rest: Option<String>,
}

#[derive(Debug, Eq, PartialEq)]
enum Segment {
    Literal(String),
    /// One segment that is not empty.
    Name(String),
}

impl Pattern {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let path = text.strip_prefix('/').ok_or("must begin with `/`")?;
        let mut pattern = Self {
            segments: Vec::new(),
            rest: None,
        };
        let mut names: Vec<&str> = Vec::new();
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            let name = part
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'));
            let Some(name) = name else {
                check_literal(part)?;
                pattern.segments.push(Segment::Literal(part.to_owned()));
                continue;
            };
            let (name, is_rest) = match name.strip_suffix('*') {
                Some(name) => (name, true),
                None => (name, false),
            };
            if !is_name(name) {
                return Err(format!(
                    "{{{name}}} must be of letters, digits, `-` and `_`"
                ));
            }
            if names.contains(&name) {
                return Err(format!("{{{name}}} is there twice"));
            }
            names.push(name);
            if !is_rest {
                pattern.segments.push(Segment::Name(name.to_owned()));
            } else if parts.peek().is_none() {
                pattern.rest = Some(name.to_owned());
            } else {
                return Err(format!("{{{name}*}} may only be the last segment"));
            }
        }
        if pattern.segments.len() > MAX_SEGMENTS {
            return Err(format!("has more than {MAX_SEGMENTS} segments"));
        }
        Ok(pattern)
    }

    /// What each name caught. None: the path is another.
    pub(crate) fn captures<'p, 't>(&'p self, path: &'t str) -> Option<Vec<(&'p str, &'t str)>> {
        let mut rest = Some(path.strip_prefix('/')?);
        let mut captures = Vec::new();
        for segment in &self.segments {
            let (first, others) = match rest?.split_once('/') {
                Some((first, others)) => (first, Some(others)),
                None => (rest?, None),
            };
            match segment {
                Segment::Literal(literal) if literal == first => {}
                Segment::Name(name) if !first.is_empty() => captures.push((name.as_str(), first)),
                _ => return None,
            }
            rest = others;
        }
        match (&self.rest, rest) {
            (Some(name), rest) => captures.push((name, rest.unwrap_or_default())),
            (None, None) => {}
            (None, Some(_)) => return None,
        }
        Some(captures)
    }

    fn has(&self, wanted: &str) -> bool {
        let is_it = |segment: &Segment| matches!(segment, Segment::Name(name) if name == wanted);
        self.segments.iter().any(is_it) || self.rest.as_deref() == Some(wanted)
    }
}

/// A path, and a query if there is one, with names in braces.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Template {
    path: Vec<Piece>,
    query: Option<Vec<Piece>>,
}

#[derive(Debug, Eq, PartialEq)]
enum Piece {
    Text(String),
    Name(String),
}

impl Template {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err("must begin with `/`".to_owned());
        }
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (text, None),
        };
        Ok(Self {
            path: pieces(path)?,
            query: query.map(pieces).transpose()?,
        })
    }

    /// A name that the pattern does not have.
    pub(crate) fn unknown(&self, pattern: &Pattern) -> Option<&str> {
        let pieces = self.path.iter().chain(self.query.iter().flatten());
        let mut names = pieces.filter_map(|piece| match piece {
            Piece::Name(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        });
        names.find(|name| !pattern.has(name))
    }

    /// The path, and the query.
    pub(crate) fn fill(&self, captures: &[(&str, &str)]) -> (String, Option<String>) {
        let mut path = String::new();
        for piece in &self.path {
            match piece {
                Piece::Text(text) => path.push_str(text),
                Piece::Name(name) => path.push_str(value(captures, name)),
            }
        }
        let query = self.query.as_ref().map(|pieces| {
            let mut query = String::new();
            for piece in pieces {
                match piece {
                    Piece::Text(text) => query.push_str(text),
                    Piece::Name(name) => push_in_query(&mut query, value(captures, name)),
                }
            }
            query
        });
        (path, query)
    }
}

fn value<'t>(captures: &[(&str, &'t str)], wanted: &str) -> &'t str {
    let found = captures.iter().find(|(name, _)| *name == wanted);
    found.map_or("", |(_, value)| value)
}

/// What means nothing in a path but something in a query is written as what it stands for.
fn push_in_query(query: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '&' => query.push_str("%26"),
            '=' => query.push_str("%3D"),
            '+' => query.push_str("%2B"),
            ';' => query.push_str("%3B"),
            c => query.push(c),
        }
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, behind) = after.split_once('}').ok_or("a `{` has no `}`")?;
        let name = name.strip_suffix('*').unwrap_or(name);
        if !is_name(name) {
            return Err(format!(
                "{{{name}}} must be of letters, digits, `-` and `_`"
            ));
        }
        check_literal(before)?;
        pieces.push(Piece::Text(before.to_owned()));
        pieces.push(Piece::Name(name.to_owned()));
        rest = behind;
    }
    check_literal(rest)?;
    pieces.push(Piece::Text(rest.to_owned()));
    Ok(pieces)
}

fn check_literal(text: &str) -> Result<(), String> {
    let is_char = |b: u8| b.is_ascii_graphic() && !b"{}*?#\\\"<>^`|".contains(&b);
    if text.bytes().all(is_char) {
        Ok(())
    } else {
        Err(format!(
            "\"{text}\" is no part of a path; a name in braces is a whole segment"
        ))
    }
}

fn is_name(text: &str) -> bool {
    let is_char = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !text.is_empty() && text.bytes().all(is_char)
}
