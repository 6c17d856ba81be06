//! Who the gateway says that it is to a server: from a password file, or from what `docker login`
//! wrote. Read at each attempt, so that a rotated password is used without a reload.

use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use postern_core::config::source::LoginSpec;
use serde_json::Value;

use super::error::FetchError;
use crate::source::file::read_small;

/// Largest password, with its line end.
const MAX_PASSWORD_BYTES: u64 = 16 << 10;
/// Largest file of logins.
const MAX_DOCKER_CONFIG_BYTES: u64 = 1 << 20;
/// The name under which `docker login` keeps the login of Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// A user with a password.
#[derive(Clone, Eq, PartialEq)]
pub(super) struct Login {
    user: String,
    password: String,
}

impl Login {
    /// The login for a host, if there is one. Blocks.
    pub(super) fn read(spec: &LoginSpec, host: &str) -> Result<Option<Self>, FetchError> {
        match spec {
            LoginSpec::Password { user, file } => {
                let password = read_text(file, MAX_PASSWORD_BYTES);
                let password = password.map_err(|source| FetchError::Password {
                    path: file.clone(),
                    source,
                })?;
                Ok(Some(Self {
                    user: user.clone(),
                    password: password.trim_end_matches(['\r', '\n']).to_owned(),
                }))
            }
            LoginSpec::DockerConfig(path) => {
                let failed = |what| FetchError::DockerConfig {
                    path: path.clone(),
                    what,
                };
                let text = read_text(path, MAX_DOCKER_CONFIG_BYTES);
                let text = text.map_err(|source| FetchError::Password {
                    path: path.clone(),
                    source,
                })?;
                of_docker_config(&text, host).map_err(failed)
            }
            LoginSpec::HeldDockerConfig(held) => {
                let failed = |what| FetchError::DockerConfig {
                    path: Path::new("pull-secret").to_owned(),
                    what,
                };
                let text = std::str::from_utf8(held).map_err(|_| failed("it is no text"))?;
                of_docker_config(text, host).map_err(failed)
            }
        }
    }

    /// RFC 7617.
    pub(super) fn basic(&self) -> Option<HeaderValue> {
        let pair = format!("{}:{}", self.user, self.password);
        let text = format!("Basic {}", BASE64_STANDARD.encode(pair));
        let mut value = HeaderValue::try_from(text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

fn of_docker_config(text: &str, host: &str) -> Result<Option<Login>, &'static str> {
    let config: Value = serde_json::from_str(text).map_err(|_| "it is not JSON")?;
    let auths = config.get("auths").and_then(Value::as_object);
    let entry = auths.and_then(|auths| {
        let is_for = |key: &str| {
            let key_host = key.split_once("://").map_or(key, |(_, rest)| rest);
            key_host.split('/').next() == Some(host)
                || key == DOCKER_HUB && matches!(host, "docker.io" | "registry-1.docker.io")
        };
        auths.iter().find(|(key, _)| is_for(key))
    });
    let Some((_, entry)) = entry else {
        let has_helper = config.get("credsStore").is_some() || config.get("credHelpers").is_some();
        return match has_helper {
            true => Err("it leaves the login to a helper program, which is not run"),
            false => Ok(None),
        };
    };
    let field = |name: &str| entry.get(name).and_then(Value::as_str);
    if let (Some(user), Some(password)) = (field("username"), field("password")) {
        return Ok(Some(Login {
            user: user.to_owned(),
            password: password.to_owned(),
        }));
    }
    let Some(auth) = field("auth").filter(|auth| !auth.is_empty()) else {
        return Err("the entry of this registry has neither auth nor username and password");
    };
    let decoded = BASE64_STANDARD.decode(auth).ok();
    let pair = decoded.and_then(|pair| String::from_utf8(pair).ok());
    let Some((user, password)) = pair.as_deref().and_then(|pair| pair.split_once(':')) else {
        return Err("the auth of this registry is not base64 of a user and a password");
    };
    Ok(Some(Login {
        user: user.to_owned(),
        // Some tools pad it so.
        password: password.trim_end_matches('\0').to_owned(),
    }))
}

fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    let bytes = read_small(path, limit)?;
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_docker_config_has_a_login_for_its_hosts_alone() {
        let text = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
            "ghcr.io": {"username": "me", "password": "a:b"},
            "127.0.0.1:5000": {"auth": "bG9jYWw6cDp3"},
            "broken.test": {"auth": "%%"},
            "empty.test": {}
        }}"#;
        let cases = [
            ("ghcr.io", Ok(Some(("me", "a:b")))),
            ("127.0.0.1:5000", Ok(Some(("local", "p:w")))),
            ("127.0.0.1:5001", Ok(None)),
            ("registry-1.docker.io", Ok(Some(("hub", "pw")))),
            ("evil.test", Ok(None)),
            ("broken.test", Err(())),
            ("empty.test", Err(())),
        ];
        for (host, want) in cases {
            let got = of_docker_config(text, host);
            let got = got.as_ref().map_err(|_| ()).map(|login| {
                let login = login.as_ref();
                login.map(|login| (login.user.as_str(), login.password.as_str()))
            });
            assert_eq!(got, want, "{host}");
        }
        assert!(of_docker_config(r#"{"credsStore": "desktop"}"#, "a.test").is_err());
        assert!(of_docker_config("[", "a.test").is_err());
    }
}
