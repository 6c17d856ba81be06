//! Session tickets under keys from files, so that a client can resume with any replica.
//!
//! Each file is a secret of which keys are derived, others for each domain of client certificates:
//! a session that was begun in one is nothing in another. The first file encrypts, all of them
//! decrypt, so a secret is replaced in two steps without a client noticing.

use std::sync::Arc;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use aws_lc_rs::aead;
use aws_lc_rs::aead::Aad;
use aws_lc_rs::aead::LessSafeKey;
use aws_lc_rs::aead::Nonce;
use aws_lc_rs::aead::UnboundKey;
use aws_lc_rs::hkdf;
use aws_lc_rs::rand;
use rustls::server::ProducesTickets;

/// Bytes of a secret: fewer could be guessed.
pub(crate) const MIN_SECRET: usize = 32;
/// How long a ticket is good for, in seconds, as long as its secret is there.
const LIFETIME: u32 = 12 * 60 * 60;
const NAME: usize = 16;
const KEY: usize = 32;
const TIME: usize = 8;

/// Tickets of one domain.
#[derive(Debug)]
pub(super) struct SharedTickets(Vec<TicketKey>);

#[derive(Debug)]
struct TicketKey {
    /// Which key a ticket is under; says nothing about the key.
    name: [u8; NAME],
    key: LessSafeKey,
}

impl SharedTickets {
    /// `None` if a secret is too short.
    pub(super) fn new(secrets: &[Arc<[u8]>], domain: &[u8]) -> Option<Arc<Self>> {
        let keys = secrets
            .iter()
            .map(|secret| TicketKey::derive(secret, domain));
        keys.collect::<Option<Vec<_>>>()
            .map(|keys| Arc::new(Self(keys)))
    }

    fn seal(&self, state: &[u8], now: u64) -> Option<Vec<u8>> {
        let TicketKey { name, key } = self.0.first()?;
        let mut nonce = [0; aead::NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = [&now.to_be_bytes(), state].concat();
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce_used, Aad::from(name), &mut sealed)
            .ok()?;
        Some([&name[..], &nonce, &sealed].concat())
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<{ aead::NONCE_LEN }>()?;
        let TicketKey { name, key } = self.0.iter().find(|key| key.name == *name)?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = key
            .open_in_place(nonce, Aad::from(name), &mut opened)
            .ok()?;
        let (issued, state) = plain.split_first_chunk::<TIME>()?;
        // Another replica's clock may be ahead.
        let age = now.saturating_sub(u64::from_be_bytes(*issued));
        (age <= u64::from(LIFETIME)).then(|| state.to_vec())
    }
}

impl TicketKey {
    fn derive(secret: &[u8], domain: &[u8]) -> Option<Self> {
        if secret.len() < MIN_SECRET {
            return None;
        }
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"postern session tickets 1");
        let mut derived = [0; NAME + KEY];
        let info = [domain];
        salt.extract(secret)
            .expand(&info, Length)
            .and_then(|bytes| bytes.fill(&mut derived))
            .ok()?;
        let (name, key) = derived.split_first_chunk::<NAME>()?;
        let key = UnboundKey::new(&aead::AES_256_GCM, key).ok()?;
        Some(Self {
            name: *name,
            key: LessSafeKey::new(key),
        })
    }
}

struct Length;

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        NAME + KEY
    }
}

impl ProducesTickets for SharedTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, state: &[u8]) -> Option<Vec<u8>> {
        self.seal(state, unix_seconds())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, unix_seconds())
    }
}

fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> Arc<[u8]> {
        vec![byte; MIN_SECRET].into()
    }

    fn tickets(secrets: &[u8], domain: &[u8]) -> Arc<SharedTickets> {
        let secrets: Vec<_> = secrets.iter().map(|byte| secret(*byte)).collect();
        SharedTickets::new(&secrets, domain).unwrap()
    }

    #[test]
    fn a_ticket_is_good_with_each_replica_until_its_secret_is_gone() {
        let ticket = tickets(&[1], b"").seal(b"state", 1000).unwrap();
        for (secrets, want) in [(&[1][..], true), (&[2, 1], true), (&[3, 2], false)] {
            let opened = tickets(secrets, b"").open(&ticket, 1000);
            assert_eq!(opened.is_some(), want, "{secrets:?}");
        }
        let again = tickets(&[1], b"").seal(b"state", 1000).unwrap();
        assert_ne!(ticket, again, "nothing tells two clients' tickets together");
    }

    #[test]
    fn a_ticket_is_nothing_in_another_domain_or_when_it_was_changed() {
        let of = |domain| tickets(&[1], domain);
        let ticket = of(b"a").seal(b"state", 0).unwrap();
        assert_eq!(of(b"a").open(&ticket, 0).as_deref(), Some(&b"state"[..]));
        assert_eq!(of(b"b").open(&ticket, 0), None);
        assert_eq!(of(b"").open(&ticket, 0), None);
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(of(b"a").open(&changed, 0), None, "byte {at}");
            assert_eq!(of(b"a").open(&ticket[..at], 0), None, "{at} bytes");
        }
    }

    #[test]
    fn a_ticket_ends_after_its_lifetime() {
        let tickets = tickets(&[1], b"");
        let ticket = tickets.seal(b"state", 1000).unwrap();
        let end = 1000 + u64::from(LIFETIME);
        assert!(tickets.open(&ticket, end).is_some());
        assert!(tickets.open(&ticket, end + 1).is_none());
        assert!(
            tickets.open(&ticket, 900).is_some(),
            "a clock that is behind"
        );
    }

    #[test]
    fn a_secret_that_could_be_guessed_is_refused() {
        let short: Arc<[u8]> = vec![1; MIN_SECRET - 1].into();
        assert!(SharedTickets::new(&[secret(1), short], b"").is_none());
    }
}
