//! Secrets that the gateway writes itself: what it has to remember, and certificates that it got.
//!
//! They are told from others by a label, and told apart by another that says what they hold. A write
//! is of one version: one that somebody else has changed meanwhile is left as it is.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures_util::Stream;
use futures_util::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::Client;
use kube::api::DeleteParams;
use kube::api::ListParams;
use kube::api::PostParams;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher;
use tokio::time::timeout;

use crate::object::ObjectName;
use crate::writer::FIELD_MANAGER;

/// Who manages an object, by convention.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Its value for objects that are ours.
pub const OURS: &str = "postern";
/// What one of our Secrets holds.
pub const ROLE: &str = "postern.dev/role";

/// How long one call may take.
const CALL: Duration = Duration::from_secs(5);
/// How long the server keeps a watch open.
const WATCH_SECONDS: u32 = 290;
/// Secrets that are listed at once.
const PAGE: u32 = 500;

/// One Secret, as far as it matters here.
#[derive(Clone, PartialEq)]
pub struct StoredSecret {
    pub name: ObjectName,
    /// `type`.
    pub kind: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub data: BTreeMap<String, Vec<u8>>,
    /// What others have tied to it: a write replaces all of it, so they are written back.
    pub owners: Vec<OwnerReference>,
    pub finalizers: Vec<String>,
    /// As it was read; `None` of one that is not there yet.
    pub version: Option<String>,
}

/// Values must not reach a log by way of a `{:?}`.
impl fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSecret")
            .field("name", &self.name)
            .field("keys", &self.data.keys())
            .finish()
    }
}

impl StoredSecret {
    /// One that is not there yet, and holds nothing.
    pub fn new(name: ObjectName, kind: &str) -> Self {
        Self {
            name,
            kind: kind.to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            data: BTreeMap::new(),
            owners: Vec::new(),
            finalizers: Vec::new(),
            version: None,
        }
    }

    /// Whether the gateway may change it.
    pub fn is_ours(&self) -> bool {
        self.labels
            .get(MANAGED_BY)
            .is_some_and(|value| value == OURS)
    }
}

/// Why a Secret was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("somebody else has changed it meanwhile")]
    Conflict,
    #[error("RBAC does not allow it; see postern rbac --issuers")]
    Forbidden,
    #[error("the API server refuses: {0}")]
    Refused(String),
    /// It may have been done all the same.
    #[error("the API server does not answer: {0}")]
    Away(String),
}

impl SecretError {
    fn of(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status)
                if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
            {
                Self::Conflict
            }
            kube::Error::Api(status) if status.is_forbidden() => Self::Forbidden,
            kube::Error::Api(status) if status.code < 500 && status.code != 429 => {
                Self::Refused(format!("{} {}", status.code, status.message))
            }
            error => {
                // The outer levels only say that something went wrong.
                let mut cause: &dyn std::error::Error = error;
                while let Some(source) = cause.source() {
                    cause = source;
                }
                Self::Away(cause.to_string())
            }
        }
    }
}

/// What has become of the Secrets of one role.
#[derive(Debug)]
pub enum SecretNews {
    /// A whole list: there are no others.
    All(Vec<StoredSecret>),
    Changed(StoredSecret),
    Gone(ObjectName),
}

/// The Secrets that a client may read and write.
#[derive(Clone)]
pub struct Secrets {
    client: Client,
}

impl Secrets {
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    fn api(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// `None` if there is none.
    pub async fn get(&self, name: &ObjectName) -> Result<Option<StoredSecret>, SecretError> {
        let api = self.api(&name.namespace);
        let found = within(api.get_opt(&name.name)).await?;
        Ok(found.and_then(stored))
    }

    /// Creates it, or replaces the version that it says; its new version.
    pub async fn put(&self, secret: &StoredSecret) -> Result<Option<String>, SecretError> {
        let api = self.api(&secret.name.namespace);
        let data = secret.data.iter();
        let data = data.map(|(key, bytes)| (key.clone(), ByteString(bytes.clone())));
        let object = Secret {
            metadata: ObjectMeta {
                name: Some(secret.name.name.to_string()),
                namespace: Some(secret.name.namespace.to_string()),
                labels: Some(secret.labels.clone()),
                annotations: Some(secret.annotations.clone()),
                owner_references: Some(secret.owners.clone()).filter(|all| !all.is_empty()),
                finalizers: Some(secret.finalizers.clone()).filter(|all| !all.is_empty()),
                resource_version: secret.version.clone(),
                ..ObjectMeta::default()
            },
            type_: Some(secret.kind.clone()),
            data: Some(data.collect()),
            ..Secret::default()
        };
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let written = match secret.version {
            Some(_) => within(api.replace(&secret.name.name, &params, &object)).await?,
            None => within(api.create(&params, &object)).await?,
        };
        Ok(written.metadata.resource_version)
    }

    /// One that is not there is gone.
    pub async fn delete(&self, name: &ObjectName) -> Result<(), SecretError> {
        let api = self.api(&name.namespace);
        let params = DeleteParams::default();
        let delete = async {
            match api.delete(&name.name, &params).await {
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                Err(error) => Err(error),
                Ok(_) => Ok(()),
            }
        };
        within(delete).await
    }

    /// All of one role.
    pub async fn list(
        &self,
        namespace: &str,
        role: &str,
    ) -> Result<Vec<StoredSecret>, SecretError> {
        let api = self.api(namespace);
        let mut params = ListParams::default()
            .labels(&format!("{ROLE}={role}"))
            .limit(PAGE);
        let mut all = Vec::new();
        loop {
            let page = within(api.list(&params)).await?;
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            all.extend(page.items.into_iter().filter_map(stored));
            if params.continue_token.is_none() {
                return Ok(all);
            }
        }
    }

    /// What becomes of those of one role, for as long as it is asked. What goes wrong is tried again
    /// without end, ever slower.
    pub fn follow(
        &self,
        namespace: &str,
        role: &'static str,
    ) -> impl Stream<Item = SecretNews> + Send + use<> {
        let config = watcher::Config::default()
            .labels(&format!("{ROLE}={role}"))
            .timeout(WATCH_SECONDS);
        let mut listing = Vec::new();
        let mut is_well = true;
        let events = watcher(self.api(namespace), config).default_backoff();
        events.filter_map(move |event| {
            if event.is_ok() {
                is_well = true;
            }
            let news = match event {
                Ok(watcher::Event::Init) => {
                    listing.clear();
                    None
                }
                Ok(watcher::Event::InitApply(secret)) => {
                    listing.extend(stored(secret));
                    None
                }
                Ok(watcher::Event::InitDone) => Some(SecretNews::All(std::mem::take(&mut listing))),
                Ok(watcher::Event::Apply(secret)) => stored(secret).map(SecretNews::Changed),
                Ok(watcher::Event::Delete(secret)) => {
                    stored(secret).map(|secret| SecretNews::Gone(secret.name))
                }
                Err(error) => {
                    if std::mem::take(&mut is_well) {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(role, error, "Secrets of the gateway are not watched");
                    }
                    None
                }
            };
            std::future::ready(news)
        })
    }
}

async fn within<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, SecretError> {
    match timeout(CALL, call).await {
        Ok(result) => result.map_err(|error| SecretError::of(&error)),
        Err(_) => Err(SecretError::Away(format!("no answer within {CALL:?}"))),
    }
}

fn stored(secret: Secret) -> Option<StoredSecret> {
    let metadata = secret.metadata;
    let data = secret.data.unwrap_or_default().into_iter();
    Some(StoredSecret {
        name: ObjectName::new(&metadata.namespace?, &metadata.name?),
        kind: secret.type_.unwrap_or_default(),
        labels: metadata.labels.unwrap_or_default(),
        annotations: metadata.annotations.unwrap_or_default(),
        data: data.map(|(key, bytes)| (key, bytes.0)).collect(),
        owners: metadata.owner_references.unwrap_or_default(),
        finalizers: metadata.finalizers.unwrap_or_default(),
        version: metadata.resource_version,
    })
}
