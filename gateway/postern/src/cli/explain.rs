//! `postern explain`: what would happen to a request.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use http::StatusCode;
use postern_core::route::RouteTable;

use super::Format;
use super::complain;
use super::complain_of;
use super::print;
use crate::admin;
use crate::admin::client;
use crate::check;
use crate::explain::Question;
use crate::explain::json;

/// Say what would happen to a request, and why
///
/// Sends nothing. Asks the rules of a configuration in the order in which the gateway asks them, and
/// prints for each the first condition that failed, then the rule that answers, the policies that
/// the request passes, and where it would go.
///
/// A request that the gateway refuses before it looks at any rule is explained as well.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  postern explain GET https://shop.example.com/cart?id=1 -H 'Accept: text/html'")]
pub(super) struct Args {
    /// The method, as in GET
    method: String,
    /// The whole URL, as in http://shop.example.com/cart
    url: String,
    /// A header field of the request; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The listener that the request comes in by [default: the first that fits the URL]
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// The configuration to ask
    #[arg(long, value_name = "FILE", default_value = super::DEFAULT_CONFIG, conflicts_with = "admin")]
    config: PathBuf,
    /// Ask a running gateway instead, at its admin address, as in 127.0.0.1:9180
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(addr) = args.admin {
        return ask(addr, &args);
    }
    let headers = args.headers.iter().map(String::as_str);
    let question = match Question::parse(&args.method, &args.url, headers, args.listener) {
        Ok(question) => question,
        Err(error) => {
            complain(format_args!("postern: {error}"));
            return Ok(ExitCode::from(2));
        }
    };
    let checked = check::load(&args.config);
    let Some(loaded) = checked.loaded else {
        complain_of(&checked.problems);
        return Ok(ExitCode::FAILURE);
    };
    let routes = RouteTable::new(&loaded.config.routes);
    match question.ask(&loaded.config, &routes, &loaded.origins) {
        Ok(explanation) if args.format == Format::Json => {
            print(format_args!("{:#}", json::render(&explanation)));
        }
        Ok(explanation) => print(format_args!("{}", explanation.to_string().trim_end())),
        Err(error) => {
            complain(format_args!("postern: {error}"));
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Lets a running gateway explain.
fn ask(addr: SocketAddr, args: &Args) -> anyhow::Result<ExitCode> {
    let mut path = format!(
        "/explain?method={}&url={}",
        admin::encode(&args.method),
        admin::encode(&args.url)
    );
    let headers = args.headers.iter().map(|value| ("header", value.as_str()));
    let listener = args
        .listener
        .iter()
        .map(|value| ("listener", value.as_str()));
    let format = (args.format == Format::Text).then_some(("format", "text"));
    for (name, value) in headers.chain(listener).chain(format) {
        path.push_str(&format!("&{name}={}", admin::encode(value)));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (status, body) = runtime
        .block_on(client::get(addr, &path))
        .with_context(|| format!("cannot ask the gateway at {addr}"))?;
    if status.is_success() {
        print(format_args!("{}", body.trim_end()));
        return Ok(ExitCode::SUCCESS);
    }
    complain(format_args!("postern: {}", body.trim_end()));
    Ok(match status {
        // The question, not the gateway.
        StatusCode::BAD_REQUEST => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    })
}
