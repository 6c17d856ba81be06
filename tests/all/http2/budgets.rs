//! Each budget at its limit, and one past it.

use std::time::Duration;

use postern_tests::client;
use postern_tests::client::frames::CONTINUATION;
use postern_tests::client::frames::Connection;
use postern_tests::client::frames::DATA;
use postern_tests::client::frames::END_HEADERS;
use postern_tests::client::frames::END_STREAM;
use postern_tests::client::frames::HEADERS;
use postern_tests::client::frames::PING;
use postern_tests::client::frames::PRIORITY;
use postern_tests::client::frames::REFUSED;
use postern_tests::client::frames::RST_STREAM;
use postern_tests::client::frames::SETTINGS;
use postern_tests::client::frames::WINDOW_UPDATE;
use postern_tests::client::frames::block;
use postern_tests::client::frames::frame;
use postern_tests::client::frames::get;
use postern_tests::client::frames::headers;
use postern_tests::client::frames::request;
use postern_tests::gateway::SetUp;
use postern_tests::upstream::Upstream;
use postern_tests::upstream::recorder::Recorder;

use super::abuses;
use super::config;
use super::is_calmed;
use super::is_served;

/// A request that is reset at once.
fn reset(stream: u32) -> Vec<u8> {
    [
        get(stream, "/reset"),
        frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
    ]
    .concat()
}

#[tokio::test]
async fn a_budget_is_let_through_and_one_more_ends_the_connection() {
    let app = Upstream::echo("app").await;
    let gateway = SetUp::new().start(&config(app.addr, "")).await;
    let addr = gateway.addr("http");
    let update = |stream| move |_| frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1]);
    let update_connection = update(0);
    // One SETTINGS frame is the client's greeting.
    let cases: [(&str, u32, &dyn Fn(u32) -> Vec<u8>); 6] = [
        ("resets", 50, &|index| reset(2 * index + 1)),
        ("settings", 49, &|_| frame(SETTINGS, 0, 0, &[])),
        ("pings", 100, &|_| frame(PING, 0, 0, &[0; 8])),
        ("priorities", 100, &|_| frame(PRIORITY, 0, 1, &[0; 5])),
        ("priorities", 100, &|_| frame(0x77, 0, 0, b"unknown")),
        ("window-updates", 100, &update_connection),
    ];
    for (kind, limit, unit) in cases {
        let bytes: Vec<u8> = (0..limit).flat_map(unit).collect();
        let mut connection = Connection::open(addr).await;
        connection.send(&bytes).await;
        is_served(&mut connection, 2 * limit + 1, kind).await;

        let before = abuses(&gateway, kind);
        let mut connection = Connection::open(addr).await;
        let bytes: Vec<u8> = (0..=limit).flat_map(unit).collect();
        connection.send(&bytes).await;
        is_calmed(connection, kind).await;
        assert_eq!(abuses(&gateway, kind), before + 1, "{kind}");
    }
    // Nobody else is harmed.
    assert_eq!(client::get(addr, "a.test", "/").await.status, 200);
}

#[tokio::test]
async fn fragments_and_empty_data_have_budgets() {
    let app = Upstream::echo("app").await;
    let gateway = SetUp::new().start(&config(app.addr, "")).await;
    let addr = gateway.addr("http");
    let fragments = |count: u32| {
        let mut bytes = frame(HEADERS, END_STREAM, 1, &block(&request("GET", "/")));
        for _ in 1..count {
            bytes.extend(frame(CONTINUATION, 0, 1, b""));
        }
        bytes.extend(frame(CONTINUATION, END_HEADERS, 1, b""));
        bytes
    };
    let empty = |count: u32| {
        let mut bytes = headers(1, END_HEADERS, &request("POST", "/"));
        for _ in 0..count {
            bytes.extend(frame(DATA, 0, 1, b""));
        }
        bytes.extend(frame(DATA, END_STREAM, 1, b"body"));
        bytes
    };
    // The implementation ends a head of more than six fragments already.
    let mut connection = Connection::open(addr).await;
    connection.send(&fragments(6)).await;
    assert_eq!(connection.outcome(1).await.status, Some(200));
    let mut connection = Connection::open(addr).await;
    connection.send(&fragments(21)).await;
    is_calmed(connection, "continuations").await;
    assert_eq!(abuses(&gateway, "continuations"), 1);

    let cases: [(&str, u32, &dyn Fn(u32) -> Vec<u8>); 1] = [("empty-data", 100, &empty)];
    for (kind, limit, unit) in cases {
        let mut connection = Connection::open(addr).await;
        connection.send(&unit(limit)).await;
        let outcome = connection.outcome(1).await;
        assert_eq!(outcome.status, Some(200), "{kind}: {outcome:?}");

        let mut connection = Connection::open(addr).await;
        connection.send(&unit(limit + 1)).await;
        is_calmed(connection, kind).await;
        assert_eq!(abuses(&gateway, kind), 1, "{kind}");
    }
}

#[tokio::test]
async fn rapid_reset_ends_the_connection_in_every_rhythm() {
    const REQUESTS: u32 = 2000;
    for (at_once, pause) in [(REQUESTS, 0), (10, 0), (1, 0), (1, 2)] {
        let app = Upstream::silent().await;
        let gateway = SetUp::new().start(&config(app.addr, "")).await;
        let mut connection = Connection::open(gateway.addr("http")).await;
        let what = format!("{at_once} at once, {pause} ms");
        let mut sent = 0;
        while sent < REQUESTS {
            let bytes: Vec<u8> = (sent..sent + at_once)
                .flat_map(|i| reset(2 * i + 1))
                .collect();
            if !connection.send(&bytes).await {
                break;
            }
            sent += at_once;
            if pause > 0 {
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
        is_calmed(connection, &what).await;
        assert_eq!(abuses(&gateway, "resets"), 1, "{what}");
        assert!(app.connections() <= 100, "{what}: {}", app.connections());
    }
}

#[tokio::test]
async fn resets_that_a_client_provokes_have_a_budget() {
    let app = Upstream::silent().await;
    let gateway = SetUp::new().start(&config(app.addr, "")).await;
    let addr = gateway.addr("http");

    // More streams than are allowed: each is refused, and after 200 there are no more.
    let mut connection = Connection::open(addr).await;
    let streams: Vec<u8> = (0..100).flat_map(|i| get(2 * i + 1, "/")).collect();
    connection.send(&streams).await;
    connection.send(&get(201, "/")).await;
    let outcome = connection.outcome(201).await;
    assert_eq!(outcome.reset, Some(REFUSED), "{outcome:?}");
    let more: Vec<u8> = (101..301).flat_map(|i| get(2 * i + 1, "/")).collect();
    connection.send(&more).await;
    is_calmed(connection, "refused").await;
    // Whoever counted to the end first. The implementation's GOAWAY reaches the client before the
    // gateway has counted it.
    let ended = || abuses(&gateway, "faults") + abuses(&gateway, "calm");
    let counted = tokio::time::timeout(Duration::from_secs(5), async {
        while ended() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    counted.await.expect("the end is counted");
    assert_eq!(ended(), 1);

    // Windows that overflow.
    let mut connection = Connection::open(addr).await;
    for index in 0..201 {
        let stream = 2 * index + 1;
        let bytes = [
            get(stream, "/"),
            frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes()),
        ];
        if !connection.send(&bytes.concat()).await {
            break;
        }
    }
    is_calmed(connection, "overflow").await;
}

#[tokio::test]
async fn the_primitives_of_made_you_reset_end_the_connection() {
    let app = Upstream::silent().await;
    let gateway = SetUp::new().start(&config(app.addr, "")).await;
    let primitives: [(&str, fn(u32) -> Vec<u8>); 6] = [
        ("window update of 0", |s| {
            frame(WINDOW_UPDATE, 0, s, &[0; 4])
        }),
        ("window overflow", |s| {
            frame(WINDOW_UPDATE, 0, s, &0x7fff_ffff_u32.to_be_bytes())
        }),
        ("short priority", |s| frame(PRIORITY, 0, s, &[0; 4])),
        ("priority on itself", |s| {
            frame(PRIORITY, 0, s, &[s.to_be_bytes().as_slice(), &[0]].concat())
        }),
        ("headers after the end", |s| get(s, "/again")),
        ("data after the end", |s| frame(DATA, 0, s, b"more")),
    ];
    for (what, primitive) in primitives {
        let mut connection = Connection::open(gateway.addr("http")).await;
        for index in 0..201 {
            let stream = 2 * index + 1;
            if !connection
                .send(&[get(stream, "/"), primitive(stream)].concat())
                .await
            {
                break;
            }
        }
        let frames = connection.rest().await;
        let started = frames.iter().filter(|f| f.kind == RST_STREAM).count();
        assert!(started <= 201, "{what}: {started}");
    }
    let gone = tokio::time::timeout(Duration::from_secs(5), async {
        while !gateway
            .metrics()
            .contains("postern_connections_open{listener=\"http\"} 0")
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    gone.await.expect("every connection has ended");
}

#[tokio::test]
async fn fields_are_counted_crumb_by_crumb() {
    // It takes more fields than a gateway's own and the client's.
    let app = Recorder::start().await;
    let gateway = SetUp::new().start(&config(app.addr, "")).await;
    for name in ["cookie", "x-plain"] {
        for (count, want) in [(100, 200), (101, 431), (196, 431)] {
            let mut fields = request("GET", "/").to_vec();
            fields.extend(std::iter::repeat_n((name, &b"a=b"[..]), count));
            // One each: a status that is sent again is a reference to the first.
            let mut connection = Connection::open(gateway.addr("http")).await;
            let bytes = headers(1, END_STREAM | END_HEADERS, &fields);
            connection.send(&bytes).await;
            let outcome = connection.outcome(1).await;
            assert_eq!(outcome.status, Some(want), "{count} {name}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_head_of_far_too_many_fields_is_not_decoded() {
    let app = Recorder::start().await;
    let gateway = SetUp::new().start(&config(app.addr, "")).await;
    for name in ["cookie", "x-plain"] {
        // Twice what a request may have, its four pseudo-fields included, and one more.
        let mut fields = request("GET", "/").to_vec();
        fields.extend(std::iter::repeat_n((name, &b"a=b"[..]), 197));
        let before = abuses(&gateway, "fields");
        let mut connection = Connection::open(gateway.addr("http")).await;
        connection
            .send(&headers(1, END_STREAM | END_HEADERS, &fields))
            .await;
        is_calmed(connection, "fields").await;
        assert_eq!(abuses(&gateway, "fields"), before + 1, "{name}");

        // A field that is said once and named again by one byte each.
        let mut bomb = block(&request("GET", "/"));
        bomb.extend([0x40, name.len() as u8]);
        bomb.extend(name.as_bytes());
        bomb.push(0);
        bomb.extend([0xbe; 400]);
        let mut connection = Connection::open(gateway.addr("http")).await;
        connection
            .send(&frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb))
            .await;
        is_calmed(connection, "a bomb").await;
        assert_eq!(abuses(&gateway, "fields"), before + 2, "{name}");
    }
}

#[tokio::test]
async fn a_field_section_has_a_size() {
    let app = Upstream::echo("app").await;
    let gateway = SetUp::new()
        .start(&config(app.addr, "http2.head = \"8KiB\""))
        .await;
    let size = |fields: &[(&str, &[u8])]| -> usize {
        fields.iter().map(|(n, v)| n.len() + v.len() + 32).sum()
    };
    let rest = (8 << 10) - size(&request("GET", "/")) - 32 - 1;
    for (length, is_served) in [(rest, true), (rest + 1, false)] {
        let value = vec![b'a'; length];
        let mut fields = request("GET", "/").to_vec();
        fields.push(("x", &value));
        let mut connection = Connection::open(gateway.addr("http")).await;
        connection
            .send(&headers(1, END_STREAM | END_HEADERS, &fields))
            .await;
        let outcome = connection.outcome(1).await;
        let want = if is_served { Some(200) } else { Some(431) };
        assert_eq!(outcome.status, want, "{length}: {outcome:?}");
    }
}

#[tokio::test]
async fn requests_of_a_connection_are_counted() {
    let app = Upstream::echo("app").await;
    let settings = "limits.requests = 3\ntimeouts.request-head = \"500ms\"";
    let gateway = SetUp::new().start(&config(app.addr, settings)).await;
    let mut connection = Connection::open(gateway.addr("http")).await;
    for stream in [1, 3] {
        connection.send(&get(stream, "/")).await;
        let outcome = connection.outcome(stream).await;
        assert_eq!(outcome.status, Some(200), "{stream}: {outcome:?}");
        assert_eq!(outcome.goaway, None, "{stream}");
    }
    connection.send(&get(5, "/")).await;
    let frames = connection.rest().await;
    let is_answered = frames.iter().any(|f| f.stream == 5 && f.ends());
    let goaway = frames.iter().find(|f| f.kind == client::frames::GOAWAY);
    assert!(is_answered, "{frames:?}");
    assert_eq!(
        goaway.map(client::frames::Frame::code),
        Some(0),
        "{frames:?}"
    );
}

#[tokio::test]
async fn requests_of_an_http1_connection_are_counted() {
    let app = Upstream::echo("app").await;
    let gateway = SetUp::new()
        .start(&config(app.addr, "limits.requests = 3"))
        .await;
    let mut client = client::Client::http1(gateway.addr("http")).await;
    for (request, connection) in [(1, ""), (2, ""), (3, "close")] {
        let reply = client.get("a.test", "/").await;
        assert_eq!(reply.header("connection"), connection, "{request}");
    }
}
