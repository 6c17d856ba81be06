//! Plugins that are fetched: from a server, from a registry, from what was kept of either.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use postern_tests::certs::Authority;
use postern_tests::client::Reply;
use postern_tests::registry::Content;
use postern_tests::registry::GoRegistry;
use postern_tests::registry::Server;
use postern_tests::scratch::Scratch;
use postern_tests::served::Served;
use postern_tests::upstream::Upstream;
use postern_wasm::test_util::component;
use postern_wasm::test_util::guest;
use serde_json::json;
use sha2::Digest as _;
use sha2::Sha256;

use crate::support::postern;

const HOST: &str = r#"
  (import "postern:plugin/request@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32)))
"#;

/// A component that sets `x-plugin` on every request to a word of four letters.
fn plugin(word: &str) -> Vec<u8> {
    assert_eq!(word.len(), 4);
    component(&guest(
        HOST,
        &format!(
            r#"(data (i32.const 0) "x-plugin{word}")
            (func (export "postern:plugin/request-phase@0.1.0#on-request")
              (param $view i32) (param $len i32) (result i32)
              (memory.fill (i32.const 512) (i32.const 0) (i32.const 32))
              (call $set (i32.const 0) (i32.const 8) (i32.const 8) (i32.const 4) (i32.const 600))
              (i32.const 512))"#
        ),
    ))
}

fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `/plugin` needs the plugin, everything else does not.
fn config(app: &Upstream, settings: &str) -> String {
    marked(app, settings, "")
}

/// The same with a response field on `/`.
fn marked(app: &Upstream, settings: &str, mark: &str) -> String {
    format!(
        r#"upstreams.app.endpoints = ["{}"]
        [plugins.guest]
        {settings}
        [[routes]]
        rules = [
          {{ path = {{ prefix = "/plugin" }}, upstream = "app", policies = ["guest"] }},
          {{ upstream = "app", response-headers = {{ set = {{ x-mark = "m{mark}" }} }} }},
        ]
        "#,
        app.addr
    )
}

fn says(word: &str) -> impl Fn(&Reply) -> bool {
    move |reply| reply.status == 200 && reply.echoed("x-plugin") == [word]
}

async fn push(file: &Path, reference: &str) -> String {
    let file = file.display().to_string();
    let (is_pushed, text) = postern(&["plugin", "push", &file, reference]).await;
    assert!(is_pushed, "{text}");
    text.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_plugin_serves_after_a_restart_without_its_registry() {
    let app = Upstream::echo("app").await;
    let dir = Scratch::new();
    let registry = GoRegistry::start().await;
    let file = dir.write("guest.wasm", plugin("real"));
    let reference = format!("oci://{}/acme/guest:v1", registry.addr);
    let source = push(&file, &reference).await;
    // The same content has the same name, with or without a tag.
    let again = push(&file, reference.trim_end_matches(":v1")).await;
    assert_eq!(source, again);

    let config = config(&app, &source);
    let gateway = Served::start(dir.path(), &config).await;
    assert!(says("real")(&gateway.get("/plugin").await));
    let builds = "postern_plugin_builds_total";
    assert_eq!(
        gateway
            .metric(&format!("{builds}{{result=\"compiled\"}}"))
            .await,
        1
    );
    gateway.end().await;

    registry.stop().await;
    let gateway = Served::start(dir.path(), &config).await;
    assert!(says("real")(&gateway.get("/plugin").await));
    assert_eq!(
        gateway
            .metric(&format!("{builds}{{result=\"compiled\"}}"))
            .await,
        0
    );
    assert_eq!(
        gateway
            .metric(&format!("{builds}{{result=\"cached\"}}"))
            .await,
        1
    );
    let fetches = "postern_plugin_fetches_total";
    for result in ["success", "failure"] {
        let name = format!("{fetches}{{result=\"{result}\"}}");
        assert_eq!(gateway.metric(&name).await, 0, "{result}");
    }
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_gateway_would_run_is_not_pushed() {
    let server = Server::http().await;
    let dir = Scratch::new();
    let good = plugin("good");
    let reference = format!("oci://{}/acme/guest", server.addr);
    let cases = [
        (
            "text",
            b"no component".to_vec(),
            "not WebAssembly",
            &*reference,
        ),
        (
            "half of it",
            good[..good.len() / 2].to_vec(),
            "does not compile",
            &reference,
        ),
        (
            "a pinned name",
            good.clone(),
            "is no reference",
            "oci://a.test/b@sha256:00",
        ),
        (
            "another scheme",
            good.clone(),
            "begins with oci://",
            "https://a.test/b",
        ),
    ];
    for (what, bytes, want, reference) in cases {
        let file = dir.write("guest.wasm", bytes).display().to_string();
        let (is_pushed, output) = postern(&["plugin", "push", &file, reference]).await;
        assert!(!is_pushed && output.contains(want), "{what}: {output}");
    }
    assert!(server.asked().is_empty(), "{:?}", server.asked());
    // The registry itself says no: that is told, with what it said.
    server.put("/v2/acme/guest/blobs/uploads/", Content::Status(403));
    let file = dir.write("guest.wasm", good).display().to_string();
    let (is_pushed, output) = postern(&["plugin", "push", &file, &reference]).await;
    assert!(!is_pushed && output.contains("answered 403"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_does_not_wait_for_a_registry_that_is_down() {
    let app = Upstream::echo("app").await;
    let dir = Scratch::new();
    let registry = GoRegistry::start().await;
    let addr = registry.addr;
    let file = dir.write("guest.wasm", plugin("late"));
    let reference = format!("oci://{addr}/acme/guest");
    let source = push(&file, &reference).await;
    registry.stop().await;

    // What a plugin's failure may let pass, its absence may not.
    let settings = format!("{source}\non-error = \"allow\"");
    let gateway = Served::start(dir.path(), &config(&app, &settings)).await;
    assert_eq!(gateway.get("/").await.status, 200);
    // Not past the policy that the route names, whatever it would have done.
    assert_eq!(gateway.get("/plugin").await.status, 503);
    gateway.logs("postern.toml:7:18").await;
    gateway.logs("cannot be fetched").await;

    // It comes back with what was pushed, and nobody has to tell the gateway.
    let registry = GoRegistry::start_at(addr).await;
    push(&file, &reference).await;
    gateway.answers("/plugin", "served", says("late")).await;
    gateway.logs("the configuration problems are solved").await;
    gateway.end().await;
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_https_source_is_fetched_with_its_own_roots_and_login() {
    let app = Upstream::echo("app").await;
    let dir = Scratch::new();
    let authority = Authority::new("Plugins");
    let server = Server::https(&authority.leaf(&["localhost"])).await;
    let elsewhere = Server::https(&authority.leaf(&["localhost"])).await;
    let bytes = plugin("tls!");
    let url =
        |server: &Server, path: &str| format!("https://localhost:{}{path}", server.addr.port());
    server.put(
        "/guest.wasm",
        Content::Redirect(url(&elsewhere, "/stored?signature=s3cret")),
    );
    elsewhere.put_bytes("/stored", bytes.clone());
    dir.write("ca.pem", authority.pem());
    dir.write("password", "pass:word\n");
    let settings = format!(
        "source = \"{}\"\nsha256 = \"{}\"\n\
         fetch = {{ ca-file = \"ca.pem\", user = \"me\", password-file = \"password\" }}",
        url(&server, "/guest.wasm"),
        hex(&bytes)
    );
    let gateway = Served::start(dir.path(), &config(&app, &settings)).await;
    gateway.answers("/plugin", "served", says("tls!")).await;
    let login = format!("Basic {}", BASE64_STANDARD.encode("me:pass:word"));
    let asked = server.asked();
    assert_eq!(asked[0].headers["authorization"], *login);
    // A login is for one origin.
    let asked = elsewhere.asked();
    assert!(!asked[0].headers.contains_key("authorization"), "{asked:?}");
    let log = gateway.end().await;
    assert!(!log.contains("s3cret"), "{log}");
    assert!(!log.contains("pass:word"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_trusted_is_not_fetched() {
    let dir = Scratch::new();
    let authority = Authority::new("Plugins");
    let server = Server::https(&authority.leaf(&["localhost"])).await;
    let clear = Server::http().await;
    let bytes = plugin("good");
    let sha256 = hex(&bytes);
    server.put_bytes("/good.wasm", bytes.clone());
    server.put_bytes("/other.wasm", plugin("evil"));
    server.put_bytes("/large.wasm", vec![0; (32 << 20) + 1]);
    server.put("/loop.wasm", Content::Redirect("/loop.wasm".to_owned()));
    let away = "http://plugins.test:1/x.wasm".to_owned();
    server.put("/away.wasm", Content::Redirect(away));
    server.put("/forbidden.wasm", Content::Status(403));
    clear.put_bytes("/good.wasm", bytes);
    dir.write("ca.pem", authority.pem());
    let foreign = Authority::new("Somebody else");
    dir.write("foreign.pem", foreign.pem());
    let at = format!("https://localhost:{}", server.addr.port());
    let cases = [
        (format!("{at}/good.wasm"), "ca.pem", "good, "),
        (
            format!("http://{}/good.wasm", clear.addr),
            "ca.pem",
            "good, ",
        ),
        (
            format!("{at}/other.wasm"),
            "ca.pem",
            "error: .* has the digest ",
        ),
        (
            format!("{at}/large.wasm"),
            "ca.pem",
            "error: .* larger than ",
        ),
        (
            format!("{at}/loop.wasm"),
            "ca.pem",
            "error: .* redirects more than 5",
        ),
        (
            format!("{at}/away.wasm"),
            "ca.pem",
            "error: .* in clear text",
        ),
        (
            format!("{at}/forbidden.wasm"),
            "ca.pem",
            "error: .* answered 403",
        ),
        (
            format!("{at}/none.wasm"),
            "ca.pem",
            "error: .* answered 404",
        ),
        (
            format!("{at}/good.wasm"),
            "foreign.pem",
            "warning: .* connecting to localhost",
        ),
        (
            format!("{at}/good.wasm"),
            "none.pem",
            "error: .* none.pem cannot be read",
        ),
    ];
    for (url, ca_file, want) in cases {
        let text = format!(
            "[plugins.guest]\nsource = \"{url}\"\nsha256 = \"{sha256}\"\n\
             fetch = {{ ca-file = \"{ca_file}\" }}\n[[routes]]\nrules = [{{ respond = {{ status = \
             204 }}, policies = [\"guest\"] }}]\n"
        );
        let file = dir.write("a.toml", text).display().to_string();
        let (is_good, output) = postern(&["check", &file]).await;
        assert_eq!(is_good, !want.starts_with("error"), "{url}:\n{output}");
        let (severity, rest) = want.split_once(".* ").unwrap_or(("", want));
        let found = output
            .lines()
            .any(|line| line.contains(severity) && line.contains(rest));
        assert!(found, "{url}: no '{want}' in:\n{output}");
        if !severity.is_empty() {
            assert!(output.contains("a.toml:2:10: "), "{url}:\n{output}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_serves_when_it_is_there_and_good() {
    let app = Upstream::echo("app").await;
    let dir = Scratch::new();
    let server = Server::http().await;
    let source = |name: &str, bytes: &[u8]| {
        let sha256 = hex(bytes);
        format!(
            "source = \"http://{}/{name}\"\nsha256 = \"{sha256}\"",
            server.addr
        )
    };
    let (one, two) = (plugin("one1"), plugin("two2"));
    server.put_bytes("/one", one.clone());
    let gateway = Served::start(dir.path(), &config(&app, &source("one", &one))).await;
    assert!(says("one1")(&gateway.get("/plugin").await));

    // Not there yet, and then something else than was named: the old one serves.
    let second = source("two", &two);
    gateway.configure(&marked(&app, &second, "2"));
    gateway.logs("answered 404").await;
    gateway
        .answers("/", "the new configuration", |r| r.header("x-mark") == "m2")
        .await;
    assert!(says("one1")(&gateway.get("/plugin").await));
    server.put_bytes("/two", plugin("evil"));
    gateway.logs("has the digest").await;
    assert!(says("one1")(&gateway.get("/plugin").await));
    server.put_bytes("/two", two);
    gateway.answers("/plugin", "the second", says("two2")).await;

    // There, and no plugin: the old one serves, and what else was changed applies.
    server.put_bytes("/three", "no component");
    let third = source("three", b"no component");
    gateway.configure(&marked(&app, &third, "3"));
    gateway.logs("the file is not WebAssembly").await;
    gateway
        .answers("/", "the new configuration", |r| r.header("x-mark") == "m3")
        .await;
    assert!(says("two2")(&gateway.get("/plugin").await));
    let failed = "postern_plugin_builds_total{result=\"failed\"}";
    let refusals = gateway.metric(failed).await;
    for mark in ["4", "5", "6"] {
        let want = format!("m{mark}");
        gateway.configure(&marked(&app, &third, mark));
        gateway
            .answers("/", "newer still", |r| r.header("x-mark") == want)
            .await;
        assert!(says("two2")(&gateway.get("/plugin").await));
    }
    assert_eq!(
        gateway.metric(failed).await,
        refusals,
        "it is not tried each time"
    );
    gateway.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_logged_in_to_and_every_shape_is_read() {
    let app = Upstream::echo("app").await;
    let server = Server::http().await;
    let token = |token: &str| Content::Guarded {
        bytes: json!({ "token": token }).to_string().into(),
        authorization: format!("Basic {}", BASE64_STANDARD.encode("me:secret")),
        challenge: "Basic realm=\"tokens\"".to_owned(),
    };
    server.put("/token", token("t0k3n"));
    let guarded = |bytes: Vec<u8>| Content::Guarded {
        bytes: bytes.into(),
        authorization: "Bearer t0k3n".to_owned(),
        challenge: format!(
            "Bearer realm=\"http://{}/token\",service=\"plugins\"",
            server.addr
        ),
    };
    let auths = json!({ "auths": { server.addr.to_string(): {
        "auth": BASE64_STANDARD.encode("me:secret"),
    } } });
    let shapes = [
        ("wasm", "application/wasm", plugin("wasm")),
        (
            "old1",
            "application/vnd.wasm.content.layer.v1+wasm",
            plugin("old1"),
        ),
        (
            "tar1",
            "application/vnd.oci.image.layer.v1.tar+gzip",
            archive("plugin.wasm", &plugin("tar1")),
        ),
    ];
    for (word, kind, layer) in shapes {
        let digest = format!("sha256:{}", hex(&layer));
        let manifest = json!({
            "schemaVersion": 2,
            "config": { "mediaType": "application/json", "digest": digest, "size": 2 },
            "layers": [{ "mediaType": kind, "digest": digest, "size": layer.len() }],
        });
        let manifest = manifest.to_string().into_bytes();
        let named = format!("sha256:{}", hex(&manifest));
        server.put(format!("/v2/{word}/manifests/{named}"), guarded(manifest));
        // Where layers really are is another address, as registries in a cloud have it.
        let stored = format!("/stored/{word}");
        server.put_bytes(stored.clone(), layer);
        server.put(
            format!("/v2/{word}/blobs/{digest}"),
            Content::Redirect(format!("http://localhost:{}{stored}", server.addr.port())),
        );
        let dir = Scratch::new();
        dir.write("docker.json", auths.to_string());
        let settings = format!(
            "source = \"oci://{}/{word}@{named}\"\nfetch = {{ docker-config = \"docker.json\" }}",
            server.addr
        );
        let gateway = Served::start(dir.path(), &config(&app, &settings)).await;
        gateway.answers("/plugin", "served", says(word)).await;
        gateway.end().await;
    }
    for asked in server.asked() {
        let is_stored = asked.path.starts_with("/stored/");
        let shows = asked.headers.contains_key("authorization");
        assert!(!(is_stored && shows), "the login went elsewhere: {asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_something_else_builds_nothing() {
    let app = Upstream::echo("app").await;
    let dir = Scratch::new();
    dir.write("guest.wasm", plugin("file"));
    let settings = "source = \"guest.wasm\"";
    let gateway = Served::start(dir.path(), &config(&app, settings)).await;
    let builds = |result: &str| format!("postern_plugin_builds_total{{result=\"{result}\"}}");
    assert_eq!(gateway.metric(&builds("compiled")).await, 1);
    for mark in 1..=10 {
        let want = format!("m{mark}");
        gateway.configure(&marked(&app, settings, &mark.to_string()));
        gateway
            .answers("/", &want, |r| r.header("x-mark") == want)
            .await;
    }
    // Another configuration of the same code is another plugin, and no other code.
    let other = format!("{settings}\nconfig = {{ a = 1 }}");
    gateway.configure(&marked(&app, &other, "last"));
    gateway
        .answers("/", "the last", |r| r.header("x-mark") == "mlast")
        .await;
    assert_eq!(gateway.metric(&builds("compiled")).await, 1);
    assert_eq!(gateway.metric(&builds("cached")).await, 0);
    gateway.end().await;
}

/// A compressed archive with one file.
fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut block = vec![0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    block[156] = b'0';
    block[257..262].copy_from_slice(b"ustar");
    block.extend_from_slice(content);
    block.resize(block.len().next_multiple_of(512) + 1024, 0);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&block).unwrap();
    encoder.finish().unwrap()
}
