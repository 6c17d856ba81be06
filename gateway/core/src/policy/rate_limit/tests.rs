use std::sync::atomic::AtomicU32;

use super::*;

fn rate(count: u32, seconds: u64) -> Rate {
    Rate {
        count,
        period: Duration::from_secs(seconds),
    }
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[test]
fn a_burst_passes_and_then_the_rate() {
    for (count, seconds, burst) in [(10, 1, 5), (10, 1, 1), (1, 60, 3), (1000, 3600, 20)] {
        let table = RateTable::new(rate(count, seconds), burst, 8);
        let interval = Duration::from_secs(seconds) / count;
        for n in 0..burst {
            let decision = table.take(7, ms(5));
            assert!(decision.is_allowed, "{count}/{seconds} {n}");
            assert_eq!(decision.remaining, u64::from(burst - n - 1));
        }
        let refused = table.take(7, ms(5));
        assert!(!refused.is_allowed);
        assert_eq!(refused.remaining, 0);
        let near = |a: Duration, b: Duration| a.abs_diff(b) <= interval / 100 + ms(1);
        assert!(near(refused.retry_after, interval), "{refused:?}");
        assert!(near(refused.reset, interval * burst), "{refused:?}");
        // A refused request costs nothing.
        let later = ms(6) + interval;
        assert!(table.take(7, later).is_allowed);
        assert!(!table.take(7, later).is_allowed);
    }
}

#[test]
fn over_a_long_time_the_rate_is_met() {
    for (count, seconds) in [(7, 1), (100, 1), (1000, 60), (30_000, 1), (500_000, 1)] {
        let table = RateTable::new(rate(count, seconds), 10, 8);
        let interval = Duration::from_secs(seconds) / count;
        let ticks = 20_000;
        // Twice as often as allowed.
        let passed = (0..ticks)
            .filter(|tick| table.take(1, interval / 2 * *tick).is_allowed)
            .count();
        let want = ticks as usize / 2;
        assert!(
            passed.abs_diff(want) <= want / 50 + 10,
            "{count}/{seconds}: {passed} of {want}"
        );
    }
}

#[test]
fn keys_do_not_share_a_limit() {
    let table = RateTable::new(rate(1, 1), 1, 1024);
    for key in 1..=200_u64 {
        let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        assert!(table.take(hash, ms(1)).is_allowed, "{key}");
        assert!(!table.take(hash, ms(2)).is_allowed, "{key}");
    }
}

#[test]
fn a_full_table_forgets_the_key_whose_debt_is_paid_first() {
    // One set, of eight places.
    let table = RateTable::new(rate(1, 1), 2, 8);
    let hash = |key: u64| key << TIME_BITS;
    for key in 1..=8 {
        assert!(table.take(hash(key), ms(key * 10)).is_allowed);
    }
    assert!(table.take(hash(1), ms(100)).is_allowed);
    assert!(!table.take(hash(1), ms(110)).is_allowed);
    // Key 2 goes; key 1, which is deeper in debt, stays limited.
    assert!(table.take(hash(9), ms(120)).is_allowed);
    assert!(!table.take(hash(1), ms(130)).is_allowed);
    assert_eq!(table.take(hash(2), ms(140)).remaining, 1);
}

#[test]
fn time_goes_round_without_harm() {
    let table = RateTable::new(rate(1_000_000, 1), 100, 8);
    let round = Duration::from_nanos(LEAST_UNIT << TIME_BITS);
    let mut now = ms(1);
    while now < round * 3 {
        assert!(table.take(3, now).is_allowed, "{now:?}");
        now += round / 7;
    }
}

#[test]
fn no_thread_gets_more_than_is_there() {
    let table = RateTable::new(rate(1, 3600), 1000, 64);
    let allowed = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..2000_u64 {
                    // Four keys that come up at the same moment in every thread.
                    let hash = (n % 4 + 1) << TIME_BITS | (n % 4);
                    if table.take(hash, ms(1)).is_allowed {
                        allowed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    // 8000 attempts; each key has a burst of 1000.
    assert_eq!(allowed.load(Ordering::Relaxed), 4000);
}
