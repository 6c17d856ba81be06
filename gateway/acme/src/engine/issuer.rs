//! An issuer as it is used: its client, its account, its ledger.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use postern_core::config::IssuerSpec;
use postern_core::name::IssuerName;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use crate::client::Ca;
use crate::clock::Clock;
use crate::dns::DnsClient;
use crate::dns::DnsSolver;
use crate::dns::preflight::Preflight;
use crate::document;
use crate::http::Http;
use crate::http::HttpError;
use crate::ledger::Ledger;
use crate::order::Failure;
use crate::reason::Reason;
use crate::store::Kind;
use crate::store::Store;
use crate::store::StoreError;

/// Largest file of root certificates.
const MAX_ROOTS: u64 = 4 << 20;

pub struct Issuer {
    pub name: IssuerName,
    pub spec: IssuerSpec,
    /// Looks at names before an order; `None` places orders without looking.
    pub preflight: Option<Arc<dyn Preflight>>,
    /// Writes TXT records; `None` where nothing does.
    pub solver: Option<Arc<dyn DnsSolver>>,
    /// Reads the records that stay; `None` where none can be used.
    pub records: Option<DnsClient>,
    pub(crate) ca: LazyCa,
    /// One account is made at a time.
    pub(crate) account_lock: Mutex<()>,
    /// One change of the ledger at a time.
    ledger_lock: Mutex<()>,
}

/// A client that is made when it is first needed, and again if that failed or what it trusts has
/// changed: a file that it wants may come later, and roots are replaced.
pub(crate) struct LazyCa {
    spec: IssuerSpec,
    clock: Clock,
    made: Mutex<Option<Made>>,
}

struct Made {
    ca: Arc<Ca>,
    /// What it trusts, as it was read; `None`: the roots of the system.
    roots: Option<Vec<u8>>,
}

impl Issuer {
    pub fn new(name: IssuerName, spec: IssuerSpec, clock: Clock) -> Self {
        Self {
            name,
            preflight: None,
            solver: None,
            records: None,
            ca: LazyCa {
                spec: spec.clone(),
                clock,
                made: Mutex::default(),
            },
            spec,
            account_lock: Mutex::new(()),
            ledger_lock: Mutex::new(()),
        }
    }

    pub(crate) async fn ledger(&self, store: &dyn Store) -> Result<Ledger, StoreError> {
        let name = self.name.as_str();
        let kept: Option<Ledger> = document::load(store, Kind::Ledger, name).await?;
        // Another authority has counted nothing of it.
        let kept = kept.filter(|kept| kept.directory == self.spec.directory);
        Ok(kept.unwrap_or_else(|| Ledger::new(&self.spec.directory)))
    }

    /// What the change answers.
    pub(crate) async fn change_ledger<T>(
        &self,
        store: &dyn Store,
        change: impl FnOnce(&mut Ledger) -> T,
    ) -> Result<T, StoreError> {
        let _alone = self.ledger_lock.lock().await;
        let mut ledger = self.ledger(store).await?;
        let answer = change(&mut ledger);
        document::save(store, Kind::Ledger, self.name.as_str(), &ledger).await?;
        Ok(answer)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Issuer").field(&self.name).finish()
    }
}

impl LazyCa {
    pub(crate) async fn get(&self) -> Result<Arc<Ca>, Failure> {
        let failed = |error: HttpError| Failure::new(Reason::IssuerUnreachable, error.to_string());
        let mut made = self.made.lock().await;
        let roots = match self.roots().await {
            Ok(roots) => roots,
            Err(error) => {
                // What was read before is trusted on.
                let kept = made.as_ref().map(|made| Arc::clone(&made.ca));
                return kept.ok_or_else(|| failed(error));
            }
        };
        if let Some(made) = made.as_ref().filter(|made| made.roots == roots) {
            return Ok(Arc::clone(&made.ca));
        }
        let of = roots.clone();
        let http = spawn_blocking(move || Http::new(of.as_deref())).await;
        let http = match http.unwrap_or_else(|_| Err(ending())) {
            Ok(http) => http,
            Err(error) => {
                let kept = made.as_ref().map(|made| Arc::clone(&made.ca));
                return kept.ok_or_else(|| failed(error));
            }
        };
        let ca = Ca::new(self.spec.directory.clone(), http, self.clock.clone());
        let ca = Arc::new(ca);
        let new = Arc::clone(&ca);
        *made = Some(Made { ca, roots });
        Ok(new)
    }

    async fn roots(&self) -> Result<Option<Vec<u8>>, HttpError> {
        let Some(path) = self.spec.ca_file.clone() else {
            return Ok(None);
        };
        let reading = spawn_blocking(move || {
            read(&path).map(Some).map_err(|error| HttpError::Roots {
                error: format!("{}: {error}", path.display()),
            })
        });
        reading.await.unwrap_or_else(|_| Err(ending()))
    }
}

fn ending() -> HttpError {
    HttpError::Roots {
        error: "the gateway is ending".to_owned(),
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_ROOTS).read_to_end(&mut bytes)?;
    Ok(bytes)
}
