//! What was asked of an issuer lately, so that its limits are kept and its pauses are not forgotten.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use crate::clock::DAY;
use crate::clock::Seconds;

/// What limits are counted over (Let's Encrypt: seven days).
const WEEK: Seconds = 7 * DAY;
/// Orders of one domain that are remembered; a share cannot be counted beyond it.
const MAX_REMEMBERED: usize = 2000;

/// One issuer's.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Ledger {
    /// Of the authority that was asked.
    pub(crate) directory: String,
    /// When certificates were ordered, by registered domain.
    orders: BTreeMap<String, Vec<Seconds>>,
    /// Until when nothing is ordered, by registered domain.
    pauses: BTreeMap<String, Seconds>,
}

impl Ledger {
    pub(crate) fn new(directory: &str) -> Self {
        Self {
            directory: directory.to_owned(),
            ..Self::default()
        }
    }

    /// When the next certificate for names of these domains may be ordered: now, if not later.
    /// `share`: new certificates in seven days for each.
    pub(crate) fn free_at<'d>(
        &self,
        domains: impl Iterator<Item = &'d str>,
        share: Option<u32>,
        now: Seconds,
    ) -> Seconds {
        let free = domains.map(|domain| {
            let recent = self.recent(domain, now);
            let share = share.map_or(usize::MAX, |share| share as usize);
            // When the oldest of those that fill the share is forgotten.
            let over = recent.len().checked_sub(share);
            over.and_then(|over| recent.get(over))
                .map_or(now, |at| at + WEEK)
        });
        free.max().unwrap_or(now).max(now)
    }

    /// Until when the issuer wants to hear nothing of these domains.
    pub(crate) fn paused_until<'d>(&self, domains: impl Iterator<Item = &'d str>) -> Seconds {
        let pauses = domains.filter_map(|domain| self.pauses.get(domain));
        pauses.max().copied().unwrap_or(0)
    }

    pub(crate) fn ordered<'d>(&mut self, domains: impl Iterator<Item = &'d str>, now: Seconds) {
        for domain in domains {
            let orders = self.orders.entry(domain.to_owned()).or_default();
            orders.push(now);
            if orders.len() > MAX_REMEMBERED {
                orders.remove(0);
            }
        }
        self.forget(now);
    }

    /// Forgets an order of this moment.
    pub(crate) fn refused<'d>(&mut self, domains: impl Iterator<Item = &'d str>, at: Seconds) {
        for domain in domains {
            let orders = self.orders.get_mut(domain);
            if let Some(orders) = orders
                && let Some(position) = orders.iter().rposition(|order| *order == at)
            {
                orders.remove(position);
            }
        }
    }

    pub(crate) fn pause<'d>(
        &mut self,
        domains: impl Iterator<Item = &'d str>,
        until: Seconds,
        now: Seconds,
    ) {
        for domain in domains {
            self.pauses.insert(domain.to_owned(), until);
        }
        self.forget(now);
    }

    fn recent(&self, domain: &str, now: Seconds) -> &[Seconds] {
        let orders = self.orders.get(domain).map_or(&[][..], Vec::as_slice);
        // A clock that was set back must not make old orders count for ever.
        let first = orders
            .iter()
            .position(|at| at + WEEK > now && *at <= now + DAY);
        first
            .and_then(|first| orders.get(first..))
            .unwrap_or_default()
    }

    fn forget(&mut self, now: Seconds) {
        self.pauses.retain(|_, until| *until > now);
        self.orders.retain(|_, orders| {
            orders.retain(|at| at + WEEK > now);
            !orders.is_empty()
        });
    }
}

/// What a limit counts a host under: the domain that somebody registered (publicsuffix.org).
pub(crate) fn registered_domain(host: &str) -> &str {
    let name = host.strip_prefix("*.").unwrap_or(host);
    psl::domain_str(name).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_kept_over_seven_days() {
        let mut ledger = Ledger::default();
        let free = |ledger: &Ledger, now| ledger.free_at(["a.test"].into_iter(), Some(2), now);
        let start = 100 * DAY;
        assert_eq!(free(&ledger, start), start);
        ledger.ordered(["a.test"].into_iter(), start);
        ledger.ordered(["a.test"].into_iter(), start + DAY);
        assert_eq!(free(&ledger, start + 2 * DAY), start + WEEK);
        assert_eq!(free(&ledger, start + WEEK), start + WEEK);
        let others = ledger.free_at(["b.test"].into_iter(), Some(2), start + 2 * DAY);
        assert_eq!(others, start + 2 * DAY);
        ledger.refused(["a.test"].into_iter(), start);
        assert_eq!(free(&ledger, start + 2 * DAY), start + 2 * DAY);
        ledger.ordered(["a.test"].into_iter(), start);
        let unlimited = ledger.free_at(["a.test"].into_iter(), None, start + 2 * DAY);
        assert_eq!(unlimited, start + 2 * DAY);
    }

    #[test]
    fn a_pause_is_for_one_domain() {
        let mut ledger = Ledger::default();
        ledger.pause(["a.test"].into_iter(), 500, 100);
        assert_eq!(ledger.paused_until(["a.test", "b.test"].into_iter()), 500);
        assert_eq!(ledger.paused_until(["b.test"].into_iter()), 0);
    }

    #[test]
    fn hosts_are_counted_by_what_somebody_registered() {
        for (host, want) in [
            ("a.b.vt.edu", "vt.edu"),
            ("*.k8s.vt.edu", "vt.edu"),
            ("vt.edu", "vt.edu"),
            ("shop.example.co.uk", "example.co.uk"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(registered_domain(host), want, "{host}");
        }
    }
}
