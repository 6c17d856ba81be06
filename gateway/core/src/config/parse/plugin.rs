//! The meaning of a plugin's section: its source, its limits, its grants.

use http::StatusCode;

use super::FileReader;
use super::Kind;
use super::raw::At;
use super::raw::RawGrants;
use super::raw::RawIsolation;
use super::raw::RawOnError;
use super::raw::RawPlugin;
use super::raw::RawSecret;
use crate::config::plugin::Grants;
use crate::config::plugin::Isolation;
use crate::config::plugin::OnError;
use crate::config::plugin::PluginLimits;
use crate::config::plugin::PluginSpec;
use crate::config::plugin::SecretSource;
use crate::config::policy::PolicySpec;
use crate::name::UpstreamName;

const PLUGIN_MEMORY: std::ops::RangeInclusive<u64> = (64 << 10)..=(4 << 30);
/// A body is held whole, for each request that waits for its plugin.
const PLUGIN_BODY: std::ops::RangeInclusive<u64> = (1 << 10)..=(64 << 20);
const SHARED_STATE: std::ops::RangeInclusive<u64> = (4 << 10)..=(1 << 30);
const MAX_CALLOUTS: i64 = 1000;
/// Longest name of a secret, in bytes.
const MAX_SECRET_NAME: usize = 64;

impl FileReader<'_> {
    pub(super) fn plugin(&mut self, name: &str, raw: RawPlugin) {
        let at = format!("plugins.{name}");
        let source = self.plugin_source(&at, &raw);
        let on_error = raw.on_error.as_ref().and_then(|raw| self.on_error(raw));
        let mut limits = PluginLimits::default();
        if let Some(raw) = &raw.limits {
            self.duration(raw.cpu.as_ref(), &mut limits.cpu);
            self.duration(raw.time.as_ref(), &mut limits.time);
            self.count(
                raw.instances.as_ref(),
                "instances",
                10_000,
                &mut limits.instances,
            );
            self.count(
                raw.log_lines.as_ref(),
                "log-lines",
                100_000,
                &mut limits.log_lines,
            );
            if let Some(text) = &raw.memory
                && let Some(size) = self.size(text, PLUGIN_MEMORY)
            {
                limits.memory = size;
            }
            if let Some(text) = &raw.body
                && let Some(size) = self.size(text, PLUGIN_BODY)
            {
                limits.body = size;
            }
            self.count(
                raw.callouts.as_ref(),
                "callouts",
                MAX_CALLOUTS,
                &mut limits.callouts,
            );
        }
        let grants = raw.grants.as_ref();
        let grants = grants.map_or_else(Grants::default, |raw| self.grants(&at, raw));
        let config: serde_json::Map<String, serde_json::Value> = raw.config.into_iter().collect();
        let spec = PluginSpec {
            source,
            config: serde_json::Value::Object(config).to_string(),
            on_error: on_error.unwrap_or_default(),
            isolation: match raw.isolation {
                None | Some(RawIsolation::Plugin) => Isolation::Plugin,
                Some(RawIsolation::Request) => Isolation::Request,
            },
            limits,
            grants,
        };
        self.policy_spec(&at, name, PolicySpec::Plugin(spec));
    }

    pub(super) fn on_error(&mut self, raw: &At<RawOnError>) -> Option<OnError> {
        let found = match &**raw {
            RawOnError::Word(word) => match word.as_str() {
                "deny" => return Some(OnError::Deny),
                "allow" => return Some(OnError::Allow),
                _ => format!("'{word}'"),
            },
            RawOnError::Status(status) => {
                let known = u16::try_from(*status)
                    .ok()
                    .filter(|status| (400..=599).contains(status))
                    .and_then(|status| StatusCode::from_u16(status).ok());
                match known {
                    Some(status) => return Some(OnError::Status(status)),
                    None => status.to_string(),
                }
            }
        };
        self.error_with_help(
            raw.span(),
            format!("on-error cannot be {found}"),
            "write \"deny\", \"allow\" or a status from 400 to 599",
        );
        None
    }

    fn grants(&mut self, at: &str, raw: &RawGrants) -> Grants {
        let upstreams = raw.upstreams.iter();
        let upstreams = upstreams
            .filter_map(|text| self.reference(Kind::Upstream, text, UpstreamName::parse))
            .collect();
        let mut grants = Grants {
            upstreams,
            challenges: raw.challenges,
            dns: raw.dns,
            ..Grants::default()
        };
        for (name, secret) in &raw.secrets {
            let at = format!("{at}.grants.secrets.{}", **name);
            self.place(at, secret.span());
            if name.is_empty() || name.len() > MAX_SECRET_NAME {
                let message = format!("a secret's name has 1 to {MAX_SECRET_NAME} characters");
                self.error(name.span(), message);
            }
            if let Some(source) = self.secret_source(secret) {
                grants.secrets.insert((**name).clone(), source);
            }
        }
        grants.shared_state = raw
            .shared_state
            .as_ref()
            .and_then(|text| self.size(text, SHARED_STATE));
        grants
    }

    fn secret_source(&mut self, raw: &At<RawSecret>) -> Option<SecretSource> {
        match (&raw.file, &raw.env) {
            (Some(file), None) => Some(SecretSource::File(self.file(file))),
            (None, Some(name)) if name.is_empty() || name.contains(['=', '\0']) => {
                self.error(name.span(), format!("'{}' is no variable", **name));
                None
            }
            (None, Some(name)) => Some(SecretSource::Env((**name).clone())),
            (Some(_), Some(_)) | (None, None) => {
                self.error_with_help(
                    raw.span(),
                    "a secret has one source".to_owned(),
                    "write { file = \"PATH\" } or { env = \"NAME\" }",
                );
                None
            }
        }
    }
}
