//! Texts to a [`Config`], or to every [`Problem`] in them.
//!
//! Each file goes through four steps: syntax, shape (against the schema), meaning (each value on
//! its own), references (names across files). A step reports all it finds; only a part that a step
//! could not read is left out of the next one.

mod dns;
mod issuer;
mod item;
mod kubernetes;
mod limits;
mod plugin;
mod policy;
mod rule;
mod source;
pub mod units;
mod upstream;

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;
use toml::de::ValueDeserializer;

use super::Config;
use super::PolicySpec;
use super::plugin::PluginSource;
use super::problem::ConfigText;
use super::problem::Lines;
use super::problem::Origin;
use super::problem::Origins;
use super::problem::Problem;
use super::problem::suggest;
use super::raw;
use super::raw::At;
use super::shape::Shape;
use super::shape::join;
use crate::name::CertificateName;

/// Largest configuration file in bytes. 10,000 routes take about a tenth of it.
pub const MAX_FILE_BYTES: usize = 16 << 20;

/// Longest part of a value that a message quotes, in characters; the line is shown anyway.
const MAX_QUOTED: usize = 80;

/// A configuration, where its parts stand, and what is odd about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    pub config: Config,
    pub origins: Origins,
    pub warnings: Vec<Problem>,
}

/// Reads the main file and, after it, drop-in files. All of them together are one configuration.
pub fn parse(files: &[ConfigText]) -> Result<Loaded, Vec<Problem>> {
    let schema = super::schema();
    let mut reading = Reading::default();
    for (index, source) in files.iter().enumerate() {
        let lines = Lines::new(source);
        FileReader {
            reading: &mut reading,
            lines: &lines,
            dir: source.path.parent().unwrap_or_else(|| Path::new("")),
            path: &source.path,
            is_main: index == 0,
        }
        .read(&source.text, schema);
    }
    reading.finish()
}

/// What kind of thing a name refers to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Kind {
    Listener,
    Certificate,
    DnsSolver,
    Issuer,
    Upstream,
    /// Plugins and policies.
    Policy,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Listener => "listener",
            Self::Certificate => "certificate",
            Self::DnsSolver => "DNS solver",
            Self::Issuer => "issuer",
            Self::Upstream => "upstream",
            Self::Policy => "policy or plugin",
        }
    }

    fn section(self) -> &'static str {
        match self {
            Self::Listener => "listeners",
            Self::Certificate => "certificates",
            Self::DnsSolver => "dns-solvers",
            Self::Issuer => "issuers",
            Self::Upstream => "upstreams",
            Self::Policy => "plugins",
        }
    }
}

/// All files so far.
#[derive(Default)]
struct Reading {
    config: Config,
    origins: Origins,
    problems: Vec<Problem>,
    /// Every name that is declared, also by parts that could not be read: a reference to one of
    /// those is not a second problem.
    declared: HashMap<(Kind, String), Origin>,
    references: Vec<(Kind, String, Origin)>,
    /// The certificates that one entry with several hosts stands for.
    parts: BTreeMap<CertificateName, Vec<CertificateName>>,
}

impl Reading {
    fn finish(mut self) -> Result<Loaded, Vec<Problem>> {
        for (kind, name, origin) in std::mem::take(&mut self.references) {
            if self.declared.contains_key(&(kind, name.clone())) {
                continue;
            }
            let known = self.declared.keys().filter(|(k, _)| *k == kind);
            let near = suggest(&name, known.map(|(_, name)| name.as_str()));
            let help = match near {
                Some(near) => format!("did you mean '{near}'?"),
                None if kind == Kind::Policy => {
                    format!("declare it as [plugins.{name}] or [policies.{name}]")
                }
                None => format!("declare it as [{}.{name}]", kind.section()),
            };
            let message = format!("there is no {} '{name}'", kind.as_str());
            self.problems
                .push(Problem::error(origin, message).with_help(help));
        }
        self.check_listeners();
        self.check_solvers();
        self.check_managed();
        self.check_depth();
        self.check_twins();
        self.check_cache();
        self.problems.sort_by(|a, b| a.origin.cmp(&b.origin));
        if self.problems.iter().any(Problem::is_error) {
            return Err(self.problems);
        }
        Ok(Loaded {
            config: self.config,
            origins: self.origins,
            warnings: self.problems,
        })
    }

    fn check_listeners(&mut self) {
        let mut binds = BTreeMap::new();
        for (name, listener) in &self.config.listeners {
            let at = format!("listeners.{name}");
            // Port 0 asks the kernel for a free one, each time another.
            let other = binds.insert(listener.bind, name);
            if let Some(other) = other.filter(|_| listener.bind.port() != 0) {
                self.problems.push(Problem::error(
                    self.origins.find(&format!("{at}.bind")),
                    format!(
                        "listeners '{other}' and '{name}' both bind {}",
                        listener.bind
                    ),
                ));
            }
            // Certificates of a cluster come later.
            if listener.tls.is_some()
                && self.config.kubernetes.is_none()
                && !self.declared.keys().any(|(k, _)| *k == Kind::Certificate)
            {
                self.problems.push(
                    Problem::error(
                        self.origins.find(&at),
                        format!("listener '{name}' speaks TLS and there is no certificate"),
                    )
                    .with_help("declare one: [certificates.NAME] with cert-file and key-file, or issuer and hosts"),
                );
            }
        }
    }

    /// What is fetched should be there at the next start, whatever has become of its server.
    fn check_cache(&mut self) {
        let fetched = self.config.policies.iter().find(|(_, policy)| {
            matches!(policy, PolicySpec::Plugin(plugin)
                if matches!(plugin.source, PluginSource::Remote(_)))
        });
        if let Some((name, _)) = fetched.filter(|_| self.config.runtime.cache_dir.is_none()) {
            let origin = self.origins.find(&format!("plugins.{name}.source"));
            let message = "without a cache, this plugin is fetched again at each start";
            let help =
                "set cache-dir in [runtime], so that the gateway starts with its server down";
            self.problems
                .push(Problem::warning(origin, message).with_help(help));
        }
    }

    /// Two rules of one host that accept the same requests: the later never answers.
    fn check_twins(&mut self) {
        let mut seen: HashMap<String, String> = HashMap::new();
        for (position, route) in self.config.routes.iter().enumerate() {
            for (index, rule) in route.rules.iter().enumerate() {
                let at = format!("routes.{position}.rules.{index}");
                let any_host = [None];
                let hosts: Vec<_> = route.hosts.iter().map(Some).collect();
                let hosts = if hosts.is_empty() {
                    &any_host[..]
                } else {
                    &hosts
                };
                for host in hosts {
                    let key = format!("{host:?} {:?}", rule.matches);
                    if let Some(first) = seen.insert(key, at.clone()) {
                        let first = self.origins.find(&first);
                        self.problems.push(Problem::warning(
                            self.origins.find(&at),
                            format!("this rule never answers: {first} accepts the same requests"),
                        ));
                    }
                }
            }
        }
    }
}

/// One file.
struct FileReader<'r> {
    reading: &'r mut Reading,
    lines: &'r Lines<'r>,
    dir: &'r Path,
    path: &'r Path,
    is_main: bool,
}

impl FileReader<'_> {
    fn read(&mut self, text: &str, schema: &Value) {
        if text.len() > MAX_FILE_BYTES {
            let limit = MAX_FILE_BYTES >> 20;
            self.reading.problems.push(Problem::error(
                Origin::file(self.path),
                format!("the file is larger than {limit} MiB"),
            ));
            return;
        }
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            for error in errors {
                let message = error.message().to_owned();
                self.error(error.span().unwrap_or(0..0), format!("not TOML: {message}"));
            }
            return;
        }
        let mut table = table.into_inner();
        self.shape(schema).check_root(&mut table);

        for key in [
            "runtime",
            "access-log",
            "admin",
            "limits",
            "kubernetes",
            "dns",
        ] {
            if let Some((key, _)) = table.get_key_value(key).filter(|_| !self.is_main) {
                let message = format!("[{}] belongs into the main file", key.get_ref());
                self.error(key.span(), message);
            }
        }
        if let Some(raw) = self.section(&mut table, schema, "runtime") {
            self.runtime(&raw);
        }
        if let Some(raw) = self.section(&mut table, schema, "access-log") {
            self.access_log(&raw);
        }
        if let Some(raw) = self.section(&mut table, schema, "admin") {
            self.admin(&raw);
        }
        if let Some(raw) = self.section(&mut table, schema, "limits") {
            self.limits(&raw);
        }
        if let Some(raw) = self.section(&mut table, schema, "kubernetes") {
            self.kubernetes(&raw);
        }
        if let Some(raw) = self.section(&mut table, schema, "dns") {
            self.dns(&raw);
        }
        self.dns_solvers(&mut table, schema);
        let items = self.items(&mut table, schema, "issuers", Kind::Issuer);
        for (name, raw) in items {
            self.issuer(&name, &raw);
        }
        let items = self.items(&mut table, schema, "certificates", Kind::Certificate);
        for (name, raw) in items {
            self.certificate(&name, &raw);
        }
        let items = self.items(&mut table, schema, "listeners", Kind::Listener);
        for (name, raw) in items {
            self.listener(&name, &raw);
        }
        let items = self.items(&mut table, schema, "upstreams", Kind::Upstream);
        for (name, raw) in items {
            self.upstream(&name, &raw);
        }
        let items = self.items(&mut table, schema, "plugins", Kind::Policy);
        for (name, raw) in items {
            self.plugin(&name, raw);
        }
        self.policies(&mut table, schema);
        self.routes(&mut table, schema);
    }

    fn shape<'s>(&'s mut self, schema: &'s Value) -> Shape<'s> {
        Shape::new(schema, self.lines, &mut self.reading.problems)
    }

    /// A section that is one table.
    fn section<T: for<'de> Deserialize<'de>>(
        &mut self,
        table: &mut DeTable<'_>,
        schema: &Value,
        key: &str,
    ) -> Option<T> {
        let (name, _) = table.get_key_value(key)?;
        self.place(key.to_owned(), name.span());
        let mut value = table.remove(key)?;
        self.deserialize(&mut value, schema, &["properties", key], key)
    }

    /// A section that is a table of named items of one type.
    fn items<T: for<'de> Deserialize<'de>>(
        &mut self,
        table: &mut DeTable<'_>,
        schema: &Value,
        key: &str,
        kind: Kind,
    ) -> Vec<(String, T)> {
        let mut read = Vec::new();
        for (name, mut value) in self.tables(table, key, kind) {
            let pointer = ["properties", key, "additionalProperties"];
            let at = join(key, &name);
            if let Some(raw) = self.deserialize(&mut value, schema, &pointer, &at) {
                read.push((name, raw));
            }
        }
        read
    }

    /// The tables of a section of named items. Declares each name.
    fn tables<'t>(
        &mut self,
        table: &mut DeTable<'t>,
        key: &str,
        kind: Kind,
    ) -> Vec<(String, Spanned<DeValue<'t>>)> {
        let Some(value) = table.remove(key) else {
            return Vec::new();
        };
        let span = value.span();
        let DeValue::Table(items) = value.into_inner() else {
            self.error(span, format!("{key} must be a table of named tables"));
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (name_key, value) in items {
            let name = name_key.get_ref().to_string();
            let origin = self.lines.origin(name_key.span());
            self.reading
                .origins
                .insert(join(key, &name), origin.clone());
            let slot = (kind, name.clone());
            if let Some(first) = self.reading.declared.get(&slot) {
                let message = format!("the {} '{name}' is declared twice", kind.as_str());
                let help = format!("the first one is at {first}");
                self.reading
                    .problems
                    .push(Problem::error(origin, message).with_help(help));
                continue;
            }
            self.reading.declared.insert(slot, origin);
            tables.push((name, value));
        }
        tables
    }

    fn routes(&mut self, table: &mut DeTable<'_>, schema: &Value) {
        let Some(value) = table.remove("routes") else {
            return;
        };
        let span = value.span();
        let DeValue::Array(routes) = value.into_inner() else {
            self.error(span, "routes must be an array: write [[routes]]".to_owned());
            return;
        };
        for (index, mut value) in routes.into_iter().enumerate() {
            let span = value.span();
            let at = format!("routes[{index}]");
            let pointer = ["properties", "routes", "items"];
            if let Some(raw) = self.deserialize(&mut value, schema, &pointer, &at) {
                self.route(span, &raw);
            }
        }
    }

    fn deserialize<T: for<'de> Deserialize<'de>>(
        &mut self,
        value: &mut Spanned<DeValue<'_>>,
        schema: &Value,
        pointer: &[&str],
        at: &str,
    ) -> Option<T> {
        let item = pointer.iter().try_fold(schema, |value, key| value.get(key));
        if let Some(item) = item
            && !self.shape(schema).check(value, item, at)
        {
            return None;
        }
        let mut value = value.clone();
        value.get_mut().make_owned();
        match T::deserialize(ValueDeserializer::from(value.clone())) {
            Ok(raw) => Some(raw),
            // The shape was right, so this is a value that no schema describes (a date in a
            // plugin's configuration).
            Err(error) => {
                let span = error.span().unwrap_or_else(|| value.span());
                self.error(span, format!("{at}: {}", error.message()));
                None
            }
        }
    }

    fn error(&mut self, span: std::ops::Range<usize>, message: String) {
        let origin = self.lines.origin(span);
        self.reading.problems.push(Problem::error(origin, message));
    }

    fn error_with_help(&mut self, span: std::ops::Range<usize>, message: String, help: &str) {
        let origin = self.lines.origin(span);
        self.reading
            .problems
            .push(Problem::error(origin, message).with_help(help));
    }

    /// Parses one text; an error names what the text was meant to be.
    fn text<T, E: std::fmt::Display>(
        &mut self,
        text: &At<String>,
        what: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(text) {
            Ok(value) => Some(value),
            Err(error) => {
                let shown: String = text.chars().take(MAX_QUOTED).collect();
                let rest = if shown.len() < text.len() { "..." } else { "" };
                let message = format!("'{shown}{rest}' is no {what}: {error}");
                self.error(text.span(), message);
                None
            }
        }
    }

    /// A whole number in a range.
    fn number(
        &mut self,
        number: &At<i64>,
        what: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> i64 {
        if !range.contains(number) {
            let (low, high) = (range.start(), range.end());
            let message = format!("{what} must be from {low} to {high}, not {}", **number);
            self.error(number.span(), message);
            return *range.start();
        }
        **number
    }

    /// A path, relative to the file that names it.
    fn file(&mut self, text: &At<String>) -> PathBuf {
        if text.is_empty() {
            self.error(text.span(), "a file name may not be empty".to_owned());
        }
        self.dir.join(&**text)
    }

    /// A name of something that has to be declared somewhere, perhaps in another file.
    fn reference<N>(
        &mut self,
        kind: Kind,
        text: &At<String>,
        parse: impl FnOnce(&str) -> Result<N, crate::name::NameError>,
    ) -> Option<N> {
        let name = self.text(text, "name", parse)?;
        let origin = self.lines.origin(text.span());
        self.reading
            .references
            .push((kind, (**text).clone(), origin));
        Some(name)
    }

    fn place(&mut self, at: String, span: std::ops::Range<usize>) {
        let origin = self.lines.origin(span);
        self.reading.origins.insert(at, origin);
    }
}

#[cfg(test)]
mod tests;
