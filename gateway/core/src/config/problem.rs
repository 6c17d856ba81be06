//! Findings about configuration, and where they are.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

/// Longest part of a line that a problem shows, in characters.
const MAX_SHOWN: usize = 120;

/// One thing wrong with a configuration, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    pub severity: Severity,
    pub origin: Origin,
    /// What is wrong: lower-case, no full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// It is taken, and probably not what was meant.
    Warning,
}

/// A place in a file.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Origin {
    pub file: Arc<Path>,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The whole line.
    text: Arc<str>,
    /// Characters to underline; at least 1.
    len: usize,
}

impl Origin {
    /// The whole file, for what has no line: it is missing, or no text.
    pub fn file(path: &Path) -> Self {
        Self {
            file: path.into(),
            line: 1,
            column: 1,
            text: "".into(),
            len: 1,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file.display(), self.line, self.column)
    }
}

impl Problem {
    pub fn error(origin: Origin, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            origin,
            message: one_line(message.into()),
            help: None,
        }
    }

    pub fn warning(origin: Origin, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(origin, message)
        }
    }

    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// For a terminal: place, message, the line with the text underlined, and what to do.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{}: {severity}: {}", self.origin, self.message)?;
        let Origin {
            line,
            column,
            text,
            len,
            ..
        } = &self.origin;
        if !text.is_empty() {
            // Tabs would move the underline; other control characters could move the cursor.
            let shown: String = text
                .chars()
                .take(MAX_SHOWN)
                .map(|c| if c.is_control() { ' ' } else { c })
                .collect();
            let shown_len = shown.chars().count();
            let start = (column - 1).min(shown_len);
            let marks = (*len).clamp(1, (shown_len - start).max(1));
            let number = line.to_string();
            let pad = " ".repeat(number.len());
            let mut block = String::new();
            let _ = write!(block, "\n{pad} |\n{number} | {shown}\n{pad} | ");
            let _ = write!(block, "{}{}", " ".repeat(start), "^".repeat(marks));
            f.write_str(&block)?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

/// A message quotes what stands in files: it must not move a cursor or forge a line of a log.
fn one_line(message: String) -> String {
    if !message.contains(char::is_control) {
        return message;
    }
    let escaped = message.chars().map(|c| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    });
    escaped.collect()
}

/// A configuration file as it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigText {
    pub path: PathBuf,
    pub text: String,
}

/// A text with its line starts, so that a byte range becomes an [`Origin`].
pub struct Lines<'t> {
    file: Arc<Path>,
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub fn new(source: &'t ConfigText) -> Self {
        let starts = std::iter::once(0)
            .chain(source.text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            file: source.path.as_path().into(),
            text: &source.text,
            starts,
        }
    }

    pub fn origin(&self, span: Range<usize>) -> Origin {
        let start = span.start.min(self.text.len());
        let line = self.starts.partition_point(|&at| at <= start) - 1;
        let line_start = self.starts[line];
        let line_text = self.text[line_start..].lines().next().unwrap_or_default();
        let line_end = line_start + line_text.len();
        let count = |from: usize, to: usize| {
            let slice = self.text.get(from..to.max(from));
            slice.map_or(0, |slice| slice.chars().count())
        };
        Origin {
            file: Arc::clone(&self.file),
            line: line + 1,
            column: count(line_start, start.min(line_end)) + 1,
            text: line_text.into(),
            len: count(start, span.end.min(line_end)).max(1),
        }
    }
}

/// Where each declared thing stands, by its dotted name (`certificates.shop`,
/// `plugins.auth.source`): for problems that are found only when the thing is loaded.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    pub fn insert(&mut self, key: String, origin: Origin) {
        self.0.insert(key, origin);
    }

    /// The place of the thing, or of the nearest thing that holds it.
    pub fn find(&self, key: &str) -> Origin {
        let mut key = key;
        loop {
            if let Some(origin) = self.0.get(key) {
                return origin.clone();
            }
            match key.rsplit_once('.') {
                Some((holder, _)) => key = holder,
                None => return Origin::file(Path::new("configuration")),
            }
        }
    }
}

/// The candidate that was probably meant, if one is near enough.
pub fn suggest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_its_place_and_underlines_it() {
        let source = ConfigText {
            path: "a.toml".into(),
            text: "x = 1\nwörker = 2\n".into(),
        };
        let lines = Lines::new(&source);
        let problem = Problem::error(lines.origin(6..13), "unknown key").with_help("did you mean");
        assert_eq!(
            problem.to_string(),
            "a.toml:2:1: error: unknown key\n  |\n2 | wörker = 2\n  | ^^^^^^\n  help: did you mean"
        );
        // A span past the end of the text, and one over several lines, stay inside.
        assert_eq!(lines.origin(100..200).line, 3);
        assert_eq!(lines.origin(0..17).len, 5);
    }

    #[test]
    fn a_message_is_one_line_whatever_it_quotes() {
        let origin = Origin::file(Path::new("a.toml"));
        let problem = Problem::error(origin, "'a\nb\u{1b}[2J' is no name");
        assert_eq!(problem.message, "'a\\nb\\u{1b}[2J' is no name");
    }

    #[test]
    fn a_suggestion_is_near() {
        let keys = ["endpoints", "timeouts", "tls"];
        assert_eq!(suggest("endpoint", keys.into_iter()), Some("endpoints"));
        assert_eq!(suggest("colour", keys.into_iter()), None);
    }
}
