use super::super::test_util::TestDns;
use super::*;

use hickory_proto::op::MessageType;
use hickory_proto::op::OpCode;
use hickory_proto::rr::rdata;

const ZONES: &str = "
    edu SOA
    vt.edu SOA
    app1.vt.edu CNAME k8s-1.aws.edu
    hop.vt.edu CNAME app1.vt.edu
    gone.vt.edu CNAME nowhere.vt.edu
    one.vt.edu CNAME two.vt.edu
    two.vt.edu CNAME one.vt.edu
    mail.vt.edu TXT hello
    aws.edu SOA
    k8s-1.aws.edu A 192.0.2.1
    k8s-1.aws.edu A 192.0.2.2
    k8s-1.aws.edu AAAA 2001:db8::1";

fn named(text: &str) -> Name {
    name::parse(text).unwrap()
}

fn shown(chain: &[Name]) -> Vec<String> {
    chain.iter().map(name::shown).collect()
}

#[tokio::test]
async fn aliases_are_followed_over_zones_and_stay_visible() {
    let dns = TestDns::start(ZONES).await;
    let client = dns.client();
    let found = client.addresses(&named("hop.vt.edu")).await.unwrap();
    assert_eq!(
        shown(&found.chain),
        ["hop.vt.edu", "app1.vt.edu", "k8s-1.aws.edu"]
    );
    let want = ["192.0.2.1", "192.0.2.2", "2001:db8::1"];
    assert_eq!(found.found, want.map(|ip| ip.parse::<IpAddr>().unwrap()));
    let alias = client.alias(&named("hop.vt.edu")).await.unwrap();
    assert_eq!(alias, Some(named("app1.vt.edu")), "one step, not all");
}

#[tokio::test]
async fn what_is_missing_is_told_from_what_is_empty() {
    let dns = TestDns::start(ZONES).await;
    let client = dns.client();
    let missing = client.addresses(&named("gone.vt.edu")).await.unwrap();
    assert!(!missing.exists && missing.found.is_empty());
    assert_eq!(shown(&missing.chain), ["gone.vt.edu", "nowhere.vt.edu"]);
    let empty = client.addresses(&named("mail.vt.edu")).await.unwrap();
    assert!(empty.exists && empty.found.is_empty());
}

#[tokio::test]
async fn chains_without_an_end_are_given_up() {
    let dns = TestDns::start(ZONES).await;
    let client = dns.client();
    let error = client.addresses(&named("one.vt.edu")).await.unwrap_err();
    let message = "one.vt.edu -> two.vt.edu -> one.vt.edu is an alias of itself";
    assert_eq!(error.to_string(), message);

    let long = |len: usize| {
        let links = (0..len).map(|link| format!("l{link}.vt.edu CNAME l{}.vt.edu\n", link + 1));
        links.collect::<String>() + &format!("l{len}.vt.edu A 192.0.2.9\n")
    };
    dns.add(&long(MAX_ALIASES));
    let found = client.addresses(&named("l0.vt.edu")).await.unwrap();
    assert_eq!(found.chain.len(), MAX_ALIASES + 1);
    dns.remove(&format!("l{MAX_ALIASES}.vt.edu"));
    dns.add(&long(MAX_ALIASES + 1));
    let error = client.addresses(&named("l0.vt.edu")).await.unwrap_err();
    assert!(matches!(error, DnsError::TooManyAliases { .. }), "{error}");
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_asked_for_again() {
    let dns = TestDns::start(ZONES).await;
    dns.truncate();
    let found = dns.client().addresses(&named("app1.vt.edu")).await.unwrap();
    assert_eq!(found.found.len(), 3);
}

#[tokio::test]
async fn the_zone_of_a_name_is_the_lowest_above_it() {
    let dns = TestDns::start(ZONES).await;
    let client = dns.client();
    for (host, want) in [
        ("_acme-challenge.app1.vt.edu", "vt.edu"),
        ("vt.edu", "vt.edu"),
        ("x.y.z.example.edu", "edu"),
    ] {
        let zone = client.zone_of(&named(host)).await.unwrap();
        assert_eq!(name::shown(&zone.apex), want, "{host}");
        assert_eq!(zone.servers.len(), 1);
        assert_eq!(zone.servers[0].addr, dns.addr);
    }
    let error = client.zone_of(&named("example.org")).await.unwrap_err();
    let zone = "org".to_owned();
    assert_eq!(error, DnsError::NoZone { name: zone });
}

#[tokio::test]
async fn a_server_that_fails_is_named() {
    let dns = TestDns::start(ZONES).await;
    dns.fail("app1.vt.edu", ResponseCode::ServFail);
    let error = dns.client().addresses(&named("app1.vt.edu")).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains(&dns.addr.to_string()), "{error}");
    assert!(error.contains("app1.vt.edu"), "{error}");
}

#[tokio::test]
async fn a_name_that_is_not_there_is_not_asked_of_resolvers() {
    let resolver = TestDns::start(ZONES).await;
    let authority = TestDns::start(ZONES).await;
    let client = DnsClient::new(DnsSpec {
        resolvers: vec![resolver.addr],
        authority_port: authority.addr.port(),
    });
    let found = client.addresses(&named("new.vt.edu")).await.unwrap();
    assert!(!found.exists);
    assert_eq!(resolver.was_asked("new.vt.edu"), 0);
    assert_eq!(authority.was_asked("new.vt.edu"), 2);
}

#[tokio::test]
async fn resolvers_answer_where_the_servers_of_a_zone_cannot_be_reached() {
    let resolver = TestDns::start(ZONES).await;
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let client = DnsClient::new(DnsSpec {
        resolvers: vec![resolver.addr],
        authority_port: {
            let port = nobody.local_addr().unwrap().port();
            drop(nobody);
            port
        },
    });
    let found = client.addresses(&named("app1.vt.edu")).await.unwrap();
    assert_eq!(found.found.len(), 3);
}

#[test]
fn an_answer_is_believed_for_the_name_that_was_asked_for() {
    let mut message = Message::new(1, MessageType::Response, OpCode::Query);
    let a = |host: &str| {
        let data = RData::A(rdata::A("192.0.2.9".parse().unwrap()));
        Record::from_rdata(named(host), 60, data)
    };
    message.add_answer(a("evil.example"));
    let host = named("app1.vt.edu");
    assert_eq!(answer_of(&message, &host, RecordType::A), Answer::NoData);
    message.add_answer(a("app1.vt.edu"));
    let records = vec![a("app1.vt.edu")];
    assert_eq!(
        answer_of(&message, &host, RecordType::A),
        Answer::Records(records)
    );
    message.answers.clear();
    let data = RData::CNAME(rdata::CNAME(named("K8S-1.aws.edu")));
    message.add_answer(Record::from_rdata(host.clone(), 60, data));
    // A server that follows an alias to nothing says so of the end, not of the alias.
    message.metadata.response_code = ResponseCode::NXDomain;
    let alias = Answer::Alias(named("k8s-1.aws.edu"));
    assert_eq!(answer_of(&message, &host, RecordType::A), alias);
}

#[test]
fn a_referral_leads_down_and_towards_the_name() {
    let mut message = Message::new(1, MessageType::Response, OpCode::Query);
    let ns = |host: &str| {
        let data = RData::NS(rdata::NS(named("ns.example")));
        Record::from_rdata(named(host), 60, data)
    };
    let (apex, host) = (named("vt.edu"), named("a.cloud.vt.edu"));
    for (owner, want) in [
        ("cloud.vt.edu", true),
        ("vt.edu", false),
        ("edu", false),
        ("other.vt.edu", false),
    ] {
        message.authorities = vec![ns(owner)];
        assert_eq!(is_referral(&message, &apex, &host), want, "{owner}");
    }
    message.authorities = vec![ns("cloud.vt.edu")];
    message.metadata.authoritative = true;
    assert!(!is_referral(&message, &apex, &host), "it answers itself");
}

#[test]
fn the_resolvers_of_the_machine_are_read_as_far_as_they_make_sense() {
    let text = "# nameserver 192.0.2.1\nsearch vt.edu\nnameserver 192.0.2.2\n\
                nameserver\nnameserver x\nnameserver 2001:db8::1\n";
    let want: Vec<SocketAddr> = ["192.0.2.2:53", "[2001:db8::1]:53"]
        .map(|addr| addr.parse().unwrap())
        .into();
    assert_eq!(resolvers_in(text), want);
    assert_eq!(resolvers_in(&"nameserver 192.0.2.2\n".repeat(9)).len(), 4);
}
