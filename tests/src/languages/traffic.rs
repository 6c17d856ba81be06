//! What the README of each example promises, asked of the built gateway by a client.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http::HeaderValue;
use http::Response;
use http::StatusCode;

use super::Built;
use super::COMPILED;
use crate::client::Client;
use crate::client::Reply;
use crate::process;
use crate::process::Program;
use crate::scratch::Scratch;
use crate::upstream;
use crate::upstream::Upstream;

/// How long the gateway may take to start: a debug build that compiles every component.
const START: Duration = Duration::from_secs(300);

/// One gateway with every policy that was built, each at a host of its own.
pub async fn check(built: &[Built], scratch: &Scratch) -> Result<(), String> {
    let app = Upstream::http1(|request| async {
        let mut response = upstream::echo("app", request).await;
        let server = HeaderValue::from_static("app/1.0");
        response.headers_mut().insert("server", server);
        response
    })
    .await;
    let one = Upstream::echo("one").await;
    let two = Upstream::echo("two").await;
    let auth = Upstream::http1(|request| async move {
        let mut response = Response::new(upstream::empty());
        if request.uri().path() == "/check"
            && request.headers().get("x-token") == Some(&HeaderValue::from_static("good"))
        {
            let user = HeaderValue::from_static("ann");
            response.headers_mut().insert("x-user", user);
        } else {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        response
    })
    .await;
    let upstreams = [
        ("app", app.addr),
        ("one", one.addr),
        ("two", two.addr),
        ("auth", auth.addr),
    ];

    let (http, admin) = (process::free_addr(), process::free_addr());
    let config = scratch.write(
        "postern.toml",
        config(
            built,
            &scratch.path().join(COMPILED),
            http,
            admin,
            &upstreams,
        ),
    );
    let config = config.display().to_string();
    let arguments = ["run", "--config", &config, "--accept-for", "0s"];
    let mut program = Program::start(&process::postern()?, &arguments, false)
        .map_err(|error| format!("postern cannot be started: {error}"))?;
    program.ready(admin, START).await?;
    let mut client = Client::http1(http).await;
    for policy in built {
        let host = host(policy);
        let checked = match policy.policy {
            "headers" => headers(&mut client, &host).await,
            "ab-route" => ab_route(&mut client, &host).await,
            "token" => token(&mut client, &host).await,
            other => Err(format!("nothing is known of {other}")),
        };
        checked.map_err(|message| {
            format!(
                "{} {}: {message}\n{}",
                policy.language,
                policy.policy,
                program.output()
            )
        })?;
    }
    program
        .terminate()
        .await
        .map_err(|error| error.to_string())?;
    Ok(())
}

fn host(built: &Built) -> String {
    format!("{}.{}.test", built.policy, built.language)
}

fn config(
    built: &[Built],
    compiled: &Path,
    http: SocketAddr,
    admin: SocketAddr,
    upstreams: &[(&str, SocketAddr)],
) -> String {
    let compiled = compiled.display();
    let mut text = format!(
        "runtime.cache-dir = \"{compiled}\"\nadmin.bind = \"{admin}\"\nlisteners.http.bind = \"{http}\"\n"
    );
    for (name, addr) in upstreams {
        let _ = writeln!(text, "upstreams.{name}.endpoints = [\"{addr}\"]");
    }
    let mut routes = String::new();
    for policy in built {
        let name = format!("{}-{}", policy.policy, policy.language);
        // As the README of each example has it.
        let settings = match policy.policy {
            "headers" => "config = { set = { x-hello = \"world\" }, remove = [\"server\"] }",
            "ab-route" => "config = { a = \"one\", b = \"two\", percent = 10, cookie = \"ab\" }",
            _ => {
                "grants.upstreams = [\"auth\"]\n\
                 config = { upstream = \"auth\", path = \"/check\" }"
            }
        };
        let source = policy.component.display();
        let _ = writeln!(text, "[plugins.{name}]\nsource = \"{source}\"\n{settings}");
        let _ = writeln!(
            routes,
            "[[routes]]\nhosts = [\"{}\"]\n\
             rules = [{{ upstream = \"app\", policies = [\"{name}\"] }}]",
            host(policy)
        );
    }
    text + &routes
}

async fn get(client: &mut Client, host: &str, fields: &[(&str, &str)]) -> Result<Reply, String> {
    let mut request = client.request("GET", host, "/");
    for (name, value) in fields {
        let value = HeaderValue::from_str(value).map_err(|error| error.to_string())?;
        let name = http::HeaderName::try_from(*name).map_err(|error| error.to_string())?;
        request.headers_mut().insert(name, value);
    }
    client
        .send(request)
        .await
        .map_err(|error| error.to_string())
}

/// The status, and `what` with what came instead.
fn expect<T: PartialEq + std::fmt::Debug>(what: &str, got: T, want: T) -> Result<(), String> {
    if got == want {
        return Ok(());
    }
    Err(format!("{what}: expected {want:?}, got {got:?}"))
}

async fn headers(client: &mut Client, host: &str) -> Result<(), String> {
    let reply = get(client, host, &[("x-hello", "old")]).await?;
    expect("status", reply.status, StatusCode::OK)?;
    expect(
        "x-hello upstream",
        reply.echoed("x-hello"),
        vec!["world".to_owned()],
    )?;
    expect("server at the client", reply.headers.get("server"), None)
}

async fn ab_route(client: &mut Client, host: &str) -> Result<(), String> {
    for (cookie, upstream) in [("ab=a", "one"), ("x=1; ab=b", "two")] {
        let reply = get(client, host, &[("cookie", cookie)]).await?;
        expect(cookie, reply.header("x-upstream"), upstream)?;
        expect(
            "no cookie for a known client",
            reply.headers.get("set-cookie").is_some(),
            false,
        )?;
    }
    let mut new = [0, 0];
    for _ in 0..100 {
        let reply = get(client, host, &[("cookie", "ab=made-up")]).await?;
        let cookie = reply
            .headers
            .get("set-cookie")
            .and_then(|v| v.to_str().ok());
        let cookie = cookie.unwrap_or_default().to_owned();
        let (side, at) = match reply.header("x-upstream") {
            "one" => ("ab=a;", 0),
            "two" => ("ab=b;", 1),
            other => return Err(format!("a new client went to {other:?}")),
        };
        expect("the cookie names the side", cookie.starts_with(side), true)?;
        new[at] += 1;
    }
    // One of ten, on the average: none of a hundred, or most of them, is no chance.
    if new[1] == 0 || new[1] > 40 {
        return Err(format!(
            "of 100 new clients {} went to b, with 10 percent",
            new[1]
        ));
    }
    Ok(())
}

async fn token(client: &mut Client, host: &str) -> Result<(), String> {
    let good = [("authorization", "Bearer good"), ("x-user", "root")];
    let reply = get(client, host, &good).await?;
    expect("a good token", reply.status, StatusCode::OK)?;
    expect(
        "x-user upstream",
        reply.echoed("x-user"),
        vec!["ann".to_owned()],
    )?;
    expect(
        "the token upstream",
        reply.echoed("authorization"),
        Vec::new(),
    )?;
    for fields in [
        [("authorization", "Bearer bad"), ("x-user", "root")].as_slice(),
        [("authorization", "Basic good")].as_slice(),
        [("x-user", "root")].as_slice(),
    ] {
        let reply = get(client, host, fields).await?;
        expect(
            &format!("{fields:?}"),
            reply.status,
            StatusCode::UNAUTHORIZED,
        )?;
        expect(
            "www-authenticate",
            reply.header("www-authenticate"),
            "Bearer",
        )?;
    }
    Ok(())
}
