//! sha256crypt and sha512crypt, as `openssl passwd -5`, `-6` and `htpasswd -2`, `-5` make them.
//!
//! Written after the specification by Ulrich Drepper ("Unix crypt using SHA-256 and SHA-512"),
//! whose vectors are the test.

use sha2::Digest;
use sha2::Sha256;
use sha2::Sha512;

/// Rounds where a hash does not say.
const DEFAULT_ROUNDS: u32 = 5000;
const MIN_ROUNDS: u32 = 1000;
/// 8 ms of a processor that does nothing else, of the 50 that a call has unless it is given more.
pub(crate) const MAX_ROUNDS: u32 = 10_000;
/// Longest salt that counts.
const MAX_SALT: usize = 16;
/// Longest password; the work grows with it.
const MAX_PASSWORD: usize = 256;

/// A hash with what it takes to make it again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Crypt {
    kind: Kind,
    rounds: u32,
    salt: String,
    hash: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Sha256,
    Sha512,
}

impl Crypt {
    /// Reads `$5$SALT$HASH` or `$6$rounds=N$SALT$HASH`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (kind, rest) = if let Some(rest) = text.strip_prefix("$5$") {
            (Kind::Sha256, rest)
        } else if let Some(rest) = text.strip_prefix("$6$") {
            (Kind::Sha512, rest)
        } else if text.starts_with("$2") {
            return Err(
                "bcrypt takes more processor time than a plugin's call has; the built-in policy \
                 basic-auth reads it, or make the hash with `openssl passwd -6`"
                    .to_owned(),
            );
        } else {
            return Err(
                "not a hash of sha256crypt ($5$) or sha512crypt ($6$); make one with \
                 `openssl passwd -6`"
                    .to_owned(),
            );
        };
        let (rounds, rest) = match rest.strip_prefix("rounds=") {
            Some(rest) => {
                let (digits, rest) = rest.split_once('$').ok_or("the hash is cut short")?;
                let rounds: u32 = digits.parse().map_err(|_| "rounds is not a number")?;
                if !(MIN_ROUNDS..=MAX_ROUNDS).contains(&rounds) {
                    return Err(format!("rounds must be from {MIN_ROUNDS} to {MAX_ROUNDS}"));
                }
                (rounds, rest)
            }
            None => (DEFAULT_ROUNDS, rest),
        };
        let (salt, hash) = rest.split_once('$').ok_or("the hash is cut short")?;
        let length = match kind {
            Kind::Sha256 => 43,
            Kind::Sha512 => 86,
        };
        let is_char = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'/';
        if hash.len() != length || !hash.bytes().all(is_char) {
            return Err(format!(
                "the hash has to have {length} characters of ./0-9A-Za-z"
            ));
        }
        if salt.is_empty() || salt.len() > MAX_SALT {
            return Err(format!("the salt has to have 1 to {MAX_SALT} characters"));
        }
        Ok(Self {
            kind,
            rounds,
            salt: salt.to_owned(),
            hash: hash.to_owned(),
        })
    }

    /// Whether this is the password; takes the same time wherever it differs.
    pub(crate) fn verify(&self, password: &str) -> bool {
        if password.len() > MAX_PASSWORD {
            return false;
        }
        let made = self
            .kind
            .hash(password.as_bytes(), self.salt.as_bytes(), self.rounds);
        let pairs = made.bytes().zip(self.hash.bytes());
        made.len() == self.hash.len() && pairs.fold(0, |all, (a, b)| all | (a ^ b)) == 0
    }
}

impl Kind {
    fn hash(self, password: &[u8], salt: &[u8], rounds: u32) -> String {
        match self {
            Self::Sha256 => encode(&digest::<Sha256>(password, salt, rounds), &sha256_order()),
            Self::Sha512 => encode(&digest::<Sha512>(password, salt, rounds), &sha512_order()),
        }
    }
}

/// Steps 1 to 21 of the specification.
fn digest<D: Digest>(password: &[u8], salt: &[u8], rounds: u32) -> Vec<u8> {
    let b = D::new()
        .chain_update(password)
        .chain_update(salt)
        .chain_update(password)
        .finalize();
    let mut a = D::new().chain_update(password).chain_update(salt);
    repeat(&mut a, &b, password.len());
    let mut length = password.len();
    while length > 0 {
        if length & 1 == 1 {
            a.update(&b);
        } else {
            a.update(password);
        }
        length >>= 1;
    }
    let a = a.finalize();

    let mut dp = D::new();
    for _ in 0..password.len() {
        dp.update(password);
    }
    let p = repeated(&dp.finalize(), password.len());
    let mut ds = D::new();
    for _ in 0..16 + usize::from(a[0]) {
        ds.update(salt);
    }
    let s = repeated(&ds.finalize(), salt.len());

    let mut last = a.to_vec();
    for round in 0..rounds {
        let is_odd = round & 1 == 1;
        let mut c = D::new();
        c.update(if is_odd { &p } else { &last });
        if round % 3 != 0 {
            c.update(&s);
        }
        if round % 7 != 0 {
            c.update(&p);
        }
        c.update(if is_odd { &last } else { &p });
        last.copy_from_slice(&c.finalize());
    }
    last
}

/// The first `length` bytes of `bytes` over and over.
fn repeated(bytes: &[u8], length: usize) -> Vec<u8> {
    bytes.iter().copied().cycle().take(length).collect()
}

fn repeat<D: Digest>(into: &mut D, bytes: &[u8], length: usize) {
    into.update(repeated(bytes, length));
}

/// Three bytes make four characters, the lowest bits first; what is left over makes fewer.
fn encode(digest: &[u8], order: &[usize]) -> String {
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = String::with_capacity(86);
    for group in order.chunks(3) {
        let mut bits = 0_u32;
        for at in group {
            bits = bits << 8 | u32::from(digest[*at]);
        }
        for _ in 0..=group.len() {
            text.push(char::from(ALPHABET[(bits & 63) as usize]));
            bits >>= 6;
        }
    }
    text
}

/// The order in which the bytes of a digest are written: step 22.
fn sha256_order() -> Vec<usize> {
    let mut order = Vec::with_capacity(32);
    let mut group = [0, 10, 20];
    for _ in 0..10 {
        order.extend(group);
        group = [group[2] + 1, group[0] + 1, group[1] + 1].map(|at| at % 30);
    }
    order.extend([31, 30]);
    order
}

fn sha512_order() -> Vec<usize> {
    let mut order = Vec::with_capacity(64);
    let mut group = [0, 21, 42];
    for _ in 0..21 {
        order.extend(group);
        group = [group[1] + 1, group[2] + 1, group[0] + 1].map(|at| at % 63);
    }
    order.push(63);
    order
}

#[cfg(test)]
mod tests;
