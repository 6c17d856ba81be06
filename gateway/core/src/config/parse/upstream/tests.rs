//! Every key of an upstream, and every way to get one wrong.

use super::*;
use crate::config::parse::parse;
use crate::config::problem::ConfigText;

fn file(upstream: &str) -> ConfigText {
    ConfigText {
        path: "a.toml".into(),
        text: format!("[upstreams.a]\n{upstream}\n"),
    }
}

fn spec(upstream: &str) -> UpstreamSpec {
    let loaded = parse(&[file(upstream)]).unwrap();
    let spec = loaded.config.upstreams.into_values().next().unwrap();
    UpstreamSpec::clone(&spec)
}

#[test]
fn endpoints_are_addresses_or_tables() {
    let spec = spec(
        "endpoints = ['a.test:1', { address = '[::1]:2', weight = 5 }, \
         { address = '10.0.0.1:3', priority = 2 }]",
    );
    let shown: Vec<String> = spec.endpoints.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["a.test:1", "[::1]:2", "10.0.0.1:3"]);
    let shares: Vec<_> = spec.shares.iter().map(|s| (s.weight, s.priority)).collect();
    assert_eq!(shares, [(1, 0), (5, 0), (1, 2)]);
}

#[test]
fn every_mistake_is_found_at_its_place() {
    let one = "endpoints = ['127.0.0.1:1']";
    let cases = [
        (
            "endpoints = [{ weight = 2 }]".to_owned(),
            "lacks the key 'address'",
        ),
        (
            "endpoints = [{ address = 'a:1', wait = 2 }]".to_owned(),
            "unknown key 'wait'",
        ),
        (
            "endpoints = [{ address = 'a:1', weight = 0 }]".to_owned(),
            "weight must be from 1 to 1000",
        ),
        (
            "endpoints = [{ address = 'a:1', priority = 16 }]".to_owned(),
            "priority must be from 0 to 15",
        ),
        (
            "endpoints = ['a:1', { address = 'a:1' }]".to_owned(),
            "is listed twice",
        ),
        (
            "endpoints = [5]".to_owned(),
            "must be a string or a table, not an integer",
        ),
        (
            format!("{one}\nhash-key = 'source'"),
            "a hash-key is of no use here",
        ),
        (
            format!("{one}\nbalance = 'hash'\nhash-key = 'heather:x'"),
            "is no hash key",
        ),
        (
            format!("{one}\nbalance = 'hash'\nhash-key = 'header:a b'"),
            "is no hash key",
        ),
        (format!("{one}\nsticky.cookie = 'a;b'"), "is no cookie name"),
        (format!("{one}\nsticky = {{}}"), "lacks the key 'cookie'"),
        (format!("{one}\nhost = 'a b'"), "is no host"),
        (
            format!("{one}\ntls.cert-file = 'c.pem'"),
            "has cert-file and key-file",
        ),
        (
            format!("{one}\nproxy-protocol = 'v2'\nprotocol = 'http2'"),
            "does not go with http2",
        ),
        (format!("{one}\nproxy-protocol = 'v3'"), "cannot be 'v3'"),
        (
            format!("{one}\nlimits.connections = 0"),
            "connections must be from 1",
        ),
        (
            format!("{one}\nretries.count = 6"),
            "count must be from 0 to 5",
        ),
        (
            format!("{one}\nretries.on-status = [404]"),
            "a status must be from 500 to 599",
        ),
        (
            format!("{one}\nretries.per-try = '2m'"),
            "is longer than all attempts",
        ),
        (format!("{one}\nhealth-check.path = 'x'"), "is no path"),
        (
            format!("{one}\nhealth-check = {{ path = '/', status = '299-200' }}"),
            "is no status",
        ),
        (
            format!("{one}\nhealth-check.status = '200'"),
            "a check without path only connects",
        ),
        (
            format!("{one}\nejection = {{ time = '9s', max-time = '8s' }}"),
            "is shorter than the first",
        ),
        (
            format!("{one}\nejection.max-percent = 101"),
            "max-percent must be from 0 to 100",
        ),
    ];
    for (text, want) in cases {
        let problems = parse(&[file(&text)]).unwrap_err();
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        let problem = &problems[0];
        assert!(
            problem.message.contains(want),
            "{text}: {}",
            problem.message
        );
        assert!(problem.origin.line >= 2, "{text}: {:?}", problem.origin);
    }
}

#[test]
fn what_is_insecure_is_warned_of() {
    let text = "endpoints = ['127.0.0.1:1']\ntls.insecure = true";
    let loaded = parse(&[file(text)]).unwrap();
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert_eq!(
        spec("endpoints = ['a:1']\ntls.insecure = false").tls,
        spec("endpoints = ['a:1']\ntls = {}").tls
    );
}
