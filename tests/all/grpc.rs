//! gRPC as HTTP/2 sees it: streams in both directions, a status in the trailers.

use bytes::Bytes;
use http::Request;
use http::header;
use http_body_util::BodyExt as _;
use postern_tests::client::Client;
use postern_tests::client::Tls;
use postern_tests::gateway::Running;
use postern_tests::gateway::SetUp;
use postern_tests::upstream;
use postern_tests::upstream::Upstream;

use crate::support::upstream_table;

async fn gateway(app: &Upstream) -> Running {
    let config = format!(
        r#"
        listeners.https = {{ bind = "127.0.0.1:0", tls = {{}} }}
        certificates.one = {{ cert-file = "one.pem", key-file = "one.key" }}
        {}protocol = "http2"
        [[routes]]
        rules = [{{ upstream = "app" }}]
        "#,
        upstream_table("app", app.addr)
    );
    let set_up = SetUp::new().certificate("one", &["grpc.test"]);
    set_up.start(&config).await
}

#[tokio::test]
async fn a_stream_flows_in_both_directions_and_ends_with_its_status() {
    let app = Upstream::grpc_echo().await;
    let gateway = gateway(&app).await;
    let tls = Tls::to(&gateway.set_up.authority, "grpc.test");
    let mut client = Client::tls(gateway.addr("https"), &tls).await;
    assert!(client.is_http2());
    let (mut pieces, body) = upstream::channel();
    let request = Request::post("https://grpc.test/echo.Echo/Chat")
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(body)
        .unwrap();
    let mut response = client.open(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(response.headers()["x-te"], "trailers");
    // Each message is answered before the next is sent: nothing on the way waits for an end.
    for text in ["one", "two", "three"] {
        pieces
            .send_data(Bytes::from_static(text.as_bytes()))
            .await
            .unwrap();
        let frame = response.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), text);
    }
    drop(pieces);
    let frame = response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap()["grpc-status"], "0");
    drop((client, response));
    let lines = gateway.finish().await;
    assert_eq!(lines[0]["outcome"], "ok");
}

#[tokio::test]
async fn a_stream_that_the_client_gives_up_is_given_up_upstream() {
    let (app, mut arrived) = upstream::held().await;
    let config = format!(
        "listeners.http.bind = \"127.0.0.1:0\"\n{}\
         [[routes]]\nrules = [{{ upstream = \"app\" }}]\n",
        upstream_table("app", app.addr)
    );
    let gateway = SetUp::new().start(&config).await;
    let mut client = Client::http2(gateway.addr("http")).await;
    let request = client.request("GET", "a.test", "/");
    let open = tokio::spawn(async move { client.send(request).await.map(|_| ()) });
    let held = arrived.recv().await.unwrap();
    open.abort();
    held.cancelled().await;
    let lines = gateway.finish().await;
    assert_eq!(lines[0]["outcome"], "client-closed");
}
