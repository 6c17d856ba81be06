//! Which rule answers, over real connections.

use postern_tests::client;
use postern_tests::client::Client;
use postern_tests::gateway::SetUp;
use postern_tests::upstream::Upstream;

use crate::support::upstream_table;
use crate::support::with_rules;

#[tokio::test]
async fn host_and_path_choose_the_upstream() {
    let shop = Upstream::echo("shop").await;
    let blog = Upstream::echo("blog").await;
    let any = Upstream::echo("any").await;
    let config = format!(
        r#"
        listeners.http.bind = "127.0.0.1:0"
        {}{}{}
        [[routes]]
        hosts = ["shop.test", "*.shop.test"]
        rules = [
          {{ path = {{ prefix = "/" }}, upstream = "shop" }},
          {{ path = {{ prefix = "/blog" }}, upstream = "blog" }},
          {{ path = {{ exact = "/blog/admin" }}, respond = {{ status = 403 }} }},
        ]
        [[routes]]
        rules = [{{ upstream = "any" }}]
        "#,
        upstream_table("shop", shop.addr),
        upstream_table("blog", blog.addr),
        upstream_table("any", any.addr),
    );
    let gateway = SetUp::new().start(&config).await;
    let cases = [
        ("shop.test", "/", "shop", "the only prefix"),
        ("SHOP.test:80", "/", "shop", "case and port do not matter"),
        ("eu.shop.test", "/", "shop", "one label below a wildcard"),
        (
            "a.b.shop.test",
            "/",
            "any",
            "a wildcard stands for one label",
        ),
        ("shop.test", "/blog/a?b=c", "blog", "the longer prefix"),
        ("shop.test", "/blogs", "shop", "a prefix ends at an element"),
        ("shop.test", "/blog/admin", "", "an exact path"),
        ("shop.test", "/x/../blog/%61dmin", "", "as the path reads"),
        (
            "other.test",
            "/",
            "any",
            "a route without hosts takes the rest",
        ),
    ];
    let mut client = Client::http1(gateway.addr("http")).await;
    for (host, path, want, why) in cases {
        let reply = client.get(host, path).await;
        assert_eq!(reply.header("x-upstream"), want, "{host}{path}: {why}");
    }
}

#[tokio::test]
async fn methods_fields_and_queries_narrow_a_rule() {
    let app = Upstream::echo("app").await;
    let rules = r#"
      { upstream = "app" },
      { methods = ["POST"], respond = { status = 201 } },
      { headers = [{ name = "x-beta", exact = "yes" }], respond = { status = 202 } },
      { query = [{ name = "v", regex = "[0-9]+" }], respond = { status = 203 } },
    "#;
    let gateway = SetUp::new().start(&with_rules(app.addr, rules)).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let cases = [
        ("GET", "/", "", 200),
        ("POST", "/", "", 201),
        ("GET", "/", "yes", 202),
        ("GET", "/", "no", 200),
        ("GET", "/?v=12", "", 203),
        ("GET", "/?v=12a", "", 200),
    ];
    for (method, path, beta, want) in cases {
        let mut request = client.request(method, "a.test", path);
        if !beta.is_empty() {
            request
                .headers_mut()
                .insert("x-beta", beta.parse().unwrap());
        }
        let reply = client.send(request).await.unwrap();
        assert_eq!(reply.status, want, "{method} {path} {beta}");
    }
}

#[tokio::test]
async fn a_rule_redirects_rewrites_and_edits_fields() {
    let app = Upstream::echo("app").await;
    let rules = r#"
      { path = { prefix = "/old" }, redirect = { status = 301, scheme = "https", prefix = "/new" } },
      { path = { prefix = "/api" }, upstream = "app", rewrite = { prefix = "/v1" } },
      { path = { prefix = "/strip" }, upstream = "app", rewrite = { prefix = "/" } },
      { path = { prefix = "/edit" }, upstream = "app",
        request-headers = { set = { x-a = "1" }, remove = ["x-b"] },
        response-headers = { add = { x-c = "3" }, remove = ["x-upstream"] } },
      { path = { exact = "/teapot" }, respond = { status = 418, body = "short and stout" } },
    "#;
    let gateway = SetUp::new().start(&with_rules(app.addr, rules)).await;
    let mut client = Client::http1(gateway.addr("http")).await;

    let reply = client.get("a.test", "/old/page?q=1").await;
    assert_eq!(reply.status, 301);
    assert_eq!(reply.header("location"), "https://a.test/new/page?q=1");

    for (path, want) in [
        ("/api/users?x=%20y", "GET /v1/users?x=%20y"),
        ("/api", "GET /v1"),
        ("/strip/a/b", "GET /a/b"),
        ("/strip", "GET /"),
    ] {
        assert_eq!(
            client.get("a.test", path).await.echoed_line(),
            want,
            "{path}"
        );
    }
    // A prefix may not be turned into a way up.
    let reply = client.get("a.test", "/strip../secret").await;
    assert_eq!(reply.status, 404);

    let mut request = client.request("GET", "a.test", "/edit");
    request.headers_mut().insert("x-b", "2".parse().unwrap());
    let reply = client.send(request).await.unwrap();
    assert_eq!(reply.echoed("x-a"), ["1"]);
    assert_eq!(reply.echoed("x-b"), [""; 0]);
    assert_eq!((reply.header("x-c"), reply.header("x-upstream")), ("3", ""));

    let reply = client.get("a.test", "/teapot").await;
    assert_eq!(
        (reply.status.as_u16(), reply.text().as_str()),
        (418, "short and stout")
    );
}

#[tokio::test]
async fn what_no_rule_accepts_is_not_found() {
    let app = Upstream::echo("app").await;
    let rules = "{ path = { prefix = \"/app\" }, upstream = \"app\" }";
    let gateway = SetUp::new().start(&with_rules(app.addr, rules)).await;
    let reply = client::get(gateway.addr("http"), "a.test", "/else").await;
    assert_eq!(reply.status, 404);
    assert_eq!(app.connections(), 0);
    // The client is told the request's id and nothing of the gateway.
    let id = reply.header("x-request-id").to_owned();
    assert!(!id.is_empty() && reply.text().contains(&id), "{reply:?}");
}

#[tokio::test]
async fn weights_share_requests_between_upstreams() {
    let old = Upstream::echo("old").await;
    let new = Upstream::echo("new").await;
    let config = format!(
        r#"
        listeners.http.bind = "127.0.0.1:0"
        {}{}
        [[routes]]
        rules = [{{ upstreams = [{{ name = "old", weight = 3 }}, {{ name = "new", weight = 1 }}] }}]
        "#,
        upstream_table("old", old.addr),
        upstream_table("new", new.addr),
    );
    let gateway = SetUp::new().start(&config).await;
    let mut client = Client::http1(gateway.addr("http")).await;
    let mut to_new = 0;
    for _ in 0..40 {
        let reply = client.get("a.test", "/").await;
        to_new += usize::from(reply.header("x-upstream") == "new");
    }
    assert_eq!(to_new, 10);
}
