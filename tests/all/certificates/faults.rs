//! What goes wrong around an engine: clocks, disks, documents, authorities. The old certificate is
//! served on, and the authority is not asked more than it helps.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use postern_acme::engine::CertificateStatus;
use postern_acme::engine::Desired;
use postern_acme::store::Kind;
use postern_core::config::IssuerSpec;
use postern_core::config::issuer::ExternalAccountSpec;
use postern_core::hostname::Hostname;
use postern_core::name::CertificateName;
use postern_tests::certificates::scripted::Script;
use postern_tests::certificates::scripted::ScriptedCa;
use postern_tests::scratch::Scratch;

use super::KEY;
use super::life::DAY;
use super::life::HOUR;
use super::life::Life;
use super::life::reason;
use super::life::spec;

#[tokio::test]
async fn a_clock_that_is_set_back_orders_nothing_twice() {
    let ca = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
    life.rest().await;
    life.now.fetch_sub(2 * DAY, Ordering::Relaxed);
    life.pass(0);
    let status = life.rest().await;
    assert!(status.trouble.is_none(), "{status:#?}");
    life.pass(30 * DAY);
    life.rest().await;
    assert_eq!(ca.counts().orders, 1);
}

#[tokio::test]
async fn a_clock_that_is_set_ahead_orders_once_and_is_forgiven() {
    let ca = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
    life.rest().await;
    // The authority's clock is right: what it gives has 20 days to go by ours.
    life.pass(70 * DAY);
    life.rest().await;
    assert_eq!(ca.counts().orders, 2);
    for _ in 0..20 {
        life.pass(HOUR / 2);
        life.rest().await;
    }
    assert_eq!(ca.counts().orders, 2, "a new one is not old");
    life.now.fetch_sub(70 * DAY, Ordering::Relaxed);
    life.pass(0);
    let status = life.rest().await;
    assert!(status.trouble.is_none(), "{status:#?}");
    assert_eq!(ca.counts().orders, 2);

    // By this clock everything that it gives has ended: no certificate of it is taken, and it is
    // not asked over and over.
    life.pass(100 * DAY);
    let status = life.rest().await;
    assert_eq!(reason(&status), "CertificateRefused", "{status:#?}");
    assert!(status.served.is_some(), "the old one is served on");
    let orders = ca.counts().orders;
    assert!(orders <= 3, "{orders} orders");
    for _ in 0..24 {
        life.pass(HOUR);
        life.rest().await;
    }
    let orders = ca.counts().orders;
    assert!(orders <= 9, "{orders} orders after a day");
}

#[tokio::test]
async fn an_authority_that_takes_hours_is_asked_when_it_said_by_whoever_runs_then() {
    let script = Script {
        knows_names: true,
        is_slow: true,
        retry_after: Some(2 * HOUR),
        ..Script::default()
    };
    let ca = ScriptedCa::start(script).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
    for hours in [2, 4, 6] {
        let status = life.rest().await;
        assert_eq!(reason(&status), "Processing", "{status:#?}");
        assert_eq!(status.failures, 0, "{status:#?}");
        assert_eq!(status.at, life.now() + 2 * HOUR, "after {hours} hours");
        let asked = ca.counts().requests;
        life = life.again();
        life.pass(HOUR);
        life.rest().await;
        assert_eq!(ca.counts().requests, asked, "asked an hour too early");
        life.pass(HOUR);
    }
    life.rest().await;
    ca.direct(|script| script.is_slow = false);
    life.pass(2 * HOUR);
    life.until("issued", |all| all[0].served.is_some()).await;
    let counts = ca.counts();
    assert_eq!((counts.orders, counts.accounts), (1, 1), "{counts:?}");
    assert!(!counts.requests.contains_key("challenge"), "{counts:?}");
}

#[tokio::test]
async fn a_binding_that_another_gateway_has_used_is_told_in_the_authoritys_words() {
    let script = Script {
        binding: Some(("kid-1".to_owned(), KEY.to_owned())),
        ..Script::default()
    };
    let ca = ScriptedCa::start(script).await;
    let gateway = || {
        let dir = Scratch::new();
        let key_file = dir.write("eab.key", KEY);
        let external = ExternalAccountSpec {
            key_id: "kid-1".to_owned(),
            key_file,
        };
        let spec = IssuerSpec {
            external_account: Some(external),
            ..spec(&ca, &dir, "ca")
        };
        Life::begin(dir, vec![("ca", spec)], &["a.test"])
    };
    let mut first = gateway();
    first.until("issued", |all| all[0].served.is_some()).await;
    let mut second = gateway();
    let status = second.rest().await;
    assert_eq!(reason(&status), "EabRefused", "{status:#?}");
    let words = status.trouble.unwrap().problem.unwrap();
    let want = "unauthorized: The account is not awaiting external account binding";
    assert_eq!(words, want);
    let counts = ca.counts();
    assert_eq!((counts.accounts, counts.orders), (1, 1), "{counts:?}");
}

#[tokio::test]
async fn what_an_authority_says_of_an_order_is_a_reason_and_its_words_are_kept() {
    let cases = [
        ("rateLimited", "too many certificates", "RateLimited"),
        (
            "rateLimited",
            "this account is paused: https://ca.test/u",
            "AccountPaused",
        ),
        ("userActionRequired", "agree to new terms", "AccountPaused"),
        (
            "caa",
            "CAA record for a.test prevents issuance",
            "CaaForbids",
        ),
        (
            "rejectedIdentifier",
            "the domain is on a list",
            "OrderRefused",
        ),
        ("unauthorized", "not your name", "OrderRefused"),
        ("serverInternal", "on fire", "IssuerUnreachable"),
    ];
    for (kind, words, want) in cases {
        let script = Script {
            refuses_orders: Some((kind, words)),
            ..Script::default()
        };
        let ca = ScriptedCa::start(script).await;
        let dir = Scratch::new();
        let spec = spec(&ca, &dir, "ca");
        let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
        let status = life.rest().await;
        assert_eq!(reason(&status), want, "{kind}: {status:#?}");
        let problem = status.trouble.unwrap().problem;
        assert_eq!(problem, Some(format!("{kind}: {words}")));
    }
    // What it finds when it looks at the name is one, too.
    let script = Script {
        refuses_challenges: Some(("caa", "CAA record for a.test prevents issuance")),
        ..Script::default()
    };
    let ca = ScriptedCa::start(script).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
    let status = life.rest().await;
    assert_eq!(reason(&status), "CaaForbids", "{status:#?}");
}

#[tokio::test]
async fn a_certificate_for_another_key_is_not_taken() {
    let ca = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
    let first = life.rest().await.served.unwrap().not_after;
    ca.direct(|script| script.mistakes_keys = true);
    life.pass(61 * DAY);
    let status = life.rest().await;
    assert_eq!(reason(&status), "KeyMismatch", "{status:#?}");
    assert_eq!(status.served.unwrap().not_after, first, "served on");
    ca.direct(|script| script.mistakes_keys = false);
    life.pass(HOUR);
    let is_other = |all: &[CertificateStatus]| {
        let served = all[0].served.as_ref();
        served.is_some_and(|served| served.not_after != first)
    };
    life.until("renewed", is_other).await;
}

#[tokio::test]
async fn documents_that_were_cut_short_are_named_and_nothing_is_ordered_on_them() {
    for (kind, name) in [
        (Kind::Order, "a.test"),
        (Kind::Account, "ca"),
        (Kind::Ledger, "ca"),
    ] {
        let script = Script {
            refuses_orders: Some(("unauthorized", "not yet")),
            ..Script::default()
        };
        let ca = ScriptedCa::start(script).await;
        let dir = Scratch::new();
        let mut spec = spec(&ca, &dir, "ca");
        spec.certificates_a_week = Some(5);
        let mut life = Life::begin(dir, vec![("ca", spec)], &["b.test"]);
        life.rest().await;
        ca.direct(|script| script.refuses_orders = None);
        life.pass(HOUR);
        life.until("issued", |all| all[0].served.is_some()).await;
        life.rest().await;
        let orders = ca.counts().orders;

        // A second name, whose order is refused once, so that there is a document of it.
        ca.direct(|script| script.refuses_orders = Some(("unauthorized", "not yet")));
        let mut desired = Desired::clone(&life.desired.borrow());
        let mut job = desired.jobs[0].clone();
        job.name = CertificateName::parse("a.test").unwrap();
        job.hosts = vec![Hostname::parse("a.test").unwrap()];
        desired.jobs = vec![job];
        life.desired.send_replace(Arc::new(desired));
        life.until("refused", |all| reason(&all[0]) == "OrderRefused")
            .await;
        life.rest().await;
        ca.direct(|script| script.refuses_orders = None);
        life.cut(kind, name);
        let mut life = life.again();
        life.pass(HOUR);
        let status = life.rest().await;
        assert_eq!(reason(&status), "StorageFailed", "{kind:?}: {status:#?}");
        let message = status.trouble.unwrap().message;
        let place = format!("{}/{name}", kind.as_str());
        assert!(message.contains(&place), "{kind:?}: {message}");
        assert!(
            message.contains("put it back from a backup"),
            "{kind:?}: {message}"
        );
        assert_eq!(ca.counts().orders, orders, "{kind:?}");

        // Deleted, as the message says.
        let key = (kind, name.to_owned());
        life.disk.documents.lock().unwrap().remove(&key);
        life.pass(HOUR);
        life.until("issued", |all| all[0].served.is_some()).await;
        assert_eq!(ca.counts().orders, orders + 1, "{kind:?}");
    }
}

#[tokio::test]
async fn a_document_that_was_cut_short_costs_one_order_and_says_so() {
    let ca = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
    life.rest().await;
    let key = (Kind::Certificate, "a.test".to_owned());
    let documents = Arc::clone(&life.disk.documents);
    let whole = documents.lock().unwrap()[&key].clone();
    documents
        .lock()
        .unwrap()
        .insert(key, whole[..whole.len() / 2].to_vec());
    // The same engine takes it up again when what it wants goes and comes back.
    let desired = life.desired.send_replace(Arc::default());
    life.until_empty().await;
    life.desired.send_replace(desired);
    life.until("issued again", |all| all[0].served.is_some())
        .await;
    assert_eq!(ca.counts().orders, 2);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_is_not_ordered_again() {
    let ca = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
    life.until("issued", |all| all[0].served.is_some()).await;
    life.rest().await;
    life.disk.is_torn.store(true, Ordering::Relaxed);
    let mut life = life.again();
    for _ in 0..3 {
        let status = life.rest().await;
        assert_eq!(reason(&status), "StorageFailed", "{status:#?}");
        life.pass(HOUR);
    }
    life.disk.is_torn.store(false, Ordering::Relaxed);
    life.pass(HOUR);
    life.until("served again", |all| all[0].served.is_some())
        .await;
    assert_eq!(ca.counts().orders, 1);
}

#[tokio::test]
async fn a_certificate_that_is_wanted_again_before_its_attempt_ended_is_ordered_once() {
    let script = Script {
        is_slow: true,
        ..Script::default()
    };
    let ca = ScriptedCa::start(script).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
    for _ in 0..5 {
        life.until("begun", |all| all[0].is_running).await;
        let desired = life.desired.send_replace(Arc::default());
        life.until_empty().await;
        life.desired.send_replace(desired);
    }
    ca.direct(|script| script.is_slow = false);
    life.until("issued", |all| all[0].served.is_some()).await;
    life.rest().await;
    assert_eq!(ca.counts().orders, 1);
}

#[tokio::test]
async fn an_order_that_cannot_be_forgotten_is_not_placed_again() {
    let ca = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
    life.disk.is_stuck.store(true, Ordering::Relaxed);
    life.until("issued", |all| all[0].served.is_some()).await;
    for _ in 0..3 {
        life.rest().await;
        life.pass(HOUR);
    }
    let key = (Kind::Order, "a.test".to_owned());
    let documents = Arc::clone(&life.disk.documents);
    assert!(documents.lock().unwrap().contains_key(&key));
    life.disk.is_stuck.store(false, Ordering::Relaxed);
    life.pass(HOUR);
    let forgotten = async {
        while documents.lock().unwrap().contains_key(&key) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(super::LIMIT, forgotten).await.unwrap();
    assert_eq!(ca.counts().orders, 1);
}

#[tokio::test]
async fn a_clock_that_is_behind_serves_what_is_there_and_orders_nothing() {
    let ca = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
    life.until("issued", |all| all[0].served.is_some()).await;
    life.rest().await;
    life.now.fetch_sub(30 * DAY, Ordering::Relaxed);
    let mut life = life.again();
    let status = life.rest().await;
    assert!(status.served.is_some(), "{status:#?}");
    life.pass(30 * DAY);
    life.rest().await;
    assert_eq!(ca.counts().orders, 1);
}

#[tokio::test]
async fn attempts_at_once_keep_to_the_share_and_a_larger_one_holds_at_once() {
    let ca = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let mut spec = spec(&ca, &dir, "ca");
    spec.certificates_a_week = Some(2);
    let hosts = ["a.shop.test", "b.shop.test", "c.shop.test", "d.shop.test"];
    let mut life = Life::begin(dir, vec![("ca", spec.clone())], &hosts);
    life.rest().await;
    let full = |status: &CertificateStatus| reason(status) == "LedgerFull";
    assert_eq!(life.statuses().iter().filter(|one| full(one)).count(), 2);
    assert_eq!(ca.counts().orders, 2);

    spec.certificates_a_week = Some(3);
    let mut life = life.configured(vec![("ca", spec)], "otherwise");
    life.rest().await;
    assert_eq!(life.statuses().iter().filter(|one| full(one)).count(), 1);
    assert_eq!(ca.counts().orders, 3);
}

#[tokio::test]
async fn an_authority_that_wants_to_be_asked_at_once_is_asked_in_its_time() {
    let script = Script {
        is_slow: true,
        retry_after: Some(0),
        ..Script::default()
    };
    let ca = ScriptedCa::start(script).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
    life.until("begun", |all| all[0].is_running).await;
    // The answer is of a moment that is over when it is looked at.
    for _ in 0..20 {
        life.now.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    ca.direct(|script| script.is_slow = false);
    life.pass(HOUR);
    life.until("issued", |all| all[0].served.is_some()).await;
    assert_eq!(ca.counts().orders, 1);
}

#[tokio::test]
async fn an_order_that_nobody_wants_any_more_is_forgotten_and_one_that_is_wanted_again_is_not() {
    let script = Script {
        refuses_orders: Some(("unauthorized", "not yet")),
        ..Script::default()
    };
    let ca = ScriptedCa::start(script).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test", "b.test", "c.test"]);
    life.rest().await;
    let documents = Arc::clone(&life.disk.documents);
    let orders = || {
        let documents = documents.lock().unwrap();
        let orders = documents.keys().filter(|(kind, _)| *kind == Kind::Order);
        orders.map(|(_, name)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(orders(), ["a.test", "b.test", "c.test"]);

    let all = Desired::clone(&life.desired.borrow());
    let want = |life: &Life, hosts: &[&str]| {
        let mut desired = all.clone();
        desired
            .jobs
            .retain(|job| hosts.contains(&job.name.as_str()));
        life.desired.send_replace(Arc::new(desired));
    };
    want(&life, &["b.test"]);
    life.until("one left", |all| all.len() == 1).await;
    // Seen once by now, or not yet; gone with the second look.
    life.pass(HOUR);
    life.rest().await;
    want(&life, &["b.test", "c.test"]);
    life.until("two", |all| all.len() == 2).await;
    for _ in 0..2 {
        life.pass(HOUR);
        life.rest().await;
    }
    assert_eq!(orders(), ["b.test", "c.test"]);
}

#[tokio::test]
async fn roots_that_are_replaced_are_trusted_from_then_on() {
    let ca = ScriptedCa::start(Script::default()).await;
    let other = ScriptedCa::start(Script::default()).await;
    let dir = Scratch::new();
    let spec = spec(&ca, &dir, "ca");
    let path = spec.ca_file.clone().unwrap();
    std::fs::write(&path, other.ca_pem()).unwrap();
    let mut life = Life::begin(dir, vec![("ca", spec)], &["a.test"]);
    let status = life.rest().await;
    assert_eq!(reason(&status), "IssuerUnreachable", "{status:#?}");
    std::fs::write(&path, ca.ca_pem()).unwrap();
    life.pass(HOUR);
    life.until("issued", |all| all[0].served.is_some()).await;
    assert_eq!(ca.counts().orders, 1);
}
