//! Which endpoint gets a request.
//!
//! The common case, an endpoint whose turn it is and against which nothing is known, takes no lock,
//! no clock and no memory. Everything else goes the long way: every endpoint is looked at, the ones
//! that can serve with the lowest priority number are weighed, and one is taken by its weight.

use std::cell::Cell;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use http::HeaderMap;
use postern_core::balance;
use postern_core::config::upstream::Balance;
use postern_core::config::upstream::HashKey;

use super::Upstream;
use super::endpoint;
use super::endpoint::Standing;

/// How often a key is hashed anew when its endpoint cannot serve, before the long way: keys of one
/// endpoint spread over all others and come back to it when it does.
const REHASHES: u64 = 8;

/// What is known of a request when its endpoint is chosen.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) client: IpAddr,
}

/// One worker's place in the order of turns.
#[derive(Default)]
pub(super) struct Turn {
    next: Cell<usize>,
    chance: Cell<u64>,
}

impl Turn {
    fn next(&self) -> usize {
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        turn
    }

    /// A number that nobody has to be unable to guess (splitmix64).
    fn chance(&self) -> u64 {
        let next = self.chance.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.chance.set(next);
        balance::mix(next)
    }

    /// Below `bound`, which is not 0.
    fn below(&self, bound: u64) -> u64 {
        self.chance() % bound
    }
}

impl Upstream {
    /// The endpoint for a request. `None` if there is none and the upstream does not take its
    /// chances.
    pub(super) fn choose(&self, ask: &Ask<'_>, turn: &Turn, named: Option<usize>) -> Option<usize> {
        if let Some(endpoint) = named {
            let is_good = self.endpoints[endpoint].is_plain()
                || matches!(
                    self.standing(endpoint),
                    Standing::Good | Standing::Warming(_)
                );
            if is_good {
                return Some(endpoint);
            }
        }
        if let [only] = self.endpoints.as_slice() {
            if only.is_plain() || self.spec.fail_open {
                return Some(0);
            }
            return self.choose_other(turn, &[]);
        }
        match &self.spec.balance {
            Balance::RoundRobin => self.round_robin(turn),
            Balance::LeastRequests => self.least_requests(turn),
            Balance::Hash(key) => match self.hash_of(key, ask) {
                Some(hash) => self.by_hash(hash, turn),
                None => self.round_robin(turn),
            },
        }
    }

    /// The endpoint that the client's cookie names, good or bad.
    pub(super) fn named(&self, ask: &Ask<'_>) -> Option<usize> {
        let sticky = self.sticky.as_ref()?;
        sticky.endpoint(ask.headers)
    }

    fn round_robin(&self, turn: &Turn) -> Option<usize> {
        let at = turn.next();
        let endpoint = match self.turns.len() {
            // Too many turns to write them all down.
            0 => return self.choose_other(turn, &[]),
            count => self.turns[at % count] as usize,
        };
        if self.endpoints[endpoint].is_plain() {
            return Some(endpoint);
        }
        if let Standing::Warming(percent) = self.standing(endpoint)
            && turn.below(100) < u64::from(percent)
        {
            return Some(endpoint);
        }
        self.choose_other(turn, &[])
    }

    /// Two by chance, the less busy of them: nearly as good as the least busy of all, and it costs
    /// the same with a thousand.
    fn least_requests(&self, turn: &Turn) -> Option<usize> {
        let first = self.first_priority.as_slice();
        if let [only] = first
            && self.endpoints[*only as usize].is_plain()
        {
            return Some(*only as usize);
        }
        let count = first.len() as u64;
        if count < 2 {
            return self.choose_other(turn, &[]);
        }
        let one = turn.below(count);
        let two = (one + 1 + turn.below(count - 1)) % count;
        let (one, two) = (first[one as usize] as usize, first[two as usize] as usize);
        if self.endpoints[one].is_plain() && self.endpoints[two].is_plain() {
            return Some(self.less_busy(one, two));
        }
        let one = self.choose_other(turn, &[])?;
        match self.choose_other(turn, &[one]) {
            // Not one that is only there because nothing else was.
            Some(two) if self.is_peer(one, two) => Some(self.less_busy(one, two)),
            _ => Some(one),
        }
    }

    fn less_busy(&self, one: usize, two: usize) -> usize {
        let load = |endpoint: usize| {
            let in_flight = self.endpoints[endpoint].in_flight.load(Relaxed);
            u64::from(in_flight) + 1
        };
        let weight = |endpoint: usize| u64::from(self.spec.shares[endpoint].weight);
        // Compared crosswise, which is the division without its remainder.
        if load(two) * weight(one) < load(one) * weight(two) {
            two
        } else {
            one
        }
    }

    /// Whether two endpoints are as good as each other to begin with.
    fn is_peer(&self, one: usize, two: usize) -> bool {
        let shares = &self.spec.shares;
        shares[one].priority == shares[two].priority
            && self.endpoints[two].is_plain()
            && self.endpoints[one].is_plain()
    }

    fn hash_of(&self, key: &HashKey, ask: &Ask<'_>) -> Option<u64> {
        match key {
            HashKey::Source => Some(match ask.client.to_canonical() {
                IpAddr::V4(addr) => balance::hash(&addr.octets()),
                IpAddr::V6(addr) => balance::hash(&addr.octets()),
            }),
            HashKey::Header(name) => {
                let value = ask.headers.get(name)?;
                Some(balance::hash(value.as_bytes()))
            }
            HashKey::Cookie(name) => balance::cookie(ask.headers, name).map(balance::hash),
        }
    }

    fn by_hash(&self, hash: u64, turn: &Turn) -> Option<usize> {
        if let Some(table) = &self.table {
            let mut key = hash;
            for _ in 0..=REHASHES {
                let endpoint = table.find(key) as usize;
                if self.endpoints[endpoint].is_plain()
                    || matches!(
                        self.standing(endpoint),
                        Standing::Good | Standing::Warming(_)
                    )
                {
                    return Some(endpoint);
                }
                key = balance::mix(key.wrapping_add(1));
            }
        }
        self.choose_other(turn, &[])
    }

    fn standing(&self, endpoint: usize) -> Standing {
        self.endpoints[endpoint].standing(endpoint::now(), self.spec.slow_start)
    }

    /// The long way, to an endpoint that the request was not tried at.
    pub(super) fn choose_other(&self, turn: &Turn, tried: &[usize]) -> Option<usize> {
        let now = endpoint::now();
        // An endpoint whose time is over gets its trial at once: nobody else would find out.
        let mut weights = Vec::with_capacity(self.endpoints.len());
        let mut best = u32::MAX;
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let share = &self.spec.shares[index];
            let weight = match endpoint.standing(now, self.spec.slow_start) {
                _ if tried.contains(&index) => 0,
                Standing::Bad => 0,
                Standing::Good => share.weight * 100,
                Standing::Warming(percent) => share.weight * percent,
                Standing::OnTrial => {
                    if tried.is_empty() && endpoint.take_trial(now, &self.spec.ejection) {
                        return Some(index);
                    }
                    0
                }
            };
            if weight > 0 {
                best = best.min(share.priority);
            }
            weights.push(weight);
        }
        for (weight, share) in weights.iter_mut().zip(&self.spec.shares) {
            if share.priority != best {
                *weight = 0;
            }
        }
        if best == u32::MAX {
            if !self.spec.fail_open {
                return None;
            }
            // All are bad, so none is worse than another.
            for (index, share) in self.spec.shares.iter().enumerate() {
                weights[index] = if tried.contains(&index) {
                    0
                } else {
                    share.weight
                };
            }
        }
        let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        if sum == 0 {
            return None;
        }
        let mut at = turn.below(sum);
        weights.iter().position(|&weight| {
            let is_it = at < u64::from(weight);
            at = at.saturating_sub(u64::from(weight));
            is_it
        })
    }
}

#[cfg(test)]
mod tests;
