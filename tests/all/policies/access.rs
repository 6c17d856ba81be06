//! Who may pass.

use postern_tests::client;
use postern_tests::client::Client;
use postern_tests::client::Reply;
use postern_tests::gateway::SetUp;
use postern_tests::upstream::Upstream;

use super::with_policies;
use crate::support::upstream_table;

#[tokio::test]
async fn addresses_are_allowed_and_denied() {
    let app = Upstream::echo("app").await;
    for (lists, want) in [
        (r#"allow = ["127.0.0.0/8"]"#, 200),
        (r#"allow = ["10.0.0.0/8"]"#, 403),
        (r#"deny = ["127.0.0.1"]"#, 403),
        (r#"allow = ["127.0.0.0/8"], deny = ["127.0.0.1"]"#, 403),
        (r#"deny = ["::/0"]"#, 403),
        (r#"deny = ["2001:db8::/32"]"#, 200),
    ] {
        let policy = format!(r#"policies.who = {{ kind = "ip-access", {lists} }}"#);
        let config = with_policies(app.addr, &policy, r#"["who"]"#);
        let gateway = SetUp::new().start(&config).await;
        let reply = client::get(gateway.addr("http"), "a.test", "/").await;
        assert_eq!(reply.status, want, "{lists}");
        let lines = gateway.finish().await;
        let outcome = if want == 200 { "ok" } else { "ip-access" };
        assert_eq!(lines[0]["outcome"], outcome, "{lists}");
    }
}

#[tokio::test]
async fn it_is_the_client_that_counts_and_a_strangers_word_does_not() {
    let app = Upstream::echo("app").await;
    let policy = r#"policies.who = { kind = "ip-access", allow = ["192.0.2.0/24"] }"#;
    let config = with_policies(app.addr, policy, r#"["who"]"#);
    for (trust, want) in [
        ("", 403),
        ("listeners.http.trusted-proxies = [\"127.0.0.1\"]\n", 200),
    ] {
        let gateway = SetUp::new().start(&format!("{trust}{config}")).await;
        let mut client = Client::http1(gateway.addr("http")).await;
        let mut request = client.request("GET", "a.test", "/");
        let headers = request.headers_mut();
        headers.insert("x-forwarded-for", "192.0.2.7".parse().unwrap());
        let reply = client.send(request).await.unwrap();
        assert_eq!(reply.status, want, "{trust}");
    }
}

/// Of "secret".
const HASH: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6u7b1XOWKqA7XZANDrnv4IVny/8ABNR66";

/// The value of `authorization`, of a name and a password.
const ANN: &str = "Basic YW5uOnNlY3JldA==";
const ANN_WRONG: &str = "Basic YW5uOndyb25n";
const BOB: &str = "Basic Ym9iOnNlY3JldA==";

async fn with_password(client: &mut Client, authorization: Option<&'static str>) -> Reply {
    let mut request = client.request("GET", "a.test", "/");
    let headers = request.headers_mut();
    headers.insert("x-user", "root".parse().unwrap());
    if let Some(value) = authorization {
        headers.insert("authorization", value.parse().unwrap());
    }
    client.send(request).await.unwrap()
}

#[tokio::test]
async fn a_name_and_a_password_are_asked_for() {
    let app = Upstream::echo("app").await;
    let policy = r#"policies.staff = { kind = "basic-auth", users-file = "users", realm = "staff \"x\"", user-header = "x-user" }"#;
    let config = with_policies(app.addr, policy, r#"["staff"]"#);
    let set_up = SetUp::new().file("users", format!("ann:{HASH}\n"));
    let mut gateway = set_up.start(&config).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    for wrong in [
        None,
        Some(ANN_WRONG),
        Some(BOB),
        Some("Bearer x"),
        Some("Basic !!"),
    ] {
        let reply = with_password(&mut client, wrong).await;
        assert_eq!(reply.status, 401, "{wrong:?}");
        assert_eq!(
            reply.header("www-authenticate"),
            r#"Basic realm="staff \"x\"", charset="UTF-8""#
        );
    }
    // The second time from memory.
    for _ in 0..2 {
        let reply = with_password(&mut client, Some(ANN)).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.echoed("x-user"), ["ann"]);
        assert!(reply.echoed("authorization").is_empty());
    }

    // Who is taken out of the file is out at once, remembered or not.
    gateway.set_up = gateway.set_up.file("users", format!("bob:{HASH}\n"));
    gateway.reload(&config).await.unwrap();
    assert_eq!(with_password(&mut client, Some(ANN)).await.status, 401);
    assert_eq!(with_password(&mut client, Some(BOB)).await.status, 200);

    gateway.set_up = gateway.set_up.file("users", "eve:$apr1$x$y\n");
    let problems = gateway.reload(&config).await.unwrap_err();
    assert!(problems.contains("postern.toml:2:"), "{problems}");
    assert!(problems.contains("line 1 of the file"), "{problems}");
    assert_eq!(with_password(&mut client, Some(BOB)).await.status, 200);

    drop(client);
    let lines = gateway.finish().await;
    assert_eq!(lines[0]["outcome"], "basic-auth");
    assert_eq!(lines[0]["policy"], "staff");
}

#[tokio::test]
async fn guessers_do_not_hold_up_a_worker() {
    let app = Upstream::echo("app").await;
    // A cost of 12: each guess takes a quarter of a second and more.
    let slow = HASH.replace("$05$", "$12$");
    let config = format!(
        "listeners.http.bind = \"127.0.0.1:0\"\npolicies.staff = {{ kind = \"basic-auth\", users-file = \"users\" }}\n{}\n[[routes]]\nrules = [{{ upstream = \"app\" }}, {{ path.prefix = \"/staff\", upstream = \"app\", policies = [\"staff\"] }}]\n",
        upstream_table("app", app.addr)
    );
    let set_up = SetUp::new().file("users", format!("ann:{slow}\n"));
    let gateway = set_up.start(&config).await;
    let addr = gateway.addr("http");
    let mut guesses = tokio::task::JoinSet::new();
    for _ in 0..8 {
        guesses.spawn(async move {
            let mut client = Client::http1(addr).await;
            let mut request = client.request("GET", "a.test", "/staff");
            let value = ANN_WRONG.parse().unwrap();
            request.headers_mut().insert("authorization", value);
            client.send(request).await.unwrap().status
        });
    }
    // The one worker answers others while it waits for the guesses to be checked.
    let mut client = Client::http1(addr).await;
    for _ in 0..20 {
        assert_eq!(client.get("a.test", "/").await.status, 200);
    }
    // Two are checked at a time: when these were answered, the last guesses were still waiting.
    assert!(std::iter::from_fn(|| guesses.try_join_next()).count() < 8);
    for status in guesses.join_all().await {
        assert_eq!(status, 401);
    }
}
