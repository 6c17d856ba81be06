//! What a test of a plugin says: a message, the plugin's configuration, and what should become of
//! them.
//!
//! A case states every edit: one that the plugin makes and the case does not expect fails it, since
//! what a policy does beside its task is how it surprises. Logs are looked at where a case names
//! some.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

use anyhow::Context as _;
use anyhow::bail;
use serde::Deserialize;

/// Cases in a file, which all plugins in it share a configuration unless one has its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CaseFile {
    /// The plugin's section of the configuration.
    #[serde(default)]
    pub config: Option<serde_json::Value>,
    /// The upstreams that exist, all of which the plugin may call.
    #[serde(default)]
    pub upstreams: Vec<String>,
    /// The secrets that the plugin is granted.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    #[serde(rename = "case")]
    pub cases: Vec<Case>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Case {
    pub name: String,
    /// Instead of the file's.
    #[serde(default)]
    pub config: Option<serde_json::Value>,
    #[serde(default)]
    pub request: GivenRequest,
    /// So many times the background phase is called, before anything else.
    #[serde(default)]
    pub ticks: u32,
    /// The request is the CA's look at a token, and the challenge phase is called alone.
    #[serde(default)]
    pub challenge: Option<GivenChallenge>,
    /// A record to write, and to remove again: the solver is called alone.
    #[serde(default)]
    pub dns: Option<GivenRecord>,
    /// What the upstream answers.
    #[serde(default)]
    pub response: GivenResponse,
    /// The calls that the plugin makes, in their order, and what each is answered.
    #[serde(default)]
    pub callouts: Vec<GivenCallout>,
    #[serde(default)]
    pub expect: Expected,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct GivenRequest {
    pub method: String,
    /// Path and query.
    pub path: String,
    pub host: String,
    /// "http" or "https".
    pub scheme: String,
    pub headers: Headers,
    pub body: String,
    /// The address of the client.
    pub client: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GivenChallenge {
    pub token: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GivenRecord {
    pub name: String,
    pub zone: String,
    pub value: String,
    /// The certificate's name.
    pub identifier: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct GivenResponse {
    pub status: u16,
    pub headers: Headers,
    pub body: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct GivenCallout {
    pub upstream: String,
    #[serde(default = "get")]
    pub method: String,
    pub path: String,
    /// Fields that the call has to have; it may have others.
    #[serde(default)]
    pub headers: Headers,
    #[serde(default)]
    pub answer: GivenAnswer,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct GivenAnswer {
    /// Instead of an answer: "connect", "timeout", "too-large" or "protocol".
    pub error: Option<CallFailure>,
    pub status: u16,
    pub headers: Headers,
    pub body: String,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum CallFailure {
    Connect,
    Timeout,
    TooLarge,
    Protocol,
}

/// What should become of the exchange. What is left out should not happen.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Expected {
    /// A part of the text with which the plugin refuses its configuration.
    pub refused: Option<String>,
    /// The label of the fault, as "plugin-trap".
    pub fault: Option<String>,
    /// The plugin ends the connection.
    pub abort: bool,
    /// The upstream that the plugin chooses, or several, of which it chooses one.
    pub upstream: Option<Values>,
    /// The plugin answers.
    pub reply: Option<ExpectedReply>,
    /// What the challenge phase answers.
    pub key_authorization: Option<String>,
    /// A part of what the solver says went wrong.
    pub dns_error: Option<String>,
    pub request: ExpectedEdits,
    pub response: ExpectedEdits,
    /// A part of each line, in their order.
    pub logs: Option<Vec<String>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExpectedReply {
    pub status: u16,
    /// Fields that it has to have; it may have others.
    #[serde(default)]
    pub headers: BTreeMap<String, ExpectedField>,
    pub body: Option<String>,
}

/// Everything that differs from the message that was given.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExpectedEdits {
    /// Of a request.
    pub method: Option<String>,
    pub path: Option<String>,
    pub host: Option<String>,
    /// Of a response.
    pub status: Option<u16>,
    pub headers: BTreeMap<String, ExpectedField>,
    pub removed: Vec<String>,
    pub body: Option<String>,
}

/// Names in lower case, with a value or several.
pub type Headers = BTreeMap<String, Values>;

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Values {
    One(String),
    Many(Vec<String>),
}

/// What a field should be: its values, or a part of its only one.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum ExpectedField {
    Values(Values),
    Part(Part),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    pub contains: String,
}

fn get() -> String {
    "GET".to_owned()
}

impl Default for GivenRequest {
    fn default() -> Self {
        Self {
            method: get(),
            path: "/".to_owned(),
            host: "app.test".to_owned(),
            scheme: "http".to_owned(),
            headers: Headers::new(),
            body: String::new(),
            client: "192.0.2.1".to_owned(),
        }
    }
}

impl Default for GivenResponse {
    fn default() -> Self {
        Self {
            status: 200,
            headers: Headers::new(),
            body: String::new(),
        }
    }
}

impl Default for GivenAnswer {
    fn default() -> Self {
        Self {
            error: None,
            status: 200,
            headers: Headers::new(),
            body: String::new(),
        }
    }
}

impl Values {
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(value) => std::slice::from_ref(value).iter(),
            Self::Many(values) => values.iter(),
        }
        .map(String::as_str)
    }
}

impl CaseFile {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let file: Self = toml::from_str(text)?;
        if file.cases.is_empty() {
            bail!("there is no [[case]]");
        }
        Ok(file)
    }

    /// The configuration of one of its cases, as JSON text.
    pub fn config(&self, case: &Case) -> String {
        let config = case.config.as_ref().or(self.config.as_ref());
        config.map_or_else(|| "{}".to_owned(), ToString::to_string)
    }
}

/// The files with cases in a folder, in the order of their names.
pub fn read(dir: &Path) -> anyhow::Result<Vec<(PathBuf, CaseFile)>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry
            .with_context(|| format!("cannot read {}", dir.display()))?
            .path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            let place = || path.display().to_string();
            let text = fs::read_to_string(&path).with_context(place)?;
            let file = CaseFile::parse(&text).with_context(place)?;
            files.push((path, file));
        }
    }
    if files.is_empty() {
        bail!("{}: there are no cases (*.toml)", dir.display());
    }
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_has_defaults_and_a_mistake_in_one_has_a_line() {
        let file = CaseFile::parse(
            "config = { a = 1 }\n[[case]]\nname = 'x'\n[[case]]\nname = 'y'\nconfig = { a = 2 }",
        )
        .unwrap();
        assert_eq!(file.cases[0].request.method, "GET");
        assert_eq!(file.cases[0].response.status, 200);
        assert_eq!(file.config(&file.cases[0]), r#"{"a":1}"#);
        assert_eq!(file.config(&file.cases[1]), r#"{"a":2}"#);

        for (text, want) in [
            ("case = []", "no [[case]]"),
            ("[[case]]\nname = 'x'\nexpects = {}", "line 3"),
            (
                "[[case]]\nname = 'x'\nexpect.reply = {}",
                "missing field `status`",
            ),
        ] {
            let error = CaseFile::parse(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
