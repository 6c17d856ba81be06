//! Streams and connections that stand still.

use std::time::Duration;

use http::Response;
use postern_tests::client::frames::CALM;
use postern_tests::client::frames::CANCEL;
use postern_tests::client::frames::Connection;
use postern_tests::client::frames::DATA;
use postern_tests::client::frames::END_HEADERS;
use postern_tests::client::frames::END_STREAM;
use postern_tests::client::frames::HEADERS;
use postern_tests::client::frames::PING;
use postern_tests::client::frames::PREFACE;
use postern_tests::client::frames::WINDOW_UPDATE;
use postern_tests::client::frames::block;
use postern_tests::client::frames::frame;
use postern_tests::client::frames::get;
use postern_tests::client::frames::headers;
use postern_tests::client::frames::request;
use postern_tests::gateway::SetUp;
use postern_tests::upstream;
use postern_tests::upstream::Upstream;

use super::config;
use super::is_served;

/// SETTINGS_INITIAL_WINDOW_SIZE.
const WINDOW: u16 = 4;

/// An upstream whose answers are larger than any window here.
async fn large() -> Upstream {
    Upstream::http1(|_| async { Response::new(upstream::full("x".repeat(1 << 20))) }).await
}

#[tokio::test]
async fn a_stream_whose_client_takes_nothing_is_reset_and_then_its_connection_ends() {
    let app = large().await;
    let settings = "timeouts = { write-idle = \"300ms\", request-head = \"500ms\" }";
    let gateway = SetUp::new().start(&config(app.addr, settings)).await;
    let addr = gateway.addr("http");

    let mut connection = Connection::with_settings(addr, &[(WINDOW, 0)]).await;
    for stream in [1, 3] {
        connection.send(&get(stream, "/")).await;
    }
    let frames = connection.rest().await;
    for stream in [1, 3] {
        let of_stream: Vec<_> = frames.iter().filter(|f| f.stream == stream).collect();
        let last = of_stream.last().unwrap();
        assert_eq!(last.code(), CANCEL, "{of_stream:?}");
    }
    let lines = gateway.finish().await;
    assert_eq!(lines.len(), 2);
    assert!(
        lines.iter().all(|line| line["outcome"] == "client-stalled"),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_window_that_opens_byte_by_byte_is_no_progress() {
    let app = large().await;
    let settings = "timeouts = { write-idle = \"500ms\" }";
    let gateway = SetUp::new().start(&config(app.addr, settings)).await;
    let mut connection = Connection::with_settings(gateway.addr("http"), &[(WINDOW, 0)]).await;
    connection.send(&get(1, "/")).await;
    for _ in 0..60 {
        let drip = frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
        if !connection.send(&drip).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let outcome = connection.outcome(1).await;
    assert_eq!(outcome.reset, Some(CANCEL), "{} bytes", outcome.body.len());
}

#[tokio::test]
async fn a_stalled_stream_does_not_hold_up_the_others() {
    let app = Upstream::http1(|request| async move {
        let body = if request.uri().path() == "/large" {
            "x".repeat(1 << 20)
        } else {
            "small".to_owned()
        };
        Response::new(upstream::full(body))
    })
    .await;
    let settings = "timeouts = { write-idle = \"400ms\" }";
    let gateway = SetUp::new().start(&config(app.addr, settings)).await;
    let mut connection = Connection::with_settings(gateway.addr("http"), &[(WINDOW, 10)]).await;
    connection.send(&get(1, "/large")).await;
    for stream in (3..101).step_by(2) {
        is_served(&mut connection, stream, "beside a stalled stream").await;
    }
}

#[tokio::test]
async fn a_request_body_that_stops_is_answered_408() {
    let app = Upstream::echo("app").await;
    let settings = "timeouts = { body-idle = \"200ms\" }";
    let gateway = SetUp::new().start(&config(app.addr, settings)).await;
    let mut connection = Connection::open(gateway.addr("http")).await;
    connection
        .send(&headers(1, END_HEADERS, &request("POST", "/")))
        .await;
    connection.send(&frame(DATA, 0, 1, b"some")).await;
    let outcome = connection.outcome(1).await;
    assert_eq!(outcome.status, Some(408), "{outcome:?}");
    is_served(&mut connection, 3, "the connection goes on").await;
}

#[tokio::test]
async fn a_head_that_does_not_end_takes_its_connection_along() {
    let app = Upstream::silent().await;
    let settings = "timeouts = { request-head = \"300ms\" }";
    let gateway = SetUp::new().start(&config(app.addr, settings)).await;
    // Alone, and beside a request that is being served.
    for before in [Vec::new(), get(1, "/")] {
        let mut connection = Connection::open(gateway.addr("http")).await;
        connection.send(&before).await;
        connection
            .send(&frame(HEADERS, END_STREAM, 3, &block(&request("GET", "/"))))
            .await;
        let frames = connection.rest().await;
        let last = frames.last().unwrap();
        assert_eq!(last.code(), CALM, "{frames:?}");
    }
    assert_eq!(super::abuses(&gateway, "slow-head"), 2);
}

#[tokio::test]
async fn a_preface_that_does_not_end_is_not_waited_for() {
    let app = Upstream::echo("app").await;
    let settings = "timeouts = { request-head = \"200ms\" }";
    let gateway = SetUp::new().start(&config(app.addr, settings)).await;
    for length in [0, 1, 3, 4, 12, 23, 24] {
        let mut connection = Connection::bare(gateway.addr("http")).await;
        connection.send(&PREFACE[..length]).await;
        // Ends, or `next` panics.
        connection.rest().await;
    }
}

#[tokio::test]
async fn pings_keep_no_idle_connection() {
    let app = Upstream::echo("app").await;
    let settings = "timeouts = { keep-alive = \"300ms\", request-head = \"300ms\" }";
    let gateway = SetUp::new().start(&config(app.addr, settings)).await;
    let mut connection = Connection::open(gateway.addr("http")).await;
    is_served(&mut connection, 1, "first").await;
    let mut pings = 0;
    while connection.send(&frame(PING, 0, 0, &[0; 8])).await {
        pings += 1;
        assert!(pings < 90, "the connection has not ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_slow_reader_that_goes_on_gets_everything() {
    let app = large().await;
    let settings = "timeouts = { write-idle = \"1s\" }";
    let gateway = SetUp::new().start(&config(app.addr, settings)).await;
    let mut connection =
        Connection::with_settings(gateway.addr("http"), &[(WINDOW, 16 << 10)]).await;
    connection.send(&get(1, "/")).await;
    let mut bytes = 0;
    let mut rounds = 0;
    loop {
        let frame_read = connection.next().await.expect("the connection stays");
        if frame_read.stream != 1 {
            continue;
        }
        if frame_read.kind == DATA {
            bytes += frame_read.payload.len();
            let credit = u32::try_from(frame_read.payload.len())
                .unwrap()
                .to_be_bytes();
            rounds += 1;
            if rounds % 8 == 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            if credit != [0; 4] {
                let update = [
                    frame(WINDOW_UPDATE, 0, 1, &credit),
                    frame(WINDOW_UPDATE, 0, 0, &credit),
                ];
                connection.send(&update.concat()).await;
            }
        }
        if frame_read.ends() {
            break;
        }
    }
    assert_eq!(bytes, 1 << 20);
}
