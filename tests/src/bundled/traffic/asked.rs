//! The promises, one function a plugin.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use http::HeaderValue;

use super::servers::Servers;
use crate::client::Client;
use crate::client::Reply;

type Checked = Result<(), String>;

/// A connection to one host of the gateway.
pub(super) struct Asked {
    client: Client,
    host: String,
}

/// `got`, and what was wanted in its place.
fn expect<T: PartialEq + std::fmt::Debug>(what: &str, got: T, want: T) -> Checked {
    if got == want {
        return Ok(());
    }
    Err(format!("{what}: expected {want:?}, got {got:?}"))
}

impl Asked {
    pub(super) async fn of(addr: SocketAddr, host: &str) -> Self {
        Self {
            client: Client::http1(addr).await,
            host: host.to_owned(),
        }
    }

    async fn send(&mut self, line: &str, fields: &[(&str, &str)]) -> Result<Reply, String> {
        let (method, path) = line.split_once(' ').unwrap_or(("GET", line));
        let mut request = self.client.request(method, &self.host, path);
        for (name, value) in fields {
            let value = HeaderValue::from_str(value).map_err(|error| error.to_string())?;
            let name = HeaderName::try_from(*name).map_err(|error| error.to_string())?;
            request.headers_mut().append(name, value);
        }
        let sent = self.client.send(request).await;
        sent.map_err(|error| format!("{line}: {error}"))
    }

    /// The status of an answer.
    async fn status(
        &mut self,
        line: &str,
        fields: &[(&str, &str)],
        want: u16,
    ) -> Result<Reply, String> {
        let reply = self.send(line, fields).await?;
        let what = format!("{line} with {fields:?}");
        expect(&what, reply.status.as_u16(), want)?;
        Ok(reply)
    }

    pub(super) async fn acme_challenge(&mut self) -> Checked {
        const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
        let path = format!("/.well-known/acme-challenge/{TOKEN}");
        let reply = self.status(&path, &[], 200).await?;
        let want = format!("{TOKEN}.LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ");
        expect("the key authorization", reply.text(), want)?;
        // Everything else is redirected, a token that is none included.
        for path in ["/", "/.well-known/acme-challenge/short"] {
            self.status(path, &[], 308).await?;
        }
        Ok(())
    }

    pub(super) async fn basic_auth(&mut self) -> Checked {
        let basic = |credentials: &str| format!("Basic {}", STANDARD.encode(credentials));
        let good = basic("ann:secret");
        for _ in 0..2 {
            let fields = [("authorization", good.as_str()), ("x-user", "root")];
            let reply = self.status("/", &fields, 200).await?;
            expect(
                "x-user upstream",
                reply.echoed("x-user"),
                vec!["ann".to_owned()],
            )?;
            expect(
                "authorization upstream",
                reply.echoed("authorization"),
                Vec::new(),
            )?;
        }
        for credentials in ["ann:wrong", "eve:secret"] {
            let reply = self
                .status("/", &[("authorization", &basic(credentials))], 401)
                .await?;
            let challenge = "Basic realm=\"staff\", charset=\"UTF-8\"";
            expect("the challenge", reply.header("www-authenticate"), challenge)?;
        }
        self.status("/", &[("x-user", "ann")], 401).await.map(drop)
    }

    pub(super) async fn cors(&mut self) -> Checked {
        const ALLOWED: &str = "access-control-allow-origin";
        let known = "https://x.dev.example.com";
        let preflight = [("origin", known), ("access-control-request-method", "PUT")];
        let reply = self.status("OPTIONS /", &preflight, 204).await?;
        expect("the preflight's origin", reply.header(ALLOWED), known)?;
        let methods = reply.header("access-control-allow-methods");
        expect("the preflight's methods", methods, "GET, PUT")?;
        expect("not of the application", reply.header("x-upstream"), "")?;
        let reply = self.status("/", &[("origin", known)], 200).await?;
        expect("a known origin", reply.header(ALLOWED), known)?;
        expect("vary", reply.header("vary"), "Origin")?;
        // The application allows every origin, which is not for it to say.
        let reply = self
            .status("/", &[("origin", "https://evil.test")], 200)
            .await?;
        expect("an unknown origin", reply.headers.get(ALLOWED), None)
    }

    pub(super) async fn forward_auth(&mut self) -> Checked {
        let fields = [("cookie", "sid=ann"), ("x-user", "root")];
        let reply = self.status("/page", &fields, 200).await?;
        expect(
            "x-user upstream",
            reply.echoed("x-user"),
            vec!["ann".to_owned()],
        )?;
        let reply = self.status("/page", &[], 302).await?;
        expect("location", reply.header("location"), "https://login.test/")?;
        self.status("/page", &[("cookie", "sid=eve")], 403).await?;
        self.status("/page", &[("cookie", "sid=broken")], 503)
            .await
            .map(drop)
    }

    pub(super) async fn headers(&mut self) -> Checked {
        let reply = self
            .status("/api/items", &[("x-internal", "1")], 200)
            .await?;
        expect(
            "path upstream",
            reply.echoed_line(),
            "GET /items".to_owned(),
        )?;
        expect(
            "x-postern upstream",
            reply.echoed("x-postern"),
            vec!["1".to_owned()],
        )?;
        expect(
            "x-internal upstream",
            reply.echoed("x-internal"),
            Vec::new(),
        )
    }

    pub(super) async fn ip_access(&mut self) -> Checked {
        self.status("/", &[], 200).await?;
        // Of a client that nobody vouches for.
        self.status("/", &[("x-forwarded-for", "192.0.2.1")], 200)
            .await
            .map(drop)
    }

    pub(super) async fn jwt(&mut self, servers: &Servers) -> Checked {
        let claims = |more: &str| {
            format!(
                r#"{{ "iss": "https://idp.example.com", "aud": "app", "exp": 4102444800, "sub": "ann"{more} }}"#
            )
        };
        let bearer = |token: &str| format!("Bearer {token}");
        let roles = r#", "realm_access": { "roles": ["a", "b"] }"#;
        let good = bearer(&servers.token(&claims(roles)));
        for _ in 0..20 {
            let fields = [
                ("authorization", good.as_str()),
                ("x-user", "root"),
                ("x-roles", "root"),
            ];
            let reply = self.status("/", &fields, 200).await?;
            expect(
                "x-user upstream",
                reply.echoed("x-user"),
                vec!["ann".to_owned()],
            )?;
            expect(
                "x-roles upstream",
                reply.echoed("x-roles"),
                vec!["a,b".to_owned()],
            )?;
            expect(
                "the token upstream",
                reply.echoed("authorization"),
                Vec::new(),
            )?;
        }
        // One connection is one worker, and one at a time is one instance.
        let asked = servers.asked_for_keys.load(Ordering::SeqCst);
        expect("how often the keys were fetched", asked, 1)?;

        let expired = servers.token(&claims("").replace("4102444800", "1"));
        let other = servers.token(&claims("").replace("idp.example.com", "evil.test"));
        let changed = good.replacen("Bearer ", "", 1);
        let parts: Vec<&str> = changed.split('.').collect();
        let none = "eyJhbGciOiJub25lIn0";
        let tokens = [
            expired,
            other,
            format!(
                "{}.{}.{}",
                parts[0],
                parts[1].replacen('e', "f", 1),
                parts[2]
            ),
            format!("{none}.{}.", parts[1]),
            "x".to_owned(),
        ];
        for token in tokens {
            let reply = self
                .status("/", &[("authorization", &bearer(&token))], 401)
                .await?;
            let challenge = reply.header("www-authenticate");
            expect(
                challenge,
                challenge.contains("error=\"invalid_token\""),
                true,
            )?;
        }
        self.status("/", &[("x-user", "root")], 401).await.map(drop)
    }

    pub(super) async fn maintenance(&mut self) -> Checked {
        let reply = self.status("/", &[], 503).await?;
        expect("retry-after", reply.header("retry-after"), "600")?;
        expect("the page", reply.text(), "<h1>Back soon</h1>".to_owned())?;
        self.status("/healthz", &[], 200).await?;
        let reply = self
            .status("/", &[("x-maintenance", "let-me-in-0123456789")], 200)
            .await?;
        expect(
            "the token upstream",
            reply.echoed("x-maintenance"),
            Vec::new(),
        )
    }

    pub(super) async fn rate_limit(&mut self) -> Checked {
        for _ in 0..2 {
            self.status("/", &[], 200).await?;
        }
        let reply = self.status("/", &[], 429).await?;
        let seconds: u32 = reply.header("retry-after").parse().unwrap_or_default();
        expect(
            "retry-after is within its period",
            (1..=60).contains(&seconds),
            true,
        )?;
        expect(
            "ratelimit-policy",
            reply.header("ratelimit-policy"),
            "\"default\";q=2;w=60",
        )?;
        let state = reply.header("ratelimit");
        expect(state, state.starts_with("\"default\";r=0;t="), true)
    }

    pub(super) async fn redirect(&mut self) -> Checked {
        let reply = self.status("/old/page?x=1", &[], 308).await?;
        let want = format!("https://{}/new/page?x=1", self.host);
        expect("location", reply.header("location"), want.as_str())
    }

    pub(super) async fn request_id(&mut self) -> Checked {
        let reply = self
            .status("/", &[("x-request-id", "made-up")], 200)
            .await?;
        let id = reply.header("x-request-id").to_owned();
        // Version 7, and not the client's.
        expect(
            &id,
            id.len() == 36 && id.as_bytes().get(14) == Some(&b'7'),
            true,
        )?;
        expect("the id upstream", reply.echoed("x-request-id"), vec![id])
    }

    pub(super) async fn rewrite(&mut self) -> Checked {
        for (path, want) in [
            ("/users/7/posts/a/b", "GET /posts/a/b?user=7"),
            (
                "/api/v1/items?utm_source=x&q=1",
                "GET /v1/items?q=1&via=edge",
            ),
            ("/other?x", "GET /other?x"),
        ] {
            let reply = self.status(path, &[], 200).await?;
            expect(path, reply.echoed_line(), want.to_owned())?;
        }
        // As long as a path may be, and longer with what the rule adds.
        let long = format!("/api/v1/{}", "x".repeat(8184));
        self.status(&long, &[], 414).await?;
        // Not a fault of the plugin: the next one passes as ever.
        self.status("/api/v1", &[], 200).await.map(drop)
    }

    pub(super) async fn route_by(&mut self) -> Checked {
        let reply = self.status("/x", &[("x-tenant", "green")], 200).await?;
        expect("the tenant's", reply.header("x-upstream"), "green")?;
        expect("its path", reply.echoed_line(), "GET /tenant/x".to_owned())?;
        for side in ["blue", "green"] {
            let reply = self
                .status("/x", &[("cookie", &format!("side={side}"))], 200)
                .await?;
            expect("a side that is known", reply.header("x-upstream"), side)?;
            expect("no new cookie", reply.headers.get("set-cookie"), None)?;
        }
        let reply = self.status("/x", &[], 200).await?;
        let cookie = format!("side={};", reply.header("x-upstream"));
        let told = reply.header("set-cookie");
        expect(told, told.starts_with(&cookie), true)
    }

    pub(super) async fn security_headers(&mut self) -> Checked {
        let reply = self.status("/", &[("x-csp-nonce", "made-up")], 200).await?;
        let nonces = reply.echoed("x-csp-nonce");
        expect("one nonce upstream", nonces.len(), 1)?;
        let csp = format!(
            "default-src 'self'; script-src 'self' 'nonce-{}'",
            nonces[0]
        );
        let got = reply.header("content-security-policy");
        expect("the policy", got, csp.as_str())?;
        expect("not the client's", nonces[0] == "made-up", false)?;
        expect("x-frame-options", reply.header("x-frame-options"), "DENY")?;
        expect("server", reply.headers.get("server"), None)?;
        // Over clear text it would mean nothing.
        expect("hsts", reply.headers.get("strict-transport-security"), None)
    }

    /// A request with as many fields as there may be is the client's doing, and no plugin's fault.
    pub(super) async fn crowded(&mut self) -> Checked {
        let names: Vec<String> = (0..99).map(|n| format!("x-{n}")).collect();
        let fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        for _ in 0..10 {
            let reply = self.send("/", &fields).await?;
            let status = reply.status.as_u16();
            expect(
                "the status of a crowded request",
                status == 431 || status == 200,
                true,
            )?;
        }
        self.status("/", &[], 200).await.map(drop)
    }
}
