//! What is kept of orders and accounts, in Secrets of the gateway's own namespace; and certificates
//! for Ingresses, in the Secrets that those name.
//!
//! One replica writes. A write is of the version that was read before it: if two believe to be the
//! one, the later of them loses its write, and not what the other has written.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use futures_util::future::BoxFuture;
use postern_acme::document::short_hash;
use postern_acme::store::Kind;
use postern_acme::store::Store;
use postern_acme::store::StoreError;
use postern_kube::ObjectName;
use postern_kube::secrets::MANAGED_BY;
use postern_kube::secrets::OURS;
use postern_kube::secrets::ROLE;
use postern_kube::secrets::SecretError;
use postern_kube::secrets::Secrets;
use postern_kube::secrets::StoredSecret;
use serde_json::Value;
use tokio::time::Instant;
use tokio::time::sleep;

/// What our Secrets hold, as the label of their role says.
pub(super) const CHALLENGES: &str = "acme-challenge";
pub(super) const CERTIFICATES: &str = "acme-certificate";
/// The name of the document that a Secret holds.
const NAME: &str = "postern.dev/document";
/// What is known of a certificate beside what clients see of it.
const CERTIFICATE: &str = "postern.dev/certificate";
const DOCUMENT: &str = "document";
const OPAQUE: &str = "Opaque";
const TLS: &str = "kubernetes.io/tls";
const CHAIN: &str = "tls.crt";
const KEY: &str = "tls.key";
/// Keys of a document of a certificate that stand in data of their own.
const CHAIN_FIELD: &str = "chain";
const KEY_FIELD: &str = "key";
/// How long a write is tried while the API server does not answer: what cannot be written is an
/// order that is lost.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(500);
/// How often one write meets another.
const MAX_CONFLICTS: usize = 3;

pub(super) struct SecretStore {
    secrets: Secrets,
    /// The gateway's own.
    namespace: String,
    /// Versions as they were last read or written here.
    versions: Mutex<HashMap<ObjectName, String>>,
}

impl SecretStore {
    pub(super) fn new(secrets: Secrets, namespace: String) -> Self {
        Self {
            secrets,
            namespace,
            versions: Mutex::default(),
        }
    }

    /// Where a document is kept.
    pub(super) fn place(&self, kind: Kind, name: &str) -> ObjectName {
        match (kind, name.split_once('/')) {
            (Kind::Certificate, Some((namespace, secret))) => ObjectName::new(namespace, secret),
            _ => {
                let name = format!("postern-acme-{}-{}", kind.as_str(), short_hash(name));
                ObjectName::new(&self.namespace, &name)
            }
        }
    }

    fn versions(&self) -> MutexGuard<'_, HashMap<ObjectName, String>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, name: &ObjectName, version: Option<String>) {
        let mut versions = self.versions();
        match version {
            Some(version) => versions.insert(name.clone(), version),
            None => versions.remove(name),
        };
    }

    async fn read(&self, kind: Kind, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let place = self.place(kind, name);
        let found = self.secrets.get(&place).await;
        let found = found.map_err(|error| failed(&place, &error))?;
        self.note(
            &place,
            found.as_ref().and_then(|found| found.version.clone()),
        );
        let Some(found) = found else {
            return Ok(None);
        };
        if is_of_ingress(kind, name) {
            return Ok(found.is_ours().then(|| document_of(&found)));
        }
        match document(&found) {
            Some((known, bytes)) if known == name => Ok(Some(bytes.to_vec())),
            _ => Err(StoreError {
                place: place.to_string(),
                error: "it does not hold what its name says".to_owned(),
            }),
        }
    }

    async fn write(&self, kind: Kind, name: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        let place = self.place(kind, name);
        if is_of_ingress(kind, name) {
            let current = self.secrets.get(&place).await;
            let current = current.map_err(|error| failed(&place, &error))?;
            if current.as_ref().is_some_and(|current| !current.is_ours()) {
                return Err(StoreError {
                    place: place.to_string(),
                    error: "somebody else provides it".to_owned(),
                });
            }
            let secret = secret_of(place, current, &bytes)?;
            return self.put(secret, false).await;
        }
        let labels = [
            (MANAGED_BY.to_owned(), OURS.to_owned()),
            (ROLE.to_owned(), format!("acme-{}", kind.as_str())),
        ];
        let version = self.versions().get(&place).cloned();
        let secret = StoredSecret {
            labels: labels.into(),
            annotations: [(NAME.to_owned(), name.to_owned())].into(),
            data: [(DOCUMENT.to_owned(), bytes)].into(),
            version,
            ..StoredSecret::new(place, OPAQUE)
        };
        // What a token is answered with is the same whoever writes it.
        self.put(secret, kind == Kind::Challenge).await
    }

    async fn put(&self, mut secret: StoredSecret, overwrites: bool) -> Result<(), StoreError> {
        let end = Instant::now() + PATIENCE;
        let mut conflicts = 0;
        loop {
            let error = match self.secrets.put(&secret).await {
                Ok(version) => {
                    self.note(&secret.name, version);
                    return Ok(());
                }
                Err(error) => error,
            };
            match error {
                SecretError::Conflict if conflicts < MAX_CONFLICTS => {
                    conflicts += 1;
                    let found = self.secrets.get(&secret.name).await;
                    let found = found.map_err(|error| failed(&secret.name, &error))?;
                    match found {
                        // An earlier try has arrived.
                        Some(found) if found.data == secret.data => {
                            self.note(&secret.name, found.version);
                            return Ok(());
                        }
                        Some(found) if overwrites => secret.version = found.version,
                        // It was deleted.
                        None if secret.version.is_some() => secret.version = None,
                        _ => {
                            self.note(&secret.name, None);
                            return Err(failed(&secret.name, &SecretError::Conflict));
                        }
                    }
                }
                SecretError::Away(_) if Instant::now() < end => sleep(PAUSE).await,
                error => {
                    // One that is away has what it had: the next write is of that version.
                    if !matches!(error, SecretError::Away(_)) {
                        self.note(&secret.name, None);
                    }
                    return Err(failed(&secret.name, &error));
                }
            }
        }
    }
}

impl Store for SecretStore {
    fn load<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        Box::pin(self.read(kind, name))
    }

    fn save<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
        bytes: Vec<u8>,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(self.write(kind, name, bytes))
    }

    fn delete<'a>(&'a self, kind: Kind, name: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let place = self.place(kind, name);
            let deleted = self.secrets.delete(&place).await;
            deleted.map_err(|error| failed(&place, &error))?;
            self.note(&place, None);
            Ok(())
        })
    }

    fn list(&self, kind: Kind) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        Box::pin(async move {
            let role = format!("acme-{}", kind.as_str());
            let listed = self.secrets.list(&self.namespace, &role).await;
            let listed = listed.map_err(|error| StoreError {
                place: format!("Secrets of {}", self.namespace),
                error: error.to_string(),
            })?;
            let names = listed.iter().filter_map(document);
            let mut names: Vec<String> = names.map(|(name, _)| name.to_owned()).collect();
            names.sort();
            Ok(names)
        })
    }

    fn provider<'a>(
        &'a self,
        certificate: &'a str,
    ) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        Box::pin(async move {
            if !is_of_ingress(Kind::Certificate, certificate) {
                return Ok(None);
            }
            let place = self.place(Kind::Certificate, certificate);
            let found = self.secrets.get(&place).await;
            let found = found.map_err(|error| failed(&place, &error))?;
            let is_foreign = found.is_some_and(|found| !found.is_ours());
            Ok(is_foreign.then(|| {
                format!("the Secret {place} has no label {MANAGED_BY}={OURS}: it is served and never written")
            }))
        })
    }
}

/// The document that a Secret of our own namespace holds, and its name.
pub(super) fn document(secret: &StoredSecret) -> Option<(&str, &[u8])> {
    let name = secret.annotations.get(NAME)?;
    let bytes = secret.data.get(DOCUMENT)?;
    Some((name, bytes))
}

fn is_of_ingress(kind: Kind, name: &str) -> bool {
    kind == Kind::Certificate && name.contains('/')
}

/// The document of a certificate that stands in a Secret as clients of the API expect it.
fn document_of(secret: &StoredSecret) -> Vec<u8> {
    let rest = secret.annotations.get(CERTIFICATE);
    let rest = rest.and_then(|text| serde_json::from_str(text).ok());
    // One that somebody has spoiled is as good as none: the certificate is not as it is wanted.
    let mut fields = match rest {
        Some(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let text = |key: &str| {
        let bytes = secret.data.get(key);
        let text = bytes.and_then(|bytes| String::from_utf8(bytes.clone()).ok());
        Value::String(text.unwrap_or_default())
    };
    fields.insert(CHAIN_FIELD.to_owned(), text(CHAIN));
    fields.insert(KEY_FIELD.to_owned(), text(KEY));
    Value::Object(fields).to_string().into_bytes()
}

/// The reverse. What others have put into the Secret stays.
fn secret_of(
    place: ObjectName,
    current: Option<StoredSecret>,
    bytes: &[u8],
) -> Result<StoredSecret, StoreError> {
    let malformed = || StoreError {
        place: place.to_string(),
        error: "what is to be kept is no certificate".to_owned(),
    };
    let Ok(Value::Object(mut fields)) = serde_json::from_slice(bytes) else {
        return Err(malformed());
    };
    let mut take = |key: &str| match fields.remove(key) {
        Some(Value::String(text)) => Ok(text.into_bytes()),
        _ => Err(malformed()),
    };
    let (chain, key) = (take(CHAIN_FIELD)?, take(KEY_FIELD)?);
    let mut secret = current.unwrap_or_else(|| StoredSecret::new(place, TLS));
    secret.labels.insert(MANAGED_BY.to_owned(), OURS.to_owned());
    let rest = Value::Object(fields).to_string();
    secret.annotations.insert(CERTIFICATE.to_owned(), rest);
    secret.data.insert(CHAIN.to_owned(), chain);
    secret.data.insert(KEY.to_owned(), key);
    Ok(secret)
}

fn failed(place: &ObjectName, error: &SecretError) -> StoreError {
    StoreError {
        place: format!("the Secret {place}"),
        error: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_read_back_and_what_others_added_stays() {
        let document = serde_json::json!({
            "issuer": "a", "directory": "https://a.test", "chain": "CHAIN", "key": "KEY",
            "issued_at": 7,
        });
        let place = ObjectName::new("shop", "web-tls");
        let bytes = document.to_string().into_bytes();
        let mut secret = secret_of(place.clone(), None, &bytes).unwrap();
        assert!(secret.is_ours());
        assert_eq!(secret.kind, TLS);
        assert_eq!(secret.data[CHAIN], b"CHAIN");
        let rest = &secret.annotations[CERTIFICATE];
        assert!(!rest.contains("KEY") && !rest.contains("CHAIN"), "{rest}");
        secret.labels.insert("team".to_owned(), "web".to_owned());
        secret.data.insert("ca.crt".to_owned(), b"CA".to_vec());
        secret.finalizers.push("example.test/kept".to_owned());
        let again = secret_of(place.clone(), Some(secret), &bytes).unwrap();
        assert_eq!(again.labels["team"], "web");
        assert_eq!(again.data["ca.crt"], b"CA");
        assert_eq!(again.finalizers, ["example.test/kept"]);
        let back: Value = serde_json::from_slice(&document_of(&again)).unwrap();
        assert_eq!(back, document);
        assert!(secret_of(place, None, b"junk").is_err());
        assert!(!format!("{again:?}").contains("KEY\""));
    }

    #[test]
    fn what_was_spoiled_is_a_document_all_the_same() {
        let place = ObjectName::new("shop", "web-tls");
        let document = serde_json::json!({ "chain": "C", "key": "K" });
        let mut secret = secret_of(place, None, document.to_string().as_bytes()).unwrap();
        secret.data.insert(CHAIN.to_owned(), vec![0xff]);
        secret
            .annotations
            .insert(CERTIFICATE.to_owned(), "[".to_owned());
        let back: Value = serde_json::from_slice(&document_of(&secret)).unwrap();
        assert_eq!(back, serde_json::json!({ "chain": "", "key": "K" }));
    }
}
