//! The account at an authority: one for all replicas, and made once.
//!
//! The key is kept before the authority hears of it, and that it was asked is kept before it is
//! asked: who comes after a crash looks whether there is an account before it makes one, so that a
//! binding that can be used once is used once. After that neither the binding nor its file are
//! needed.

use std::io::Read as _;
use std::path::Path;

use postern_core::config::issuer::ExternalAccountSpec;
use tokio::task::spawn_blocking;

use crate::client::Account;
use crate::client::Binding;
use crate::client::CaError;
use crate::document;
use crate::document::AccountDocument;
use crate::engine::Issuer;
use crate::key;
use crate::key::AccountKey;
use crate::key::MAX_MAC_FILE;
use crate::order::Failure;
use crate::reason::Reason;
use crate::store::Kind;
use crate::store::Store;

/// The account of an issuer; makes it if there is none.
pub(crate) async fn account(store: &dyn Store, issuer: &Issuer) -> Result<Account, Failure> {
    // Two orders that begin at once must not make two.
    let _alone = issuer.account_lock.lock().await;
    let name = issuer.name.as_str();
    let spec = &issuer.spec;
    let kept: Option<AccountDocument> = document::load(store, Kind::Account, name).await?;
    let mut kept = match kept {
        Some(kept) if kept.directory == spec.directory && !is_rotated(&kept, issuer) => kept,
        other => {
            if let Some(old) = other {
                // Certificates of it can still be revoked.
                let aside = format!("{name}.{}", document::short_hash(&old.key));
                document::save(store, Kind::Account, &aside, &old).await?;
            }
            let new = AccountDocument {
                directory: spec.directory.clone(),
                key: AccountKey::generate()?,
                ..AccountDocument::default()
            };
            document::save(store, Kind::Account, name, &new).await?;
            new
        }
    };
    let key = AccountKey::parse(&kept.key)?;
    let ca = issuer.ca.get().await?;
    if let Some(url) = &kept.url {
        return Ok(ca.account(key, url).await?);
    }
    let found = match kept.was_asked {
        true => match ca.make_account(&key, &[], None, true).await {
            Ok(url) => Some(url),
            Err(error) if error.is("accountDoesNotExist") => None,
            Err(error) => return Err(Failure::of(&error, Step::Account.reason(&error))),
        },
        false => None,
    };
    let url = match found {
        Some(url) => url,
        None => {
            let binding = match &spec.external_account {
                Some(external) => Some(binding(external).await?),
                None if ca.directory().await?.meta.external_account_required => {
                    return Err(Failure::new(
                        Reason::EabRequired,
                        format!(
                            "{} makes accounts for its customers alone; add external-account to [issuers.{name}]",
                            spec.directory
                        ),
                    ));
                }
                None => None,
            };
            kept.was_asked = true;
            kept.key_id = binding.as_ref().map(|binding| binding.key_id.clone());
            document::save(store, Kind::Account, name, &kept).await?;
            let made = ca
                .make_account(&key, &spec.contact, binding.as_ref(), false)
                .await;
            made.map_err(|error| {
                let step = match binding {
                    Some(_) => Step::BoundAccount,
                    None => Step::Account,
                };
                Failure::of(&error, step.reason(&error))
            })?
        }
    };
    kept.url = Some(url.clone());
    document::save(store, Kind::Account, name, &kept).await?;
    tracing::info!(issuer = name, account = url, "account at an issuer");
    Ok(ca.account(key, &url).await?)
}

/// Forgets where the account is, not its key: the authority says that there is none.
pub(crate) async fn forget(store: &dyn Store, issuer: &Issuer) -> Result<(), Failure> {
    let _alone = issuer.account_lock.lock().await;
    let name = issuer.name.as_str();
    let kept: Option<AccountDocument> = document::load(store, Kind::Account, name).await?;
    if let Some(mut kept) = kept {
        kept.url = None;
        document::save(store, Kind::Account, name, &kept).await?;
    }
    Ok(())
}

/// Whether another customer is configured than the account is bound to. A binding that was taken
/// out of the configuration is not missed.
fn is_rotated(kept: &AccountDocument, issuer: &Issuer) -> bool {
    let wanted = issuer.spec.external_account.as_ref();
    let wanted = wanted.map(|external| &external.key_id);
    kept.was_asked && wanted.is_some() && wanted != kept.key_id.as_ref()
}

async fn binding(external: &ExternalAccountSpec) -> Result<Binding, Failure> {
    let path = external.key_file.clone();
    let text = spawn_blocking(move || read(&path)).await;
    let text = text.unwrap_or_else(|_| Err("the gateway is ending".to_owned()));
    let file = external.key_file.display();
    let text = text.map_err(|error| {
        Failure::new(
            Reason::EabRequired,
            format!("the key of the external account cannot be read: {file}: {error}"),
        )
    })?;
    let mac = key::mac(&text)
        .map_err(|error| Failure::new(Reason::EabRefused, format!("{file}: {error}")))?;
    Ok(Binding {
        key_id: external.key_id.clone(),
        mac,
    })
}

fn read(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    let mut file = file.take(MAX_MAC_FILE);
    file.read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    Ok(text)
}

/// What was asked for, as far as it changes what a refusal means.
#[derive(Clone, Copy)]
enum Step {
    Account,
    BoundAccount,
}

impl Step {
    fn reason(self, error: &CaError) -> Reason {
        let is = |name: &str| error.is(name);
        if is("externalAccountRequired") {
            return Reason::EabRequired;
        }
        // Of a malformed request the binding is one part of several.
        let words = error.to_string().to_ascii_lowercase();
        let is_about_binding = ["binding", "external", "eab", "kid", "mac"]
            .iter()
            .any(|word| words.contains(word));
        let is_refused =
            is("unauthorized") || is("accountDoesNotExist") || is("malformed") && is_about_binding;
        if is_refused && matches!(self, Self::BoundAccount) {
            return Reason::EabRefused;
        }
        Failure::reason_of(error)
    }
}
