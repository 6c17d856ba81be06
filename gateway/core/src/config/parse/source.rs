//! The meaning of a plugin's `source`, with `sha256` and `fetch` beside it.

use super::FileReader;
use super::raw::At;
use super::raw::RawFetch;
use super::raw::RawPlugin;
use crate::config::Problem;
use crate::config::plugin::PluginSource;
use crate::config::source::Digest;
use crate::config::source::FetchSpec;
use crate::config::source::HttpUrl;
use crate::config::source::Location;
use crate::config::source::LoginSpec;
use crate::config::source::OciReference;
use crate::config::source::RemoteSource;
use crate::config::source::SourceError;

const KINDS: &str = "name a file, https://... with sha256, or oci://registry/repository@sha256:...";
const HOW_TO_HASH: &str = "add sha256 = \"...\", as sha256sum prints it";
const HOW_TO_PIN: &str = "`postern plugin push` prints the reference of what it pushed";

impl FileReader<'_> {
    /// A source that cannot be read is a problem, and then what is returned is never used.
    pub(super) fn plugin_source(&mut self, at: &str, raw: &RawPlugin) -> PluginSource {
        self.place(format!("{at}.source"), raw.source.span());
        let text = &raw.source;
        let scheme = text.split_once("://");
        let location = match scheme {
            None => {
                if let Some(sha256) = &raw.sha256 {
                    let message = "sha256 is for sources that are fetched; this one is a file";
                    self.error(sha256.span(), message.to_owned());
                }
                if let Some(fetch) = &raw.fetch {
                    let message = "fetch is for sources that are fetched; this one is a file";
                    self.error(fetch.span(), message.to_owned());
                }
                return PluginSource::File(self.file(text));
            }
            Some(("https" | "http", _)) => self.https(text, raw.sha256.as_ref()),
            Some(("oci", reference)) => {
                if let Some(sha256) = &raw.sha256 {
                    let message = "an oci source has its digest behind '@'; sha256 is for https";
                    self.error(sha256.span(), message.to_owned());
                }
                self.oci(text, reference)
            }
            Some((scheme, _)) => {
                let message = format!("a plugin cannot be fetched by '{scheme}'");
                self.error_with_help(text.span(), message, KINDS);
                None
            }
        };
        let fetch = self.fetch(at, raw.fetch.as_ref(), location.as_ref());
        let Some(location) = location else {
            return PluginSource::File(self.dir.to_owned());
        };
        self.check_clear_text(text, &location, &fetch);
        PluginSource::Remote(RemoteSource { location, fetch })
    }

    fn https(&mut self, text: &At<String>, sha256: Option<&At<String>>) -> Option<Location> {
        let url = match HttpUrl::parse(text) {
            // What is quoted is logged, and this holds a password.
            Err(error @ SourceError::UserInfo) => {
                self.error(text.span(), error.to_string());
                return None;
            }
            parsed => self.text(text, "source", |_| parsed),
        };
        let Some(sha256) = sha256 else {
            let message = "a source of https needs the digest of what is meant".to_owned();
            self.error_with_help(text.span(), message, HOW_TO_HASH);
            return None;
        };
        let digest = self.text(sha256, "digest", Digest::parse);
        Some(Location::Https {
            url: url?,
            digest: digest?,
        })
    }

    fn oci(&mut self, text: &At<String>, reference: &str) -> Option<Location> {
        match OciReference::parse(reference) {
            Ok(reference) => Some(Location::Oci(reference)),
            Err(error @ SourceError::NotPinned) => {
                let message = format!("'{}' is no source: {error}", &**text);
                self.error_with_help(text.span(), message, HOW_TO_PIN);
                None
            }
            Err(error) => self.text(text, "source", |_| Err(error)),
        }
    }

    fn fetch(
        &mut self,
        at: &str,
        raw: Option<&At<RawFetch>>,
        location: Option<&Location>,
    ) -> FetchSpec {
        // A registry on this machine is a registry under test: nobody has a certificate for it.
        let is_local = matches!(location, Some(Location::Oci(oci)) if oci.name.is_loopback());
        let Some(raw) = raw else {
            return FetchSpec {
                plain_http: is_local,
                ..FetchSpec::default()
            };
        };
        self.place(format!("{at}.fetch"), raw.span());
        let ca_file = raw.ca_file.as_ref().map(|text| {
            self.place(format!("{at}.fetch.ca-file"), text.span());
            self.file(text)
        });
        let login = match (&raw.user, &raw.password_file, &raw.docker_config) {
            (None, None, None) => None,
            (Some(user), Some(file), None) => Some(LoginSpec::Password {
                user: (**user).clone(),
                file: self.file(file),
            }),
            (None, None, Some(file)) => Some(LoginSpec::DockerConfig(self.file(file))),
            _ => {
                let message = "a login is user and password-file, or docker-config".to_owned();
                self.error(raw.span(), message);
                None
            }
        };
        if let Some(LoginSpec::Password { user, .. }) = &login
            && (user.is_empty() || user.contains(|c: char| c == ':' || c.is_control()))
        {
            // RFC 7617, 2: the colon ends the user's name.
            let span = raw.user.as_ref().map_or_else(|| raw.span(), At::span);
            self.error(span, "a user is not empty and holds no ':'".to_owned());
        }
        FetchSpec {
            login,
            plain_http: raw
                .plain_http
                .unwrap_or_else(|| is_local && ca_file.is_none()),
            ca_file,
        }
    }

    fn check_clear_text(&mut self, text: &At<String>, location: &Location, fetch: &FetchSpec) {
        let (leaves, is_asked) = match location {
            Location::Https { url, .. } => (url.is_in_the_clear(), fetch.plain_http),
            // Spoken in clear text only where that was asked for, or stays on this machine.
            Location::Oci(oci) => (fetch.plain_http && !oci.name.is_loopback(), true),
        };
        if leaves && !is_asked {
            let message = "this source would be fetched in clear text".to_owned();
            let help = "write https://, or allow it with fetch = { plain-http = true }";
            self.error_with_help(text.span(), message, help);
        } else if leaves && fetch.login.is_some() {
            let origin = self.lines.origin(text.span());
            let message = "the password for this source is sent in clear text";
            self.reading
                .problems
                .push(Problem::warning(origin, message));
        }
    }
}
