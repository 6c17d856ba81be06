//! Files of users, and the hashes that such files hold.
//!
//! Whoever makes a file now makes it with `htpasswd -B`. The other kinds are here because files of
//! them exist: a gateway that takes over from another one takes over its users.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Digest as _;
use md5::Md5;
use sha_crypt::Sha256Params;
use sha_crypt::Sha512Params;

use super::native::PolicyError;

/// Highest cost of a bcrypt hash: 14 takes a second.
const MAX_COST: u32 = 14;
/// Most rounds of a SHA-crypt hash: they take about as long.
const MAX_ROUNDS: usize = 1_000_000;
/// Rounds of one that does not say.
const DEFAULT_ROUNDS: usize = 5000;
/// Users of one file.
const MAX_USERS: usize = 100_000;

/// A hashed password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Hash {
    kind: Kind,
    /// Of the hashes of a kind, one with a higher cost takes longer.
    cost: usize,
    /// As it is in the file.
    text: Arc<str>,
}

/// From the cheapest to the most expensive one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Kind {
    /// `{SHA}`: SHA-1 without salt.
    Sha1,
    /// `$apr1$` and `$1$`.
    Md5,
    /// `$5$`.
    Sha256,
    /// `$6$`.
    Sha512,
    /// `$2y$` and its siblings.
    Bcrypt,
}

/// `user:hash` in each line, unless it is empty or a comment.
pub(super) fn parse_users(file: &[u8]) -> Result<HashMap<String, Hash>, PolicyError> {
    let text = std::str::from_utf8(file).map_err(|_| PolicyError::NotText)?;
    let mut users = HashMap::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = index + 1;
        let (user, hash) = line.split_once(':').ok_or(PolicyError::UserLine(at))?;
        if user.is_empty() || users.len() == MAX_USERS {
            return Err(PolicyError::UserLine(at));
        }
        users.insert(user.to_owned(), Hash::parse(hash, at)?);
    }
    Ok(users)
}

impl Hash {
    fn parse(text: &str, line: usize) -> Result<Self, PolicyError> {
        let kinds = [
            ("{SHA}", Kind::Sha1),
            ("$apr1$", Kind::Md5),
            ("$1$", Kind::Md5),
            ("$5$", Kind::Sha256),
            ("$6$", Kind::Sha512),
            ("$2y$", Kind::Bcrypt),
            ("$2b$", Kind::Bcrypt),
            ("$2a$", Kind::Bcrypt),
        ];
        let kind = kinds.iter().find(|(prefix, _)| text.starts_with(prefix));
        let &(_, kind) = kind.ok_or(PolicyError::UserHash(line))?;
        let malformed = || PolicyError::UserLine(line);
        let mut cost = 0;
        match kind {
            Kind::Bcrypt => {
                let parts: bcrypt::HashParts = text.parse().map_err(|_| malformed())?;
                if parts.get_cost() > MAX_COST {
                    return Err(PolicyError::UserCost(line, MAX_COST));
                }
                cost = parts.get_cost() as usize;
            }
            Kind::Sha256 | Kind::Sha512 => {
                let parts = ShaParts::of(text).ok_or_else(malformed)?;
                if parts.rounds > MAX_ROUNDS {
                    return Err(PolicyError::UserRounds(line, MAX_ROUNDS));
                }
                cost = parts.rounds;
                // One that the implementation does not take would never be right.
                parts.hash(kind, b"").ok_or_else(malformed)?;
            }
            Kind::Md5 => {
                let (_, _, hash) = md5_parts(text).ok_or_else(malformed)?;
                if hash.len() != 22 {
                    return Err(malformed());
                }
            }
            Kind::Sha1 => {
                let hash = STANDARD.decode(&text["{SHA}".len()..]);
                if hash.map_or(0, |hash| hash.len()) != digest::SHA1_OUTPUT_LEN {
                    return Err(malformed());
                }
            }
        }
        let text = text.into();
        Ok(Self { kind, cost, text })
    }

    /// Whether another hash takes no longer than this one.
    pub(super) fn is_as_slow_as(&self, other: &Self) -> bool {
        (self.kind, self.cost) >= (other.kind, other.cost)
    }

    /// Takes as long as the hash is made to take: away from the workers.
    pub(super) fn verify(&self, password: &[u8]) -> bool {
        let text = &*self.text;
        let (hashed, expected) = match self.kind {
            Kind::Bcrypt => return bcrypt::verify(password, text).unwrap_or(false),
            Kind::Sha256 | Kind::Sha512 => {
                let parts = ShaParts::of(text);
                let hashed = parts.as_ref().and_then(|p| p.hash(self.kind, password));
                (hashed, parts.map(|parts| parts.hash))
            }
            Kind::Md5 => {
                let parts = md5_parts(text);
                let hashed = parts.map(|(magic, salt, _)| md5_crypt(magic, salt, password));
                (hashed, parts.map(|(_, _, hash)| hash))
            }
            Kind::Sha1 => {
                let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password);
                (Some(STANDARD.encode(digest)), text.strip_prefix("{SHA}"))
            }
        };
        let (Some(hashed), Some(expected)) = (hashed, expected) else {
            return false;
        };
        verify_slices_are_equal(hashed.as_bytes(), expected.as_bytes()).is_ok()
    }
}

/// `$5$rounds=10000$salt$hash`; the rounds may be left out.
struct ShaParts<'t> {
    rounds: usize,
    salt: &'t str,
    hash: &'t str,
}

impl<'t> ShaParts<'t> {
    fn of(text: &'t str) -> Option<Self> {
        let (rest, hash) = text.get(3..)?.rsplit_once('$')?;
        let (rounds, salt) = match rest.strip_prefix("rounds=") {
            Some(rest) => {
                let (rounds, salt) = rest.split_once('$')?;
                (rounds.parse().ok()?, salt)
            }
            None => (DEFAULT_ROUNDS, rest),
        };
        let is_plain = !salt.contains('$') && salt.len() <= 16 && !hash.is_empty();
        is_plain.then_some(Self { rounds, salt, hash })
    }

    fn hash(&self, kind: Kind, password: &[u8]) -> Option<String> {
        let salt = self.salt.as_bytes();
        if kind == Kind::Sha256 {
            let params = Sha256Params::new(self.rounds).ok()?;
            sha_crypt::sha256_crypt_b64(password, salt, &params).ok()
        } else {
            let params = Sha512Params::new(self.rounds).ok()?;
            sha_crypt::sha512_crypt_b64(password, salt, &params).ok()
        }
    }
}

/// `$apr1$salt$hash`.
fn md5_parts(text: &str) -> Option<(&str, &str, &str)> {
    let end = text.get(1..)?.find('$')? + 2;
    let (magic, rest) = text.split_at(end);
    let (salt, hash) = rest.split_once('$')?;
    (salt.len() <= 8 && !hash.contains('$')).then_some((magic, salt, hash))
}

/// Crypt with MD5, as in FreeBSD and, with another `magic`, in Apache.
fn md5_crypt(magic: &str, salt: &str, password: &[u8]) -> String {
    let digest = |parts: &[&[u8]]| {
        let mut context = Md5::new();
        parts.iter().for_each(|part| context.update(part));
        <[u8; 16]>::from(context.finalize())
    };
    let (magic, salt) = (magic.as_bytes(), salt.as_bytes());
    let other = digest(&[password, salt, password]);
    let mut context = Md5::new();
    context.update(password);
    context.update(magic);
    context.update(salt);
    let mut left = password.len();
    while left > 0 {
        context.update(&other[..left.min(other.len())]);
        left = left.saturating_sub(other.len());
    }
    let mut bits = password.len();
    while bits > 0 {
        match bits & 1 {
            1 => context.update([0]),
            _ => context.update(&password[..1]),
        }
        bits >>= 1;
    }
    let mut last = <[u8; 16]>::from(context.finalize());
    for round in 0..1000 {
        let is_odd = round % 2 == 1;
        let first: &[u8] = if is_odd { password } else { &last };
        let second: &[u8] = if round % 3 == 0 { b"" } else { salt };
        let third: &[u8] = if round % 7 == 0 { b"" } else { password };
        let fourth: &[u8] = if is_odd { &last } else { password };
        last = digest(&[first, second, third, fourth]);
    }
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = String::with_capacity(22);
    let mut write = |bytes: [u8; 3], count: usize| {
        let mut bits = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
        for _ in 0..count {
            text.push(char::from(ALPHABET[(bits & 63) as usize]));
            bits >>= 6;
        }
    };
    for [a, b, c] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        write([last[a], last[b], last[c]], 4);
    }
    write([0, 0, last[11]], 2);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6u7b1XOWKqA7XZANDrnv4IVny/8ABNR66";

    #[test]
    fn each_kind_of_hash_is_that_of_its_password() {
        // Made with `openssl passwd` and crypt(3).
        let long = "a-much-longer-password-than-sixteen-bytes";
        for (password, text) in [
            ("secret pass", "$apr1$saltsalt$uIbLp.Mh5hd4rAde.oXXS."),
            ("secret pass", "$1$saltsalt$cIrgcdXxo0mpb22wHphLq1"),
            ("", "$apr1$x$tMwYqBfQwi3FYAr0aJc8M/"),
            (long, "$apr1$12345678$/Az/qRqc4UNrNHoqSr0bJ1"),
            (
                "secret pass",
                "$5$saltsalt$49/9YFbpUJeeKmhYqhW2979avhxSQ228IAIaALKs.a9",
            ),
            (
                "secret pass",
                "$6$saltsalt$2SX99CLXfgNtck/wz/iTBSo0ZppJqfrO.TVXU.zE5LOVLcjA8ItNsdkimGDe1yNWQ8eQPMdoTvM7hLGy/7Ccc1",
            ),
            (
                "secret pass",
                "$5$rounds=10000$abc$DTisi9ra/Z6aYp6JK77xbvpf.H6DPYEg3S6WhTBqcE.",
            ),
            (
                "secret pass",
                "$6$rounds=1500$0123456789abcdef$ICFWfgQGWQHJb.ECgc8tUsDiw4cV2S0KMgMLnvCN8zlDLxhHSeGkvzkpQNcPzEWQUL9XHHbQXpW5QB6FjZDxt/",
            ),
            ("secret pass", "{SHA}O1hAcUlX7zkBbV+/3rmbDfUlbNM="),
        ] {
            let hash = Hash::parse(text, 1).unwrap();
            assert!(hash.verify(password.as_bytes()), "{text}");
            for wrong in ["", "secret", "secret pass ", "Secret pass"] {
                let is_right = hash.verify(wrong.as_bytes());
                assert_eq!(is_right, wrong == password, "{text} {wrong}");
            }
        }
    }

    #[test]
    fn a_file_of_users_is_read_whole_or_refused_by_line() {
        let good = format!("# staff\n\nann:{ANN}\n bob:{{SHA}}O1hAcUlX7zkBbV+/3rmbDfUlbNM= \n");
        let users = parse_users(good.as_bytes()).unwrap();
        assert_eq!(users.len(), 2);
        assert!(users["ann"].is_as_slow_as(&users["bob"]));
        assert!(!users["bob"].is_as_slow_as(&users["ann"]));
        let cheaper = Hash::parse(&ANN.replace("$05$", "$04$"), 1).unwrap();
        assert!(users["ann"].is_as_slow_as(&cheaper));
        assert!(!cheaper.is_as_slow_as(&users["ann"]));
        let cases = [
            ("ann".to_owned(), "line 1"),
            (format!("ann:{ANN}\n:{ANN}"), "line 2"),
            ("ann:secret".to_owned(), "line 1"),
            ("ann:{SSHA}c2VjcmV0".to_owned(), "line 1"),
            ("ann:$apr1$x$y".to_owned(), "line 1"),
            ("ann:$apr1$x".to_owned(), "line 1"),
            (
                "ann:$apr1$123456789$tMwYqBfQwi3FYAr0aJc8M/".to_owned(),
                "line 1",
            ),
            ("ann:{SHA}x".to_owned(), "line 1"),
            ("ann:$5$".to_owned(), "line 1"),
            ("ann:$5$rounds=x$salt$hash".to_owned(), "line 1"),
            ("ann:$6$rounds=1000001$salt$hash".to_owned(), "line 1"),
            ("ann:$2y$05$short".to_owned(), "line 1"),
            (format!("ann:{}", ANN.replace("$05$", "$15$")), "line 1"),
        ];
        for (file, place) in cases {
            let error = parse_users(file.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(place), "{file}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(parse_users(b"\xff").is_err());
    }
}
