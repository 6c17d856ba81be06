//! Basic auth: asks for a name and a password (RFC 7617).
//!
//! The users come from a secret in the form of `htpasswd`, with hashes of the kinds that `crypt(5)`
//! calls sha256crypt and sha512crypt. A hash is made to be slow, so an instance remembers for each
//! user which password was right, as a keyed digest in memory; a wrong one costs the hash each time.

use std::cell::Cell;
use std::cell::RefCell;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postern_plugin::Action;
use postern_plugin::Fault;
use postern_plugin::Plugin;
use postern_plugin::Reply;
use postern_plugin::Request;
use postern_plugin::Setup;
use postern_plugin::config;
use postern_plugin::crypto;
use postern_plugin::crypto::DigestAlgorithm;
use postern_plugin::crypto::Key;
use postern_plugin::log;
use postern_plugin::random;
use postern_plugin::secrets;

mod crypt;

use crypt::Crypt;

/// Longest name and password together.
const MAX_CREDENTIALS: usize = 512;
/// Users of one secret.
const MAX_USERS: usize = 10_000;

/// The policy, configured.
pub struct BasicAuth {
    challenge: String,
    user_header: Option<String>,
    keeps_credentials: bool,
    /// Sorted by name.
    users: Vec<User>,
    /// What a user that is not there is compared with, so that the answer takes as long.
    decoy: Crypt,
    /// Of this instance alone: the digests below are of no use elsewhere.
    key: Key,
}

struct User {
    name: String,
    hash: Crypt,
    remembered: RefCell<Option<Vec<u8>>>,
    is_reported: Cell<bool>,
}

impl Plugin for BasicAuth {
    fn configure(config: &str, setup: &mut Setup) -> Result<Self, String> {
        setup.request_view(["authorization"]);
        config::read(config, |config| {
            let secret = config.get("users").text();
            let realm = config.get("realm").parsed(|realm| {
                // Between quotes in the field (RFC 9110, 11.5).
                let is_char = |c: char| c == ' ' || (c.is_ascii_graphic() && c != '"' && c != '\\');
                match realm.chars().all(is_char) {
                    true => Ok(realm.to_owned()),
                    false => Err("must be ASCII without quotes and backslashes".to_owned()),
                }
            });
            let user_header = config.get("user-header").field_name();
            let keeps_credentials = config.get("keep-credentials").flag();
            let secret = secret.unwrap_or_else(|| "users".to_owned());
            let users = match read_users(&secret) {
                Ok(users) => users,
                Err(problems) => return config.wrong(&problems),
            };
            let realm = realm.unwrap_or_else(|| "restricted".to_owned());
            let decoy = users.first().map(|user| user.hash.clone());
            Some(Self {
                challenge: format!("Basic realm=\"{realm}\", charset=\"UTF-8\""),
                user_header,
                keeps_credentials: keeps_credentials.unwrap_or(false),
                decoy: decoy?,
                users,
                key: Key::Bytes(random::bytes(32)),
            })
        })
    }

    fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
        let authorization = request.get("authorization");
        if let Some(header) = &self.user_header {
            // Whatever happens next: nobody says this of themselves.
            request.remove(header)?;
        }
        let credentials = authorization.as_deref().and_then(credentials);
        let user = match &credentials {
            Some((name, password)) => self.check(name, password)?,
            None => None,
        };
        let Some(user) = user else {
            let reply = Reply::text(401, "a name and a password are needed\n")
                .header("www-authenticate", self.challenge.as_str())
                .header("cache-control", "no-store");
            return Ok(reply.into());
        };
        if !self.keeps_credentials {
            request.remove("authorization")?;
        }
        if let Some(header) = &self.user_header {
            request.set(header, &user.name)?;
        }
        Ok(Action::Next)
    }
}

impl BasicAuth {
    fn check(&self, name: &str, password: &str) -> Result<Option<&User>, Fault> {
        let found = self
            .users
            .binary_search_by(|user| user.name.as_str().cmp(name));
        let Some(user) = found.ok().and_then(|at| self.users.get(at)) else {
            self.decoy.verify(password);
            return Ok(None);
        };
        let digest = crypto::hmac(DigestAlgorithm::Sha256, &self.key, password.as_bytes())?;
        let is_remembered = match user.remembered.borrow().as_deref() {
            Some(remembered) => crypto::equal(remembered, &digest),
            None => false,
        };
        if is_remembered {
            return Ok(Some(user));
        }
        if !user.hash.verify(password) {
            // One line a user and instance: a guesser is not to fill the log.
            if !user.is_reported.replace(true) {
                log::info("a wrong password", &[("user", name)]);
            }
            return Ok(None);
        }
        user.is_reported.set(false);
        user.remembered.replace(Some(digest));
        Ok(Some(user))
    }
}

/// Name and password of a field's value.
fn credentials(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > MAX_CREDENTIALS * 4 / 3 {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (name, password) = decoded.split_once(':')?;
    Some((name.to_owned(), password.to_owned()))
}

/// The lines of a secret: `NAME:HASH`, empty ones, and comments.
fn read_users(secret: &str) -> Result<Vec<User>, String> {
    let text = secrets::get(secret).ok_or_else(|| {
        format!("users: there is no secret \"{secret}\"; grant one with grants.secrets.{secret}")
    })?;
    let text = String::from_utf8(text).map_err(|_| format!("secret {secret}: not UTF-8"))?;
    let mut users = Vec::new();
    let mut problems = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = match line.split_once(':') {
            Some(("", _)) | None => Err("must be NAME:HASH".to_owned()),
            // It may have to be the value of a field.
            Some((name, _)) if name.trim() != name || name.contains(char::is_control) => {
                Err("the name has a control character, or a space before the colon".to_owned())
            }
            Some((name, hash)) => Crypt::parse(hash).map(|hash| User {
                name: name.to_owned(),
                hash,
                remembered: RefCell::default(),
                is_reported: Cell::default(),
            }),
        };
        match parsed {
            Ok(user) => users.push(user),
            // Never the line itself: it may hold a password in clear text.
            Err(message) => {
                problems.push(format!("secret {secret}, line {}: {message}", index + 1))
            }
        }
    }
    problems.truncate(10);
    if users.len() > MAX_USERS {
        problems.push(format!("secret {secret}: more than {MAX_USERS} users"));
    }
    users.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pair) = users.windows(2).find(|pair| pair[0].name == pair[1].name) {
        problems.push(format!(
            "secret {secret}: \"{}\" is there twice",
            pair[0].name
        ));
    }
    if users.is_empty() && problems.is_empty() {
        problems.push(format!("secret {secret}: there is no user in it"));
    }
    if problems.is_empty() {
        Ok(users)
    } else {
        Err(problems.join("; "))
    }
}

postern_plugin::export!(BasicAuth: request);

#[cfg(test)]
mod tests;
