use super::super::Solver;
use super::super::SolverSpec;
use super::super::test_util::TestDns;
use super::super::{DnsSolver as _, TxtRecord, Verdict};
use super::*;

use std::sync::Arc;

use crate::reason::Reason;

const SECRET: &[u8] = b"a secret of thirty-two bytes yes";
const ZONES: &str = "
    edu SOA
    vt.edu SOA
    app1.vt.edu A 192.0.2.1
    _acme-challenge.app2.vt.edu CNAME app2.acme.edu
    acme.edu SOA";

fn spec(dns: &TestDns) -> UpdateSpec {
    UpdateSpec {
        server: dns.addr.to_string(),
        key_name: "postern".to_owned(),
        algorithm: UpdateAlgorithm::HmacSha256,
        secret: Secret::Text(STANDARD.encode(SECRET)),
    }
}

async fn server() -> TestDns {
    let dns = TestDns::start(ZONES).await;
    let name = name::parse("postern").unwrap();
    let key = TSigner::new(SECRET.to_vec(), TsigAlgorithm::HmacSha256, name, FUDGE);
    dns.trust(key.unwrap());
    dns
}

fn solver(dns: &TestDns, spec: &UpdateSpec) -> Solver {
    let writer = UpdateWriter::new(spec, dns.client()).unwrap();
    let solving = SolverSpec {
        propagation: Duration::from_secs(5),
        delegation: Some("acme.edu".to_owned()),
        ..SolverSpec::default()
    };
    Solver::new(solving, dns.client(), Arc::new(writer))
}

fn record(host: &str, value: &str) -> TxtRecord {
    TxtRecord {
        name: format!("_acme-challenge.{host}"),
        value: value.to_owned(),
    }
}

#[tokio::test]
async fn one_value_comes_and_goes_and_others_stay() {
    let dns = server().await;
    let solver = solver(&dns, &spec(&dns));
    let (one, two) = (record("app1.vt.edu", "one"), record("app1.vt.edu", "two"));
    solver.present(&one).await.unwrap();
    solver.present(&two).await.unwrap();
    solver.present(&two).await.unwrap();
    assert_eq!(dns.texts(&one.name), ["one", "two"]);
    solver.withdraw(&one).await.unwrap();
    solver.withdraw(&one).await.unwrap();
    assert_eq!(dns.texts(&one.name), ["two"]);
}

#[tokio::test]
async fn a_delegated_name_is_written_where_it_leads() {
    let dns = server().await;
    let solver = solver(&dns, &spec(&dns));
    let record = record("app2.vt.edu", "value");
    solver.present(&record).await.unwrap();
    assert_eq!(dns.texts("app2.acme.edu"), ["value"]);
    assert!(dns.texts(&record.name).is_empty(), "never at the alias");
    solver.withdraw(&record).await.unwrap();
    assert!(dns.texts("app2.acme.edu").is_empty());
}

#[tokio::test]
async fn a_check_changes_nothing_and_says_what_to_add() {
    let dns = server().await;
    let solver = solver(&dns, &spec(&dns));
    let message = "OK by DNS: _acme-challenge.app2.vt.edu -> app2.acme.edu in acme.edu";
    let message = message.to_owned();
    assert_eq!(
        solver.check("app2.vt.edu").await,
        Verdict::Ready { message }
    );
    assert!(dns.texts("app2.acme.edu").is_empty());

    dns.refuse_updates();
    let verdict = solver.check("*.app1.vt.edu").await;
    let wanted = "_acme-challenge.app1.vt.edu. 3600 IN CNAME app1.vt.edu.acme.edu.";
    let message = format!(
        "{} does not let TSIG key postern change TXT records at _acme-challenge.app1.vt.edu \
         (REFUSED); no order placed; ask the DNS team for: {wanted}",
        dns.addr
    );
    let want = Verdict::Waits {
        reason: Reason::SolverFailed,
        message,
        record: Some(wanted.to_owned()),
    };
    assert_eq!(verdict, want);
}

#[tokio::test]
async fn a_key_that_is_refused_is_told_from_one_that_may_not() {
    let dns = server().await;
    let good = spec(&dns);
    let cases = [
        (
            UpdateSpec {
                secret: Secret::Text(STANDARD.encode([7; 32])),
                ..good.clone()
            },
            "the secret is not the server's (BADSIG)",
        ),
        (
            UpdateSpec {
                key_name: "stranger".to_owned(),
                ..good.clone()
            },
            "no such key for hmac-sha256 (BADKEY)",
        ),
    ];
    for (spec, want) in cases {
        let error = solver(&dns, &spec)
            .present(&record("app1.vt.edu", "x"))
            .await;
        let error = error.unwrap_err();
        assert_eq!(error.reason, Reason::SolverFailed);
        assert!(error.message.contains(want), "{error}");
        assert!(error.message.contains(&spec.key_name), "{error}");
    }
    dns.skew(100_000);
    let error = solver(&dns, &good)
        .present(&record("app1.vt.edu", "x"))
        .await;
    let error = error.unwrap_err().message;
    assert!(error.contains("(BADTIME)"), "{error}");
    assert!(dns.texts("_acme-challenge.app1.vt.edu").is_empty());
}

#[tokio::test]
async fn a_value_that_no_server_shows_is_reported_with_the_servers() {
    let dns = server().await;
    let other = TestDns::start(ZONES).await;
    let writer = UpdateWriter::new(&spec(&dns), dns.client()).unwrap();
    let spec = SolverSpec {
        propagation: Duration::from_secs(1),
        ..SolverSpec::default()
    };
    // Who answers for the zone is not who takes its updates.
    let solver = Solver::new(spec, other.client(), Arc::new(writer));
    let error = solver
        .present(&record("app1.vt.edu", "x"))
        .await
        .unwrap_err();
    let want = "not seen after 1 s: not shown by ns.test (127.0.0.1)";
    assert!(error.message.contains(want), "{error}");
}

#[test]
fn what_cannot_work_is_refused_at_once() {
    let client = DnsClient::new(super::super::DnsSpec::default());
    let good = UpdateSpec {
        server: "ns1.vt.edu".to_owned(),
        key_name: "postern.".to_owned(),
        algorithm: UpdateAlgorithm::HmacSha512,
        secret: Secret::Text(STANDARD.encode(SECRET) + "\n"),
    };
    for server in [
        "ns1.vt.edu",
        "ns1.vt.edu:5353",
        "192.0.2.1",
        "[2001:db8::1]:53",
        "2001:db8::1",
    ] {
        let spec = UpdateSpec {
            server: server.to_owned(),
            ..good.clone()
        };
        assert!(UpdateWriter::new(&spec, client.clone()).is_ok(), "{server}");
    }
    for server in ["", "ns1:x", "ns1:0", "a b", "http://ns1.vt.edu", "."] {
        let spec = UpdateSpec {
            server: server.to_owned(),
            ..good.clone()
        };
        let error = UpdateWriter::new(&spec, client.clone()).unwrap_err();
        assert!(
            matches!(error, UpdateSpecError::Server { .. }),
            "{server}: {error}"
        );
    }
    let key = || "postern".to_owned();
    for (secret, want) in [
        ("***", UpdateSpecError::Base64 { key: key() }),
        ("c2hvcnQ=", UpdateSpecError::Short { key: key(), len: 5 }),
    ] {
        let spec = UpdateSpec {
            secret: Secret::Text(secret.to_owned()),
            ..good.clone()
        };
        assert_eq!(UpdateWriter::new(&spec, client.clone()).unwrap_err(), want);
    }
    let shown = format!("{good:?} {:?}", UpdateWriter::new(&good, client).unwrap());
    assert!(!shown.contains(&STANDARD.encode(SECRET)), "{shown}");
}

#[tokio::test]
async fn a_secret_in_a_file_is_read_when_it_is_used() {
    let dns = server().await;
    let name = format!("postern-acme-{}-tsig", std::process::id());
    let path = std::env::temp_dir().join(name);
    let spec = UpdateSpec {
        secret: Secret::File(path.clone()),
        ..spec(&dns)
    };
    let solver = solver(&dns, &spec);
    let record = record("app1.vt.edu", "x");
    let error = solver.present(&record).await.unwrap_err().message;
    assert!(error.contains("-tsig cannot be read"), "{error}");
    std::fs::write(&path, STANDARD.encode(SECRET) + "\n").unwrap();
    solver.present(&record).await.unwrap();
    std::fs::remove_file(&path).unwrap();
}
