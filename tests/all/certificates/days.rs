//! Days and months of a certificate's life, by a clock of the test.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use postern_acme::engine::CertificateStatus;
use postern_acme::engine::Desired;
use postern_core::hostname::Hostname;
use postern_core::name::CertificateName;
use postern_core::name::IssuerName;
use postern_tests::certificates::scripted::Script;
use postern_tests::certificates::scripted::ScriptedCa;
use postern_tests::scratch::Scratch;

use super::life::DAY;
use super::life::HOUR;
use super::life::Life;
use super::life::reason;
use super::life::spec;

#[tokio::test]
async fn an_authority_that_is_away_for_ten_days_is_asked_ever_less_and_then_renews() {
    let ca = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
    let first = life.rest().await;
    let first_end = first.served.unwrap().not_after;
    assert_eq!(ca.counts().orders, 1);

    ca.direct(|script| script.is_down = true);
    let asked_before: usize = ca.counts().requests.values().sum();
    life.pass(61 * DAY);
    let away_since = life.now();
    while life.now() < away_since + 10 * DAY {
        let status = life.rest().await;
        assert_eq!(reason(&status), "IssuerUnreachable", "{status:#?}");
        assert_eq!(
            status.served.unwrap().not_after,
            first_end,
            "the old one is served on"
        );
        life.pass(status.at.saturating_sub(life.now()).max(1));
    }
    let tries = life.rest().await.failures;
    assert!((8..=20).contains(&tries), "{tries} attempts in ten days");
    // Each attempt sends one request, three times at most.
    let asked = ca.counts().requests.values().sum::<usize>() - asked_before;
    let most = 3 * usize::try_from(tries).unwrap();
    assert!(asked <= most, "{asked} requests in {tries} attempts");

    ca.direct(|script| script.is_down = false);
    life.pass(DAY);
    life.until("renewed", |all| {
        all[0]
            .served
            .as_ref()
            .is_some_and(|s| s.not_after != first_end)
    })
    .await;
    let counts = ca.counts();
    assert_eq!((counts.orders, counts.accounts), (2, 1), "{counts:?}");
}

#[tokio::test]
async fn another_issuer_stands_in_when_the_end_is_near() {
    let ca = ScriptedCa::start(Script::default()).await;
    let other = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let mut first = spec(&ca, &dir, "ca");
    first.fallback = Some(IssuerName::parse("other").unwrap());
    let second = spec(&other, &dir, "other");
    let mut life = Life::begin(dir, vec![("ca", first), ("other", second)], &["a.test"]);
    life.rest().await;
    ca.direct(|script| script.refuses_orders = Some(("unauthorized", "no more")));
    // A third of its life is left: time enough.
    life.pass(61 * DAY);
    let status = life.rest().await;
    assert_eq!(reason(&status), "OrderRefused");
    life.pass(5 * DAY);
    life.rest().await;
    assert_eq!(other.counts().orders, 0);
    // Less than a sixth.
    life.pass(11 * DAY);
    life.until("the other one", |all| {
        all[0]
            .served
            .as_ref()
            .is_some_and(|served| served.issuer == "other")
    })
    .await;
    life.rest().await;
    // And what it gave is good until it is to be renewed.
    life.pass(DAY);
    life.rest().await;
    assert_eq!(other.counts().orders, 1);
}

#[tokio::test]
async fn a_share_of_the_limits_is_kept() {
    let ca = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let mut spec = spec(&ca, &dir, "ca");
    spec.certificates_a_week = Some(1);
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.x.test", "b.other.test"]);
    life.until("both", |all| {
        all.iter().all(|status| status.served.is_some())
    })
    .await;
    let mut desired = Desired::clone(&life.desired.borrow());
    let mut job = desired.jobs[0].clone();
    job.name = CertificateName::parse("c.x.test").unwrap();
    job.hosts = vec![Hostname::parse("c.x.test").unwrap()];
    desired.jobs.push(job);
    life.desired.send_replace(Arc::new(desired));
    let full = |all: &[CertificateStatus]| {
        all.iter().any(|status| {
            status
                .trouble
                .as_ref()
                .is_some_and(|t| t.reason == "LedgerFull")
        })
    };
    life.until("full", full).await;
    assert_eq!(ca.counts().orders, 2);
    life.pass(7 * DAY);
    life.until("all", |all| {
        all.iter().all(|status| status.served.is_some())
    })
    .await;
    assert_eq!(ca.counts().orders, 3);
}

#[tokio::test]
async fn nothing_is_ordered_that_could_not_be_kept() {
    let ca = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
    life.disk.is_full.store(true, Ordering::Relaxed);
    // What began before the disk was full ends either way.
    life.until("ended", |all| !all[0].is_running && all[0].at > 0)
        .await;
    let before = ca.counts();
    if life.state.borrow().certificates[0].served.is_none() {
        let status = life.rest().await;
        assert_eq!(reason(&status), "StorageFailed", "{status:#?}");
        assert_eq!(ca.counts().orders, before.orders);
    }
    life.disk.is_full.store(false, Ordering::Relaxed);
    life.pass(HOUR);
    life.until("issued", |all| all[0].served.is_some()).await;
    assert_eq!(ca.counts().orders, 1);
}
