//! What people are told, for each reason of the closed list; and what is served of what was issued.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use postern_acme::Reason;
use postern_acme::document::Trouble;
use postern_acme::engine::Action;
use postern_acme::engine::CertificateStatus;
use postern_acme::engine::IssuedCertificate;
use postern_acme::engine::ServedCertificate;
use postern_acme::engine::State;
use postern_core::config::parse::parse;
use postern_core::config::problem::ConfigText;
use postern_core::hostname::Hostname;
use postern_core::name::CertificateName;
use postern_core::name::IssuerName;

use super::*;

/// 2026-11-23T12:00:00Z.
const NOW: u64 = 1_795_435_200;
const DAY: u64 = 24 * 60 * 60;

fn golden(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join("tests/fixtures/certs-explained").join(name)
}

fn differs(name: &str, got: &str) -> Option<String> {
    let path = golden(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, got).unwrap();
        return None;
    }
    let want = fs::read_to_string(path).unwrap_or_default();
    (want != got).then(|| format!("--- {name}, expected\n{want}--- got\n{got}"))
}

fn status(host: &str) -> CertificateStatus {
    CertificateStatus {
        name: CertificateName::parse("shop").unwrap(),
        hosts: vec![Hostname::parse(host).unwrap()],
        issuer: IssuerName::parse("letsencrypt").unwrap(),
        served: None,
        action: Action::Order,
        at: NOW + 600,
        is_running: false,
        failures: 0,
        trouble: None,
    }
}

fn served(status: CertificateStatus, left: u64) -> CertificateStatus {
    CertificateStatus {
        served: Some(ServedCertificate {
            issuer: "letsencrypt".to_owned(),
            not_before: NOW + left - 90 * DAY,
            not_after: NOW + left,
            explanation: None,
        }),
        // After what failed.
        action: Action::Renew(NOW + 600),
        ..status
    }
}

/// A certificate in the state that a reason stands for, with words that such a failure has.
fn example(reason: Reason) -> CertificateStatus {
    let host = "shop.example.edu";
    let cname = format!("{host}. 3600 IN CNAME gateway.example.edu.");
    // What is seen, and what is asked for: as the look at the DNS puts it.
    let wanting = |seen: String, record: Option<String>| match record {
        Some(record) => {
            let asked = format!("no order placed; ask the DNS team for: {record}");
            (format!("{seen}; {asked}"), None, Some(record))
        }
        None => (seen, None, None),
    };
    let problem =
        |message: &str, problem: &str| (message.to_owned(), Some(problem.to_owned()), None);
    let message = |message: &str| (message.to_owned(), None, None);
    let (message, problem, record) = match reason {
        Reason::DnsNotFound => wanting(format!("{host} does not exist"), Some(cname)),
        Reason::DnsElsewhere => wanting(
            format!("{host} = {{198.51.100.7}}, but gateway.example.edu is {{192.0.2.1}}"),
            Some(cname),
        ),
        Reason::DnsMixed => wanting(
            format!(
                "{host} = {{192.0.2.1, 2001:db8::2}}, of which 2001:db8::2 is not gateway.example.edu; the CA may pick it"
            ),
            Some(cname),
        ),
        Reason::DnsLoop => message(&format!(
            "{host} -> www.example.edu -> {host} is an alias of itself"
        )),
        Reason::DnsUnreachable => message("DNS server 192.0.2.53:53 did not answer in time"),
        Reason::CaaForbids => wanting(
            "example.edu CAA allows incommon.org, not letsencrypt.org".to_owned(),
            Some("example.edu. 3600 IN CAA 0 issue \"letsencrypt.org\"".to_owned()),
        ),
        Reason::PolicyDenied => message(&format!(
            "the issuer 'letsencrypt' may not be asked for {host}"
        )),
        Reason::RateLimited => problem(
            "the authority asks for a pause",
            "rateLimited: too many certificates already issued for example.edu",
        ),
        Reason::LedgerFull => message(
            "20 certificates were ordered in seven days, which is the share of this gateway; there is room at 2026-11-25T12:00:00Z",
        ),
        Reason::EabRequired => message(
            "https://acme.example/directory makes accounts for its customers alone; add external-account to [issuers.letsencrypt]",
        ),
        Reason::EabRefused => problem(
            "the authority refuses the external account",
            "unauthorized: The account is not awaiting external account binding",
        ),
        Reason::AccountPaused => problem(
            "the authority wants something done by a person first",
            "rateLimited: Your account is temporarily prevented from requesting certificates: paused; visit https://portal.example/unpause",
        ),
        Reason::SolverFailed => message(
            "TSIG key postern refused by 192.0.2.53: the secret is not the server's (BADSIG)",
        ),
        Reason::ValidationFailed => problem(
            &format!("the authority did not find what it looked for at {host}"),
            "connection: 192.0.2.1: Connection refused",
        ),
        Reason::Processing => message("the authority is at work"),
        Reason::OrderRefused => problem(
            "the authority refuses",
            "rejectedIdentifier: the domain is on a list",
        ),
        Reason::IssuerUnreachable => message("no connection to acme.example: connection refused"),
        Reason::CertificateRefused => {
            message(&format!("what was delivered: it does not name {host}"))
        }
        Reason::StorageFailed => message(
            "/var/lib/postern/order/shop.example.edu.json: Read-only file system (os error 30)",
        ),
        Reason::KeyMismatch => message(
            "what is kept cannot be served: the private key does not belong to the certificate",
        ),
        Reason::ExternallyManaged | Reason::Expiring => return served(status(host), 3 * DAY),
    };
    let trouble = Trouble {
        reason: reason.to_string(),
        message,
        problem,
        record,
        at: NOW - 60,
    };
    // The authority was asked in vain; where it was not asked, nothing has failed.
    let has_failed = matches!(
        reason,
        Reason::EabRefused
            | Reason::AccountPaused
            | Reason::ValidationFailed
            | Reason::OrderRefused
            | Reason::IssuerUnreachable
            | Reason::CertificateRefused
            | Reason::RateLimited
            | Reason::EabRequired
            | Reason::SolverFailed
            | Reason::PolicyDenied
    );
    let base = match reason {
        // While the old one is still good.
        Reason::RateLimited | Reason::IssuerUnreachable | Reason::CertificateRefused => {
            served(status(host), 20 * DAY)
        }
        Reason::LedgerFull => CertificateStatus {
            at: NOW + 2 * DAY,
            ..status(host)
        },
        _ => status(host),
    };
    CertificateStatus {
        trouble: Some(trouble),
        failures: u32::from(has_failed),
        ..base
    }
}

fn views(reason: Reason) -> Vec<view::CertificateView> {
    let foreign = postern_proxy::ServedCertificate {
        name: CertificateName::parse("shop").unwrap(),
        hosts: vec![Hostname::parse("shop.example.edu").unwrap()],
        not_before: 1_790_000_000,
        not_after: 1_800_000_000,
    };
    if reason == Reason::ExternallyManaged {
        let text = "[certificates.shop]\ncert-file = '/etc/tls/shop.pem'\nkey-file = '/etc/tls/shop.key'\n";
        let config = loaded(text).config;
        return view::all([foreign].into_iter(), &config, &State::default(), NOW);
    }
    let state = State {
        certificates: vec![example(reason)],
        ..State::default()
    };
    view::all(std::iter::empty(), &Config::default(), &state, NOW)
}

fn loaded(text: &str) -> Loaded {
    let files = [ConfigText {
        path: "a.toml".into(),
        text: text.to_owned(),
    }];
    parse(&files).unwrap()
}

#[test]
fn every_reason_is_explained() {
    let mut differences = Vec::new();
    // And none that there is no more.
    let files = fs::read_dir(golden("")).unwrap();
    for file in files {
        let name = file.unwrap().file_name().into_string().unwrap();
        let reason = name.strip_suffix(".expected").unwrap();
        let is_known = Reason::ALL.iter().any(|known| known.as_str() == reason);
        assert!(is_known || ["table", "json"].contains(&reason), "{name}");
    }
    let mut all = Vec::new();
    for reason in Reason::ALL {
        let views = views(reason);
        let [view] = views.as_slice() else {
            panic!("{reason}: {views:?}");
        };
        assert_eq!(view.reason.as_deref(), Some(reason.as_str()));
        differences.extend(differs(&format!("{reason}.expected"), &text::explain(view)));
        all.extend(views);
    }
    differences.extend(differs("table.expected", &text::table(&all)));
    let json = serde_json::to_string_pretty(&all[1]).unwrap() + "\n";
    differences.extend(differs("json.expected", &json));
    let read: view::CertificateView = serde_json::from_str(&json).unwrap();
    assert_eq!(read, all[1]);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_host_is_found_by_the_names_that_cover_it() {
    let view = |hosts: &[&str]| view::CertificateView {
        hosts: hosts.iter().map(ToString::to_string).collect(),
        ..view::CertificateView::default()
    };
    let views = [view(&["a.test"]), view(&["*.a.test", "b.test"])];
    let count = |host: &str| view::covering(&views, host).len();
    assert_eq!(
        ["a.test", "x.a.test", "*.a.test", "b.test", "c.test"].map(count),
        [1, 1, 1, 1, 0]
    );
    let deep = ["x.y.a.test", "y.b.test", "a.test"].map(|host| view::too_high(&views, host));
    assert_eq!(deep, [Some("*.a.test"), None, None]);
}

#[test]
fn what_was_issued_is_served_under_the_name_that_wanted_it() {
    let files = loaded(
        "runtime.state-dir = 'state'\n[issuers.ca]\ndirectory = 'https://ca.test/dir'\n\
         [certificates.shop]\nissuer = 'ca'\nhosts = ['a.test', 'b.test']\n\
         [listeners.https]\nbind = '[::]:8443'\ntls = { certificates = ['shop'] }\n",
    );
    let name = |text: &str| CertificateName::parse(text).unwrap();
    let certificate = IssuedCertificate {
        chain: "chain".to_owned(),
        key: "key".to_owned(),
    };
    // One that nobody wants any more is not served.
    let issued = [("shop/a.test", &certificate), ("gone", &certificate)];
    let issued = issued.map(|(text, certificate)| (name(text), certificate.clone()));
    let issued = Issued(issued.into_iter().collect());
    let merged = merge(&files, &issued).config;
    let served: Vec<_> = merged
        .certificates
        .keys()
        .map(CertificateName::as_str)
        .collect();
    assert_eq!(served, ["shop/a.test"]);
    let spec = &merged.certificates[&name("shop/a.test")];
    assert_eq!(&*merged.held[&spec.cert_file], b"chain");
    let listener = merged.listeners.values().next().unwrap();
    let listed = &listener.tls.as_ref().unwrap().certificates;
    assert_eq!(listed, &[name("shop/a.test"), name("shop/b.test")]);
    assert!(!format!("{issued:?}").contains("key\""));
}

#[test]
fn a_change_that_changes_nothing_wants_nothing_new() {
    let text = "runtime.state-dir = 'state'\nissuers.ca.directory = 'https://ca.test/dir'\n\
                certificates.shop = { issuer = 'ca', hosts = ['a.test'] }\n";
    let (desired, mut receiver) = watch::channel(Arc::default());
    let shared = watch::channel(Arc::default());
    let mut certificates = Certificates {
        clock: Clock::system(),
        issuers: BTreeMap::new(),
        dns: Default::default(),
        desk: Arc::default(),
        desired,
        issued: shared.1,
        state: watch::channel(Arc::default()).1,
        replica: None,
        waiting: Mutex::new(None),
    };
    certificates.want(&loaded(text).config, None);
    assert!(receiver.has_changed().unwrap());
    receiver.mark_unchanged();
    certificates.want(&loaded(text).config, None);
    assert!(!receiver.has_changed().unwrap());
    certificates.want(&loaded(&text.replace("a.test", "b.test")).config, None);
    assert!(receiver.has_changed().unwrap());
}
