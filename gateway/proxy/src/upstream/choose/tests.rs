//! Shares, trials, keys and priorities, without a socket.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use postern_core::config::parse::parse;
use postern_core::config::problem::ConfigText;

use super::*;
use crate::upstream::Materials;

fn upstream(text: &str) -> Upstream {
    let file = ConfigText {
        path: "a.toml".into(),
        text: format!("[upstreams.app]\n{text}\n"),
    };
    let loaded = parse(&[file]).unwrap_or_else(|problems| panic!("{problems:?}"));
    let (name, spec) = loaded.config.upstreams.into_iter().next().unwrap();
    Upstream::new(name, spec, Materials::default(), None).unwrap()
}

fn ask(headers: &HeaderMap) -> Ask<'_> {
    Ask {
        headers,
        client: Ipv4Addr::LOCALHOST.into(),
    }
}

fn count(upstream: &Upstream, requests: usize) -> Vec<usize> {
    let headers = HeaderMap::new();
    let turn = Turn::default();
    let mut counts = vec![0; upstream.endpoints.len()];
    for _ in 0..requests {
        let endpoint = upstream.choose(&ask(&headers), &turn, None);
        counts[endpoint.expect("one can serve")] += 1;
    }
    counts
}

const THREE: &str = "endpoints = [{ address = 'a:1', weight = 2 }, 'b:1', 'c:1']";

#[test]
fn weights_are_met_and_what_is_down_gets_nothing() {
    let app = upstream(THREE);
    assert_eq!(count(&app, 400), [200, 100, 100]);
    app.endpoints[0].found(false, Duration::ZERO);
    let counts = count(&app, 1000);
    assert_eq!(counts[0], 0);
    // Turns of the one that is down go to both others alike.
    assert!((400..600).contains(&counts[1]), "{counts:?}");
    app.endpoints[0].found(true, Duration::ZERO);
    assert_eq!(count(&app, 400), [200, 100, 100]);
}

#[test]
fn least_requests_meets_weights_and_leaves_what_is_down_alone() {
    let app = upstream(&format!("{THREE}\nbalance = 'least-requests'"));
    app.endpoints[0].in_flight.store(1, Relaxed);
    app.endpoints[1].in_flight.store(4, Relaxed);
    // Twice the weight: two of two are as much as one of one.
    let counts = count(&app, 999);
    assert_eq!(counts[1], 0, "{counts:?}");
    app.endpoints[2].found(false, Duration::ZERO);
    let counts = count(&app, 999);
    assert_eq!(counts[2], 0, "{counts:?}");
}

#[test]
fn priorities_step_in_one_after_another() {
    let app = upstream(
        "endpoints = ['a:1', 'b:1', { address = 'c:1', priority = 1 }, \
         { address = 'd:1', priority = 2 }]",
    );
    for (down, want) in [
        (None, [50, 50, 0, 0]),
        (Some(0), [0, 100, 0, 0]),
        (Some(1), [0, 0, 100, 0]),
        (Some(2), [0, 0, 0, 100]),
    ] {
        if let Some(down) = down {
            app.endpoints[down as usize].found(false, Duration::ZERO);
        }
        assert_eq!(count(&app, 100), want, "{down:?}");
    }
    // All are down: the upstream fails open, to all of them.
    app.endpoints[3].found(false, Duration::ZERO);
    let counts = count(&app, 1000);
    assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
}

#[test]
fn an_upstream_that_fails_closed_has_no_endpoint_left() {
    for endpoints in ["['a:1']", "['a:1', 'b:1']"] {
        let app = upstream(&format!("endpoints = {endpoints}\nfail-open = false"));
        for endpoint in &app.endpoints {
            endpoint.found(false, Duration::ZERO);
        }
        let headers = HeaderMap::new();
        assert_eq!(app.choose(&ask(&headers), &Turn::default(), None), None);
    }
}

#[test]
fn a_key_stays_with_its_endpoint_and_comes_back_to_it() {
    for (key, field) in [("header:x-user", "x-user"), ("cookie:sid", "cookie")] {
        let app = upstream(&format!(
            "endpoints = ['a:1', 'b:1', 'c:1', 'd:1']\nbalance = 'hash'\nhash-key = '{key}'"
        ));
        let turn = Turn::default();
        let of = |user: usize| {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::try_from(format!("sid={user}")).unwrap();
            headers.insert(field, value);
            app.choose(&ask(&headers), &turn, None).unwrap()
        };
        let before: Vec<usize> = (0..500).map(of).collect();
        app.endpoints[1].found(false, Duration::ZERO);
        let during: Vec<usize> = (0..500).map(of).collect();
        app.endpoints[1].found(true, Duration::ZERO);
        let after: Vec<usize> = (0..500).map(of).collect();
        assert_eq!(before, after, "{key}");
        let mut moved = [0; 4];
        for (before, during) in before.iter().zip(&during) {
            assert_eq!(
                *before != 1,
                before == during,
                "only keys of the one that is down"
            );
            moved[*during] += usize::from(*before == 1);
        }
        assert!(
            [0, 2, 3].iter().all(|&other| moved[other] > 10),
            "{moved:?}"
        );
    }
}

#[test]
fn requests_without_a_key_go_round() {
    let app = upstream("endpoints = ['a:1', 'b:1']\nbalance = 'hash'\nhash-key = 'header:x'");
    assert_eq!(count(&app, 10), [5, 5]);
    let source = upstream("endpoints = ['a:1', 'b:1']\nbalance = 'hash'");
    let counts = count(&source, 10);
    assert!(counts.contains(&10), "{counts:?}");
}

#[test]
fn an_endpoint_that_warms_up_gets_a_part_of_its_share() {
    let app = upstream("endpoints = ['a:1', 'b:1']\nslow-start = '1h'");
    app.endpoints[0].warm(app.spec.slow_start);
    let counts = count(&app, 2000);
    assert!((100..400).contains(&counts[0]), "{counts:?}");
}

#[test]
fn a_retry_goes_elsewhere() {
    let app = upstream("endpoints = ['a:1', 'b:1']\nbalance = 'hash'");
    for tried in [0, 1] {
        let next = app.choose_other(&Turn::default(), &[tried]);
        assert_eq!(next, Some(1 - tried));
    }
    assert_eq!(app.choose_other(&Turn::default(), &[0, 1]), None);
}

#[test]
fn one_request_tries_an_ejected_endpoint_when_its_time_is_over() {
    let app = upstream("endpoints = ['a:1', 'b:1']\nejection = { time = '1h', max-time = '1h' }");
    app.endpoints[0].eject(endpoint::now(), &app.spec.ejection);
    assert_eq!(count(&app, 100), [0, 100]);
    // Ejected an hour ago and more.
    let long = postern_core::config::upstream::EjectionSpec {
        time: Duration::ZERO,
        max_time: Duration::ZERO,
        ..app.spec.ejection
    };
    let trial = upstream("endpoints = ['a:1', 'b:1']\nejection = { time = '1h', max-time = '1h' }");
    trial.endpoints[0].eject(endpoint::now(), &long);
    assert_eq!(count(&trial, 100), [1, 99]);
}

#[test]
fn no_more_than_the_configured_share_is_ejected() {
    let app = upstream(
        "endpoints = ['a:1', 'b:1', 'c:1', 'd:1']\nejection = { failures = 1, time = '1h', \
         max-time = '1h' }",
    );
    for endpoint in 0..4 {
        app.failed(endpoint);
    }
    let ejected = app.endpoints.iter().filter(|e| e.is_ejected()).count();
    assert_eq!(ejected, 2, "half of them");
    let single = upstream("endpoints = ['a:1']\nejection.failures = 1");
    single.failed(0);
    assert!(
        single.endpoints[0].is_plain(),
        "the last one is never ejected"
    );
}

#[test]
fn a_cookie_names_its_endpoint_and_no_address() {
    let app = upstream("endpoints = ['a:1', 'b:1']\nsticky.cookie = 'at'");
    let sticky = app.sticky.as_ref().unwrap();
    for endpoint in [0, 1] {
        for is_tls in [false, true] {
            let cookie = sticky.set_cookie(endpoint, is_tls).to_str().unwrap();
            assert_eq!(cookie.contains("; Secure"), is_tls, "{cookie}");
            assert!(
                cookie.contains("; Path=/; HttpOnly; SameSite=Lax"),
                "{cookie}"
            );
            let mut headers = HeaderMap::new();
            let pair = cookie.split(';').next().unwrap();
            headers.insert("cookie", HeaderValue::from_str(pair).unwrap());
            let turn = Turn::default();
            for _ in 0..3 {
                let named = app.named(&ask(&headers));
                assert_eq!(app.choose(&ask(&headers), &turn, named), Some(endpoint));
            }
        }
    }
    let mut headers = HeaderMap::new();
    headers.insert("cookie", HeaderValue::from_static("at=0000000000000000"));
    assert_eq!(sticky.endpoint(&headers), None);
}

#[test]
fn an_upstream_without_endpoints_has_none_to_choose() {
    for balance in ["round-robin", "least-requests", "hash"] {
        let (name, mut spec) = {
            let full = upstream(&format!("{THREE}\nbalance = '{balance}'"));
            (full.name.clone(), full.spec.clone())
        };
        Arc::make_mut(&mut spec).endpoints.clear();
        Arc::make_mut(&mut spec).shares.clear();
        let empty = Upstream::new(name, spec, Materials::default(), None).unwrap();
        let headers = HeaderMap::new();
        let turn = Turn::default();
        assert_eq!(empty.choose(&ask(&headers), &turn, None), None, "{balance}");
        assert_eq!(empty.choose_other(&turn, &[]), None, "{balance}");
    }
}
