//! What is kept, as it is kept: JSON that a later version still reads.

use serde::Deserialize;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::Seconds;
use crate::store::Kind;
use crate::store::Store;
use crate::store::StoreError;

/// Longest name of a document; the names of files end at 255 bytes.
const MAX_NAME: usize = 160;

/// An account, or the key of one that is about to be.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct AccountDocument {
    pub(crate) directory: String,
    /// PKCS#8 in base64url. Kept before the authority hears of it.
    pub(crate) key: String,
    /// Of the account, once there is one.
    pub(crate) url: Option<String>,
    /// Whether the authority may have made one already.
    pub(crate) was_asked: bool,
    /// The customer that it is bound to.
    pub(crate) key_id: Option<String>,
}

/// A certificate that was verified.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct CertificateDocument {
    pub(crate) issuer: String,
    pub(crate) directory: String,
    pub(crate) profile: Option<String>,
    pub(crate) key_type: String,
    /// PEM, as the authority sent it.
    pub(crate) chain: String,
    /// PEM.
    pub(crate) key: String,
    pub(crate) issued_at: Seconds,
    /// When the authority wants it renewed, by its last word.
    pub(crate) window: Option<WindowDocument>,
    /// When it is asked for that again.
    pub(crate) ask_at: Seconds,
}

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct WindowDocument {
    pub(crate) start: Seconds,
    pub(crate) end: Seconds,
    pub(crate) explanation: Option<String>,
}

/// An order on its way, and how earlier ones went.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct OrderDocument {
    pub(crate) issuer: String,
    pub(crate) directory: String,
    /// What the order is for; empty in documents of versions that did not say.
    pub(crate) hosts: Vec<String>,
    /// Of the certificate that is wanted, PEM. Kept before the order is placed.
    pub(crate) key: String,
    pub(crate) key_type: String,
    pub(crate) url: Option<String>,
    /// The URL of the account that orders.
    pub(crate) account: Option<String>,
    /// Whether the authority may have made an order whose URL is not known.
    pub(crate) was_asked: bool,
    /// The certificate that this one replaces, where the authority was told.
    pub(crate) replaces: Option<String>,
    /// What was published for it.
    pub(crate) published: Vec<Published>,
    /// In a row.
    pub(crate) failures: u32,
    pub(crate) first_failed_at: Option<Seconds>,
    /// Looks at the DNS in vain, in a row.
    pub(crate) waits: u32,
    pub(crate) next_try: Seconds,
    pub(crate) trouble: Option<Trouble>,
    /// What was asked of whom, in short: another configuration is worth another try.
    pub(crate) asked_as: String,
    /// Since when the authority has been working on it.
    pub(crate) validating_since: Option<Seconds>,
}

/// Something that a CA may look for, to be taken back afterwards.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Published {
    /// A challenge document, by its token.
    Token(String),
    /// A TXT record.
    Record { name: String, value: String },
}

/// Why there is no certificate yet.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Trouble {
    /// One of the closed list.
    pub reason: String,
    pub message: String,
    /// The CA's own words.
    pub problem: Option<String>,
    /// What the hostmaster has to add.
    pub record: Option<String>,
    pub at: Seconds,
}

/// A challenge, for every replica that may be asked.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct ChallengeDocument {
    pub(crate) kind: String,
    pub(crate) host: String,
    pub(crate) token: String,
    pub(crate) authorization: String,
    /// After which it is swept away.
    pub(crate) expires: Seconds,
}

pub(crate) async fn load<T: DeserializeOwned>(
    store: &dyn Store,
    kind: Kind,
    name: &str,
) -> Result<Option<T>, StoreError> {
    match store.load(kind, name).await? {
        Some(bytes) => parse(kind, name, &bytes).map(Some),
        None => Ok(None),
    }
}

pub(crate) fn parse<T: DeserializeOwned>(
    kind: Kind,
    name: &str,
    bytes: &[u8],
) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError {
        place: format!("{}/{name}", kind.as_str()),
        // Where it is malformed, and nothing of what it holds.
        error: format!(
            "malformed at line {}, column {}; put it back from a backup, or delete it to begin anew",
            error.line(),
            error.column()
        ),
    })
}

pub(crate) async fn save<T: Serialize>(
    store: &dyn Store,
    kind: Kind,
    name: &str,
    document: &T,
) -> Result<(), StoreError> {
    let bytes = serde_json::to_vec_pretty(document).map_err(|error| StoreError {
        place: format!("{}/{name}", kind.as_str()),
        error: error.to_string(),
    })?;
    store.save(kind, name, bytes).await
}

/// The name of the documents of a certificate: by what it is for, so that a certificate that was
/// renamed in a configuration is found again.
pub fn name_of(hosts: &[String]) -> String {
    match hosts {
        [host] if host.len() <= MAX_NAME => host.clone(),
        hosts => {
            let first = hosts.first().map_or("", String::as_str);
            let first: String = first.chars().take(MAX_NAME / 2).collect();
            format!("{first}+{}", short_hash(&hosts.join(",")))
        }
    }
}

/// Sixteen hexadecimal digits.
pub fn short_hash(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    let digits = digest.as_ref().iter().take(8);
    digits.map(|byte| format!("{byte:02x}")).collect()
}
