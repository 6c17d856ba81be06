//! Choosing an endpoint: the parts that are only arithmetic.
//!
//! Everything here is the same in every process: two gateways send the same key to the same
//! endpoint.

use http::HeaderMap;
use http::header;

/// Longest order of turns that is written out. Weights that need more are met by chance.
const MAX_TURNS: u64 = 4096;

/// Entries of a hash table for an endpoint, at least, as long as the largest table allows: with
/// 100, shares are within a few percent of their weights.
const ENTRIES_PER_ENDPOINT: usize = 100;

/// Sizes of hash tables. Prime, so that every step goes through the whole table.
const TABLE_SIZES: [usize; 9] = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521];

/// A hash that is the same on every machine: FNV-1a, its bits mixed so that all of them count.
pub fn hash(bytes: &[u8]) -> u64 {
    mix(fnv(bytes))
}

/// FNV-1a. Its lower bits are weak: whoever uses it mixes them.
pub fn fnv<'b>(bytes: impl IntoIterator<Item = &'b u8>) -> u64 {
    let bytes = bytes.into_iter();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Another number for each number, far away for neighbours (the finalizer of MurmurHash3).
pub fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    number = (number ^ (number >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    number ^ (number >> 33)
}

/// The order of turns in which each index has its weight, spread as evenly as can be: 5 to 1 is
/// not five in a row and then one. Empty if it would be too long, or if there is nothing to order.
pub fn turns(weights: &[u32]) -> Vec<u32> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let weights: Vec<i64> = weights.iter().map(|w| i64::from(w / divisor)).collect();
    let sum: i64 = weights.iter().sum();
    if sum.unsigned_abs() > MAX_TURNS {
        return Vec::new();
    }
    let mut order = Vec::new();
    let mut credit = vec![0; weights.len()];
    for _ in 0..sum {
        for (credit, weight) in credit.iter_mut().zip(&weights) {
            *credit += weight;
        }
        // The first of the greatest, so that equal weights go round in order.
        let Some((next, _)) = credit.iter().enumerate().rev().max_by_key(|(_, c)| **c) else {
            break;
        };
        credit[next] -= sum;
        order.push(u32::try_from(next).unwrap_or(u32::MAX));
    }
    order
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A table of a consistent hash (Maglev): each index has entries by its weight, and the change of
/// one moves few of the others'.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HashTable {
    entries: Box<[u32]>,
}

impl HashTable {
    /// `keys` name the indices, so that their order does not matter. `None` without any.
    pub fn new<'k>(members: impl Iterator<Item = (u32, &'k str, u32)>) -> Option<Self> {
        let mut members: Vec<(u32, &str, u32)> = members.collect();
        // The order in which entries are taken has to be the same everywhere.
        members.sort_unstable_by_key(|(_, key, _)| *key);
        let heaviest = members.iter().map(|(_, _, weight)| *weight).max()?;
        let wanted = members.len() * ENTRIES_PER_ENDPOINT;
        let largest = TABLE_SIZES[TABLE_SIZES.len() - 1];
        let size = TABLE_SIZES.into_iter().find(|size| *size >= wanted);
        let size = size.unwrap_or(largest);
        let steps: Vec<(usize, usize)> = members
            .iter()
            .map(|(_, key, _)| {
                let hash = hash(key.as_bytes());
                let offset = (hash % size as u64) as usize;
                let skip = (mix(hash) % (size as u64 - 1)) as usize + 1;
                (offset, skip)
            })
            .collect();
        const FREE: u32 = u32::MAX;
        let mut entries = vec![FREE; size].into_boxed_slice();
        let mut next = vec![0_usize; members.len()];
        let mut credit = vec![0_u64; members.len()];
        let mut taken = 0;
        'all: loop {
            for (position, (index, _, weight)) in members.iter().enumerate() {
                // The heaviest takes an entry each round, others in proportion.
                credit[position] += u64::from(*weight);
                if credit[position] < u64::from(heaviest) {
                    continue;
                }
                credit[position] -= u64::from(heaviest);
                let (offset, skip) = steps[position];
                let entry = loop {
                    let entry = (offset + next[position] * skip) % size;
                    next[position] += 1;
                    if entries[entry] == FREE {
                        break entry;
                    }
                };
                entries[entry] = *index;
                taken += 1;
                if taken == size {
                    break 'all;
                }
            }
        }
        Some(Self { entries })
    }

    pub fn find(&self, hash: u64) -> u32 {
        self.entries[(hash % self.entries.len() as u64) as usize]
    }
}

/// The value of a cookie (RFC 6265, 5.4), the first one of that name.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h [u8]> {
    let fields = headers.get_all(header::COOKIE).iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    let mut values = pairs.filter_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        value.strip_prefix(b"=")
    });
    values.next()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn turns_are_spread_and_meet_their_weights() {
        let cases: [(&[u32], &[u32]); 6] = [
            (&[1, 1, 1], &[0, 1, 2]),
            (&[3, 3], &[0, 1]),
            (&[5, 1, 1], &[0, 0, 1, 0, 2, 0, 0]),
            (&[2, 1], &[0, 1, 0]),
            (&[7], &[0]),
            (&[], &[]),
        ];
        for (weights, want) in cases {
            assert_eq!(turns(weights), want, "{weights:?}");
        }
        assert!(turns(&[1000, 999, 998, 997, 996]).is_empty(), "too long");
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("10.0.0.{n}:80")).collect()
    }

    fn table(names: &[String], weight: impl Fn(usize) -> u32) -> HashTable {
        let members = names.iter().enumerate();
        HashTable::new(members.map(|(n, name)| (n as u32, name.as_str(), weight(n)))).unwrap()
    }

    #[test]
    fn a_table_shares_by_weight() {
        let table = table(&names(5), |n| if n == 0 { 4 } else { 1 });
        let mut counts = [0; 5];
        for key in 0..80_000_u64 {
            counts[table.find(mix(key)) as usize] += 1;
        }
        assert!((38_000..42_000).contains(&counts[0]), "{counts:?}");
        for count in &counts[1..] {
            assert!((9_000..11_000).contains(count), "{counts:?}");
        }
    }

    #[test]
    fn one_endpoint_less_moves_few_keys_of_the_others() {
        let all = names(10);
        let before = table(&all, |_| 1);
        let after = table(&all[..9], |_| 1);
        let keys = 20_000_u64;
        let moved = (0..keys)
            .map(mix)
            .filter(|&key| before.find(key) != 9 && before.find(key) != after.find(key))
            .count();
        assert!(moved < 1_500, "{moved} of {keys}");
    }

    #[test]
    fn the_order_of_endpoints_does_not_matter() {
        let forth = names(4);
        let back: Vec<String> = forth.iter().rev().cloned().collect();
        let (forth_table, back_table) = (table(&forth, |_| 1), table(&back, |_| 1));
        for key in (0..1000).map(mix) {
            let (a, b) = (forth_table.find(key), back_table.find(key));
            assert_eq!(forth[a as usize], back[b as usize]);
        }
    }

    #[test]
    fn tables_are_bounded() {
        let many: Vec<String> = (0..2_000).map(|n| format!("h{n}:80")).collect();
        assert_eq!(table(&many, |_| 1).entries.len(), 65521);
        assert!(HashTable::new(std::iter::empty()).is_none());
    }

    #[test]
    fn a_hash_is_the_same_everywhere() {
        assert_eq!(hash(b""), 0xefd0_1f60_ba99_2926);
        assert_ne!(hash(b"a"), hash(b"b"));
    }

    #[test]
    fn cookies_are_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", HeaderValue::from_static("a=1;b = 2; c=x=y"));
        headers.append("cookie", HeaderValue::from_static("d=4; a=5"));
        let cases: [(&str, Option<&[u8]>); 5] = [
            ("a", Some(b"1")),
            ("c", Some(b"x=y")),
            ("d", Some(b"4")),
            ("e", None),
            ("b", None),
        ];
        for (name, want) in cases {
            assert_eq!(cookie(&headers, name), want, "{name}");
        }
    }
}
