//! What the README of each plugin promises, asked of the built gateway by a client.

mod asked;
mod servers;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use super::Bundled;
use super::COMPILED;
use crate::process;
use crate::process::Program;
use crate::scratch::Scratch;
use asked::Asked;
use servers::Servers;

/// How long the gateway may take to start: a debug build that compiles every component.
const START: Duration = Duration::from_secs(300);
/// ann, whose password is `secret`: the line of the README of basic-auth.
const USERS: &str = "ann:$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG.\n";

/// One gateway with every plugin, each at a host of its own.
pub async fn check(plugins: &[Bundled], scratch: &Scratch) -> Result<(), String> {
    let servers = Servers::start().await;
    for plugin in plugins {
        let copied = std::fs::copy(
            &plugin.component,
            scratch.path().join(format!("{}.wasm", plugin.name)),
        );
        copied.map_err(|error| format!("{}: {error}", plugin.component.display()))?;
    }
    scratch.write("users", USERS);
    scratch.write("dns-api.key", "Bearer of good news\n");
    let (http, admin) = (process::free_addr(), process::free_addr());
    let text = config(plugins, scratch, http, admin, &servers);
    let config = scratch.write("postern.toml", &text).display().to_string();
    let arguments = ["run", "--config", &config, "--accept-for", "0s"];
    let mut program = Program::start(&process::postern()?, &arguments, false)
        .map_err(|error| format!("postern cannot be started: {error}"))?;
    program
        .ready(admin, START)
        .await
        .map_err(|error| format!("{error}\n{text}"))?;
    for plugin in plugins {
        let mut asked = Asked::of(http, &host(&plugin.name)).await;
        let checked = match plugin.name.as_str() {
            "acme-challenge" => asked.acme_challenge().await,
            "basic-auth" => asked.basic_auth().await,
            "cors" => asked.cors().await,
            // Asked by who orders certificates alone: see `test-certificates`.
            "dns-http" => Ok(()),
            "forward-auth" => asked.forward_auth().await,
            "headers" => asked.headers().await,
            "ip-access" => asked.ip_access().await,
            "jwt" => asked.jwt(&servers).await,
            "maintenance" => asked.maintenance().await,
            "rate-limit" => asked.rate_limit().await,
            "redirect" => asked.redirect().await,
            "request-id" => match asked.request_id().await {
                Ok(()) => asked.crowded().await,
                error => error,
            },
            "rewrite" => asked.rewrite().await,
            "route-by" => asked.route_by().await,
            "security-headers" => asked.security_headers().await,
            other => Err(format!("nothing is known of {other}: add what it promises")),
        };
        checked.map_err(|message| format!("{}: {message}\n{}", plugin.name, program.output()))?;
    }
    let ended = program.terminate().await;
    ended.map_err(|error| error.to_string())?;
    Ok(())
}

/// As the READMEs have them, where the hosts matter.
fn host(name: &str) -> String {
    match name {
        "acme-challenge" => "app.example.com".to_owned(),
        name => format!("{name}.test"),
    }
}

fn config(
    plugins: &[Bundled],
    scratch: &Scratch,
    http: SocketAddr,
    admin: SocketAddr,
    servers: &Servers,
) -> String {
    let compiled = scratch.path().join(COMPILED);
    let mut text = format!(
        "runtime.cache-dir = \"{}\"\nadmin.bind = \"{admin}\"\n\
         [listeners.http]\nbind = \"{http}\"\nlimits.request-line = \"16KiB\"\n\
         [upstreams.app]\nendpoints = [\"{}\"]\n",
        compiled.display(),
        servers.app.addr
    );
    let mut routes = String::new();
    for plugin in plugins {
        text.push_str(&servers.in_place(&plugin.config));
        let rule = match plugin.name.as_str() {
            // No rule names it, and everything else is sent elsewhere.
            "acme-challenge" | "dns-http" => "{ redirect = { scheme = \"https\" } }".to_owned(),
            name => format!("{{ upstream = \"app\", policies = [\"{name}\"] }}"),
        };
        let _ = writeln!(
            routes,
            "[[routes]]\nhosts = [\"{}\"]\nrules = [{rule}]",
            host(&plugin.name)
        );
    }
    text + &routes
}
