//! What nobody is told: private keys; and what nobody can have ordered: names that are made up.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use postern_tests::certificates::issue::handshake;
use postern_tests::certificates::issue::is_private;
use postern_tests::certificates::scripted::Script;
use postern_tests::client;
use serde_json::Value;
use tokio::time::sleep;

use super::KEY;
use super::POLL;
use super::Site;
use crate::support;

/// Bytes in a row of a key by which it would be known in a dump.
const GIST: usize = 12;

/// The private keys in the documents of a folder, as they stand there.
fn keys(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            keys(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "json") {
            let text = std::fs::read_to_string(path).unwrap();
            let document: Value = serde_json::from_str(&text).unwrap();
            let key = document["key"].as_str();
            found.extend(key.filter(|key| !key.is_empty()).map(str::to_owned));
        }
    }
}

/// All the ways in which a key could be written.
fn shapes(key: &str) -> Vec<String> {
    let lines = key.lines().filter(|line| !line.starts_with('-'));
    let text: String = lines.collect();
    let mut shapes: Vec<String> = key
        .lines()
        .filter(|line| !line.starts_with('-'))
        .map(str::to_owned)
        .collect();
    // That of an account is in the alphabet of ACME.
    let text = text.replace('-', "+").replace('_', "/");
    let bytes = BASE64_STANDARD_NO_PAD
        .decode(text.trim_end_matches('='))
        .unwrap();
    // In the middle of the key itself: what stands before it, and the public key after it, are in
    // certificates too.
    let secret = private_part(&bytes);
    let gist = &secret[..GIST];
    let debug = format!("{gist:?}");
    shapes.push(debug.trim_matches(['[', ']']).to_owned());
    shapes.push(gist.iter().map(|byte| format!("{byte:02x}")).collect());
    shapes.push(gist.iter().map(|byte| format!("{byte:02X}")).collect());
    shapes
}

/// The number that is the key: an octet string of 32 bytes (RFC 5915) in PKCS #8.
fn private_part(bytes: &[u8]) -> &[u8] {
    const LEAD: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];
    let at = bytes.windows(LEAD.len()).position(|part| part == LEAD);
    &bytes[at.unwrap() + LEAD.len()..][..32]
}

#[tokio::test]
async fn no_private_key_is_told_to_anybody() {
    let script = Script {
        binding: Some(("kid-1".to_owned(), KEY.to_owned())),
        ..Script::default()
    };
    let issuer = "external-account = { key-id = \"kid-1\", key-file = \"eab.key\" }";
    let mut site = Site::prepare(script, issuer, &["shop.test", "www.test"]).await;
    site.run_at("trace").await;
    site.until_all("issued", |certificate| certificate["served_from"] == "ca")
        .await;
    site.until_served().await;
    // And an order on its way, whose key nobody has seen yet.
    site.ca
        .direct(|script| script.refuses_orders = Some(("unauthorized", "no")));
    let text = std::fs::read_to_string(site.dir.path().join("postern.toml")).unwrap();
    let more = text.replace("\"www.test\"", "\"www.test\", \"new.test\"");
    site.dir.write("postern.toml", more);
    let is_new = |certificate: &Value| {
        certificate["hosts"][0] != "new.test" || certificate["reason"] == "OrderRefused"
    };
    loop {
        let all = site.until_all("refused", is_new).await;
        if all.len() == 3 {
            break;
        }
        sleep(POLL).await;
    }

    let state = site.dir.path().join("state");
    is_private(&state).unwrap();
    let mut found = Vec::new();
    keys(&state, &mut found);
    // Of an account, two certificates and an order.
    assert_eq!(found.len(), 4);
    let mut told = vec![("the log", site.log())];
    for path in ["/config", "/certs", "/metrics", "/ready", "/"] {
        told.push((path, site.asked(path).await));
    }
    let admin = site.admin.to_string();
    let arguments = ["certs", "explain", "shop.test", "--admin", &admin];
    let (_, explained) = support::postern(&arguments).await;
    told.push(("postern certs explain", explained));
    assert!(told[0].1.contains("DEBUG"), "the log says too little");
    for key in &found {
        for shape in shapes(key) {
            for (place, text) in &told {
                assert!(!text.contains(&shape), "{place} holds a private key");
            }
        }
    }
    for (place, text) in &told {
        assert!(!text.contains(KEY), "{place} holds the key of the binding");
    }
}

#[tokio::test]
async fn names_that_clients_make_up_are_never_ordered() {
    let site = Site::start(Script::default(), "").await;
    site.until("issued", |certificate| certificate["served_from"] == "ca")
        .await;
    let before = site.ca.counts();
    for number in 0..50 {
        let host = format!("{number}.shop.test");
        let shaken = handshake(site.https, site.ca.root(), &host).await;
        assert!(shaken.is_err(), "{host} is served");
        let token = format!("/.well-known/acme-challenge/{number}-made-up-by-a-stranger");
        for path in ["/", &token] {
            let reply = client::get(site.http, &host, path).await;
            assert_eq!(reply.status, 308, "{host}{path}");
        }
    }
    let certificates = site.certificates().await;
    assert_eq!(certificates.len(), 1, "{certificates:#?}");
    let after = site.ca.counts();
    assert_eq!(after.requests, before.requests);
}
