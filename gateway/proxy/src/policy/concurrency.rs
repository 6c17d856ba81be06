//! Bounds how many requests may be in flight at once.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use foldhash::quality::RandomState;
use postern_core::config::policy::limit::ConcurrencySpec;
use postern_core::config::policy::limit::LimitKey;
use postern_core::policy::concurrency::Acquired;
use postern_core::policy::concurrency::ConcurrencyTable;
use postern_core::policy::concurrency::Place;

use super::native::Reply;
use super::native::Turn;

const REASON: &str = "concurrency";

pub(super) struct Concurrency {
    spec: ConcurrencySpec,
    table: Arc<ConcurrencyTable>,
    /// Seeded, so that nobody can choose keys that share a place.
    hasher: RandomState,
}

/// One request in flight, until it is dropped.
pub(crate) struct Permit {
    table: Arc<ConcurrencyTable>,
    place: Place,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.table.release(self.place);
    }
}

impl Concurrency {
    pub(super) fn new(spec: ConcurrencySpec) -> Self {
        let keys = if spec.key == LimitKey::All {
            1
        } else {
            spec.keys
        };
        Self {
            table: Arc::new(ConcurrencyTable::new(spec.requests, keys)),
            hasher: RandomState::default(),
            spec,
        }
    }

    pub(super) fn on_request(&self, turn: &mut Turn<'_>) -> Option<Reply> {
        let key = self
            .spec
            .key
            .of(&turn.exchange.request.headers, turn.client);
        match self.table.acquire(self.hasher.hash_one(key)) {
            Acquired::At(place) => {
                let table = Arc::clone(&self.table);
                turn.effects.permits.push(Permit { table, place });
                None
            }
            Acquired::Uncounted => None,
            Acquired::TooMany => Some(turn.refuse(self.spec.status, REASON)),
        }
    }
}
