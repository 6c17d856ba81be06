//! `postern explain`: what would happen to a request.

use std::net::IpAddr;
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
use crate::explain::Failure;
use crate::explain::Question;
use crate::explain::Run;
use crate::explain::json;

/// Say what would happen to a request, and why
///
/// Sends nothing. Asks the rules of a configuration in the order in which the gateway asks them, and
/// prints for each the first condition that failed, then the rule that answers, the policies that
/// the request passes, and where it would go.
///
/// A request that the gateway refuses before it looks at any rule is explained as well.
///
/// With --run, the policies of that rule are run, plugins included, and what each of them did to the
/// request and to the response is printed. Of the upstream it is assumed that it answers 200.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  postern explain GET https://shop.example.com/cart?id=1 -H 'Accept: text/html'
  postern explain --run --client 192.0.2.7 GET https://shop.example.com/cart")]
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
    /// Run the policies, and show what each of them does
    #[arg(long, conflicts_with = "admin")]
    run: bool,
    /// The address of the client, for --run
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "127.0.0.1",
        requires = "run"
    )]
    client: IpAddr,
    /// Let policies ask upstreams, for --run; without it they find nobody there
    #[arg(long, requires = "run")]
    callouts: bool,
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
    let asked = question.clone();
    let mut explanation = asked.ask(&loaded.config, &routes, &loaded.origins);
    if let Ok(explanation) = &mut explanation
        && args.run
    {
        let run = Run {
            client: args.client,
            callouts: args.callouts,
        };
        explanation.run = match question.run(&args.config, run) {
            Ok(rehearsal) => rehearsal,
            Err(Failure::Problems(problems)) => {
                complain_of(&problems);
                return Ok(ExitCode::FAILURE);
            }
            Err(Failure::Other(error)) => return Err(error),
        };
    }
    match explanation {
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
