use super::super::test_util::TestDns;
use super::*;

use hickory_proto::op::ResponseCode;

const CLUSTER: &str = "k8s-1.aws.edu";
const ZONES: &str = "
    edu SOA
    vt.edu SOA
    vt.edu A 192.0.2.99
    app1.vt.edu CNAME k8s-1.aws.edu
    hop.vt.edu CNAME app1.vt.edu
    flat.vt.edu A 192.0.2.1
    flat.vt.edu AAAA 2001:db8::1
    onprem.vt.edu A 198.51.100.7
    other.vt.edu CNAME k8s-2.aws.edu
    dangling.vt.edu CNAME gone.vt.edu
    loop.vt.edu CNAME loop.vt.edu
    stray.vt.edu A 192.0.2.1
    stray.vt.edu AAAA 2001:db8::2
    two.vt.edu A 192.0.2.1
    two.vt.edu A 198.51.100.7
    empty.vt.edu TXT nothing
    app2.app1.vt.edu A 198.51.100.8
    bad_host.vt.edu A 192.0.2.1
    aws.edu SOA
    k8s-1.aws.edu A 192.0.2.1
    k8s-1.aws.edu AAAA 2001:db8::1
    *.k8s-1.aws.edu CNAME k8s-1.aws.edu
    k8s-2.aws.edu A 203.0.113.1
    incommon.edu SOA
    incommon.edu CAA 0 issue incommon.org
    app.incommon.edu CNAME k8s-1.aws.edu";

fn reach() -> Reach {
    Reach {
        cluster: Some(CLUSTER.to_owned()),
        ..Reach::default()
    }
}

fn ready(message: &str) -> Verdict {
    Verdict::Ready {
        message: message.to_owned(),
    }
}

fn waits(reason: Reason, message: &str, record: Option<&str>) -> Verdict {
    let message = match record {
        Some(record) => format!("{message}; no order placed; ask the DNS team for: {record}"),
        None => message.to_owned(),
    };
    Verdict::Waits {
        reason,
        message,
        record: record.map(str::to_owned),
    }
}

#[tokio::test]
async fn each_shape_of_dns_has_its_verdict() {
    let dns = TestDns::start(ZONES).await;
    let preflight = DnsPreflight::http(dns.client(), reach());
    let cname = |host: &str| format!("{host}. 3600 IN CNAME k8s-1.aws.edu.");
    let cases = [
        (
            "app1.vt.edu",
            ready("OK via CNAME: app1.vt.edu -> k8s-1.aws.edu"),
        ),
        (
            "hop.vt.edu",
            ready("OK via CNAME: hop.vt.edu -> app1.vt.edu -> k8s-1.aws.edu"),
        ),
        (
            CLUSTER,
            ready("OK: k8s-1.aws.edu is the name of this gateway"),
        ),
        (
            "foo.k8s-1.aws.edu",
            ready(
                "OK via CNAME: foo.k8s-1.aws.edu -> k8s-1.aws.edu; a certificate for \
                 *.k8s-1.aws.edu would do as well",
            ),
        ),
        (
            "flat.vt.edu",
            ready("OK by address 192.0.2.1, 2001:db8::1; a CNAME to k8s-1.aws.edu is preferred"),
        ),
        (
            "onprem.vt.edu",
            waits(
                Reason::DnsElsewhere,
                "onprem.vt.edu = {198.51.100.7}, but k8s-1.aws.edu is {192.0.2.1, 2001:db8::1}",
                Some(&cname("onprem.vt.edu")),
            ),
        ),
        (
            "other.vt.edu",
            waits(
                Reason::DnsElsewhere,
                "other.vt.edu -> k8s-2.aws.edu = {203.0.113.1}, but k8s-1.aws.edu is \
                 {192.0.2.1, 2001:db8::1}",
                Some(&cname("other.vt.edu")),
            ),
        ),
        (
            "app2.app1.vt.edu",
            waits(
                Reason::DnsElsewhere,
                "app2.app1.vt.edu = {198.51.100.8}, but k8s-1.aws.edu is \
                 {192.0.2.1, 2001:db8::1}",
                Some(&cname("app2.app1.vt.edu")),
            ),
        ),
        (
            "new.vt.edu",
            waits(
                Reason::DnsNotFound,
                "new.vt.edu does not exist",
                Some(&cname("new.vt.edu")),
            ),
        ),
        (
            "dangling.vt.edu",
            waits(
                Reason::DnsNotFound,
                "dangling.vt.edu -> gone.vt.edu, which does not exist",
                Some(&cname("dangling.vt.edu")),
            ),
        ),
        (
            "empty.vt.edu",
            waits(
                Reason::DnsNotFound,
                "empty.vt.edu has no address",
                Some(&cname("empty.vt.edu")),
            ),
        ),
        (
            "loop.vt.edu",
            waits(
                Reason::DnsLoop,
                "loop.vt.edu -> loop.vt.edu is an alias of itself",
                None,
            ),
        ),
        (
            "stray.vt.edu",
            waits(
                Reason::DnsMixed,
                "stray.vt.edu = {192.0.2.1, 2001:db8::2}, of which 2001:db8::2 is not \
                 k8s-1.aws.edu; the CA may pick it",
                Some(&cname("stray.vt.edu")),
            ),
        ),
        (
            "two.vt.edu",
            waits(
                Reason::DnsMixed,
                "two.vt.edu = {192.0.2.1, 198.51.100.7}, of which 198.51.100.7 is not \
                 k8s-1.aws.edu; the CA may pick it",
                Some(&cname("two.vt.edu")),
            ),
        ),
        (
            // No alias may stand where a zone begins.
            "vt.edu",
            waits(
                Reason::DnsElsewhere,
                "vt.edu = {192.0.2.99}, but k8s-1.aws.edu is {192.0.2.1, 2001:db8::1}; no order \
                 placed; ask the DNS team for: vt.edu. 3600 IN A 192.0.2.1, vt.edu. 3600 IN AAAA \
                 2001:db8::1",
                None,
            ),
        ),
        (
            "*.vt.edu",
            waits(
                Reason::PolicyDenied,
                "*.vt.edu is a wildcard, which only DNS-01 can prove",
                None,
            ),
        ),
    ];
    for (host, want) in cases {
        let got = preflight.check(host).await;
        if host == "vt.edu" {
            let (
                Verdict::Waits {
                    message, record, ..
                },
                Verdict::Waits { message: want, .. },
            ) = (got, want)
            else {
                panic!("{host} may not be ordered");
            };
            assert_eq!(message, want);
            let lines = "vt.edu. 3600 IN A 192.0.2.1\nvt.edu. 3600 IN AAAA 2001:db8::1";
            assert_eq!(record.as_deref(), Some(lines));
            continue;
        }
        assert_eq!(got, want, "{host}");
    }
}

#[tokio::test]
async fn a_record_that_is_added_is_seen_at_once() {
    let dns = TestDns::start(ZONES).await;
    let preflight = DnsPreflight::http(dns.client(), reach());
    let verdict = preflight.check("new.vt.edu").await;
    assert!(matches!(verdict, Verdict::Waits { .. }), "{verdict:?}");
    dns.add("new.vt.edu CNAME k8s-1.aws.edu");
    let want = ready("OK via CNAME: new.vt.edu -> k8s-1.aws.edu");
    assert_eq!(preflight.check("new.vt.edu").await, want);
}

#[tokio::test]
async fn an_address_of_the_gateway_need_not_have_a_name() {
    let dns = TestDns::start(ZONES).await;
    let reach = Reach {
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        ..Reach::default()
    };
    let preflight = DnsPreflight::http(dns.client(), reach);
    let want = ready("OK by address 192.0.2.1, 2001:db8::1");
    assert_eq!(preflight.check("app1.vt.edu").await, want);
    let Verdict::Waits { record, .. } = preflight.check("new.vt.edu").await else {
        panic!("it does not exist");
    };
    let lines = "new.vt.edu. 3600 IN A 192.0.2.1\nnew.vt.edu. 3600 IN AAAA 2001:db8::1";
    assert_eq!(record.as_deref(), Some(lines));

    let nothing = DnsPreflight::http(dns.client(), Reach::default());
    let want = "OK: onprem.vt.edu = {198.51.100.7}; whether that is this gateway is not configured";
    assert_eq!(nothing.check("onprem.vt.edu").await, ready(want));
}

#[tokio::test]
async fn mixed_addresses_are_taken_where_that_is_allowed() {
    let dns = TestDns::start(ZONES).await;
    let reach = Reach {
        allow_mixed: true,
        ..reach()
    };
    let verdict = DnsPreflight::http(dns.client(), reach)
        .check("stray.vt.edu")
        .await;
    let want = "OK by address, with a risk: stray.vt.edu = {192.0.2.1, 2001:db8::2}, of which \
                2001:db8::2 is not k8s-1.aws.edu; the CA may pick it";
    assert_eq!(verdict, ready(want));
}

#[tokio::test]
async fn answers_that_show_parts_of_one_pool_are_taken_together() {
    let pool = "aws.edu SOA
        edu SOA
        lb.aws.edu A 192.0.2.1
        lb.aws.edu A 192.0.2.2
        lb.aws.edu A 192.0.2.3
        alias.edu A 192.0.2.1
        alias.edu A 192.0.2.2
        alias.edu A 192.0.2.3
        elsewhere.edu A 198.51.100.1
        elsewhere.edu A 198.51.100.2";
    let dns = TestDns::start(pool).await;
    dns.rotate();
    let reach = Reach {
        cluster: Some("lb.aws.edu".to_owned()),
        ..Reach::default()
    };
    let preflight = DnsPreflight::http(dns.client(), reach);
    for _ in 0..8 {
        let verdict = preflight.check("alias.edu").await;
        assert!(matches!(verdict, Verdict::Ready { .. }), "{verdict:?}");
        let verdict = preflight.check("elsewhere.edu").await;
        let reason = match verdict {
            Verdict::Waits { reason, .. } => Some(reason),
            Verdict::Ready { .. } => None,
        };
        assert_eq!(reason, Some(Reason::DnsElsewhere));
    }
}

#[tokio::test]
async fn caa_records_forbid_with_the_record_that_would_allow() {
    let dns = TestDns::start(ZONES).await;
    let ours = vec!["letsencrypt.org".to_owned()];
    let preflight = DnsPreflight::http(dns.client(), reach()).with_caa(ours);
    let want = waits(
        Reason::CaaForbids,
        "incommon.edu CAA allows incommon.org, not letsencrypt.org",
        Some("incommon.edu. 3600 IN CAA 0 issue \"letsencrypt.org\""),
    );
    assert_eq!(preflight.check("app.incommon.edu").await, want);
    let verdict = preflight.check("app1.vt.edu").await;
    assert!(matches!(verdict, Verdict::Ready { .. }), "{verdict:?}");

    let theirs = vec!["incommon.org".to_owned()];
    let preflight = DnsPreflight::http(dns.client(), reach()).with_caa(theirs);
    let verdict = preflight.check("app.incommon.edu").await;
    assert!(matches!(verdict, Verdict::Ready { .. }), "{verdict:?}");
}

#[tokio::test]
async fn servers_that_fail_are_no_answer() {
    let dns = TestDns::start(ZONES).await;
    dns.fail("app1.vt.edu", ResponseCode::ServFail);
    let preflight = DnsPreflight::http(dns.client(), reach());
    let Verdict::Waits { reason, record, .. } = preflight.check("app1.vt.edu").await else {
        panic!("nobody knows where it leads");
    };
    assert_eq!((reason, record), (Reason::DnsUnreachable, None));
}

#[tokio::test]
async fn a_ca_that_asks_for_no_proof_is_not_waited_for() {
    let dns = TestDns::start(ZONES).await;
    let preflight = DnsPreflight::advice(dns.client(), reach());
    let Verdict::Ready { message } = preflight.check("onprem.vt.edu").await else {
        panic!("advice stops nothing");
    };
    assert!(message.starts_with("advice: DnsElsewhere: "), "{message}");
}
