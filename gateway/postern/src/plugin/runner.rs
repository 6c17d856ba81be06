//! Runs the cases of a plugin in the real host, without a gateway: no listener, no upstream, and
//! callouts that a case answers.
//!
//! What is run is what a worker of the gateway runs for one plugin: `route`, `request`, its body,
//! then `response` and its body, and `log` when it is over. A plugin that answers is not shown a
//! response. Ticks come first, in an instance of their own; a challenge and a DNS record are cases
//! by themselves.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::bail;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use postern_core::config::plugin::Grants;
use postern_core::config::plugin::Isolation;
use postern_core::config::plugin::PluginLimits;
use postern_core::config::plugin::SecretSource;
use postern_core::hostname::Authority;
use postern_core::name::PolicyName;
use postern_core::name::UpstreamName;
use postern_core::path::EncodedSlash;
use postern_core::path::RequestPath;
use postern_core::request::RequestHead;
use postern_core::request::Scheme;
use postern_wasm::Action;
use postern_wasm::Component;
use postern_wasm::Exchange;
use postern_wasm::Plugin;
use postern_wasm::PluginEngine;
use postern_wasm::PluginError;
use postern_wasm::PluginSetup;
use postern_wasm::PluginWorker;
use postern_wasm::callout::Callouts;
use postern_wasm::exchange::ChunkAction;
use postern_wasm::exchange::HeldBody;
use postern_wasm::exchange::LocalResponse;
use postern_wasm::exchange::Overflow;
use postern_wasm::exchange::ResponseHead;
use postern_wasm::exchange::Upstreams;
use postern_wasm::plugin::Secrets;
use tokio::runtime::Runtime;
use tokio::time::Instant;
use tracing_subscriber::layer::SubscriberExt as _;

use super::case::Case;
use super::case::CaseFile;
use super::case::GivenChallenge;
use super::case::Headers;
use super::verdict::Message;
use super::verdict::Outcome;
use answers::Answers;
use beside::solve;
use beside::summary;
use beside::tick;
use log::LogLines;

mod answers;
mod beside;
mod log;

/// What a plugin under test may keep in shared state.
const SHARED_STATE: u64 = 1 << 20;
/// Instances that are made anew for the cost of a first call.
const FRESH: usize = 20;

/// A component that is ready to be run.
pub struct Runner {
    runtime: Runtime,
    component: Arc<Component>,
    name: PolicyName,
}

/// What the phases of one case cost.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    /// By phase, in the order in which they are called.
    pub phases: Vec<(&'static str, Quantiles)>,
    /// A new instance, configured, and its first call.
    pub fresh: Duration,
    /// The most memory that an instance had.
    pub memory: u64,
}

/// Times of calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantiles {
    pub p50: Duration,
    pub p90: Duration,
    pub p99: Duration,
    pub max: Duration,
}

/// Times of calls, by phase.
#[derive(Default)]
struct Times(Vec<(&'static str, Vec<Duration>)>);

impl Runner {
    /// Compiles a component, or takes it from `cache_dir` as it was compiled before.
    pub fn open(file: &Path, bytes: &[u8], cache_dir: Option<PathBuf>) -> anyhow::Result<Self> {
        let engine = PluginEngine::new(cache_dir)?;
        let place = || file.display().to_string();
        let component = Component::load(&engine, bytes).with_context(place)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        let name = PolicyName::parse("plugin").context("name")?;
        Ok(Self {
            runtime,
            component,
            name,
        })
    }

    pub fn component(&self) -> &Component {
        &self.component
    }

    /// Runs a case once. An error is about the case, not the plugin.
    pub fn run(&self, file: &CaseFile, case: &Case) -> anyhow::Result<Outcome> {
        let exchange = exchange(file, case)?;
        let logs = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(LogLines::new(Arc::clone(&logs)));
        let answers = Arc::new(Answers::new(case));
        let calls = Arc::clone(&answers);
        let ran = tracing::subscriber::with_default(subscriber, || {
            self.runtime.block_on(async {
                let plugin = self.set_up(file, case).await?;
                let mut times = Times::default();
                let ticked = tick(&plugin, case, &calls).await;
                if let Err(error) = ticked {
                    return Ok(Outcome {
                        fault: Some(fault(&error)),
                        ..Outcome::default()
                    });
                }
                if let Some(record) = &case.dns {
                    return solve(&plugin, record, calls).await;
                }
                let worker = plugin.worker_with(calls);
                once(&worker, case, exchange, &mut times).await
            })
        });
        let mut outcome = match ran {
            Ok(outcome) => outcome,
            Err(Failure::Refused(reason)) => Outcome {
                refused: Some(reason),
                ..Outcome::default()
            },
            Err(Failure::Setup(error)) => return Err(error),
        };
        outcome.logs = std::mem::take(&mut *lock(&logs));
        outcome.calls = answers.problems();
        Ok(outcome)
    }

    /// Runs a case often. Of one that fails nothing is known.
    pub fn measure(&self, file: &CaseFile, case: &Case, calls: usize) -> anyhow::Result<Cost> {
        let answers = Arc::new(Answers::new(case));
        self.runtime.block_on(async {
            let plugin = match self.set_up(file, case).await {
                Ok(plugin) => plugin,
                Err(Failure::Refused(_)) => return Ok(Cost::default()),
                Err(Failure::Setup(error)) => return Err(error),
            };
            let mut fresh = Vec::with_capacity(FRESH);
            for _ in 0..FRESH {
                answers.rewind();
                let exchange = exchange(file, case)?;
                let worker = plugin.worker_with(Arc::clone(&answers) as Arc<dyn Callouts>);
                let mut times = Times::default();
                let _ = once(&worker, case, exchange, &mut times).await;
                let first = times.0.first().and_then(|(_, times)| times.first());
                fresh.extend(first.copied());
            }
            let worker = plugin.worker_with(Arc::clone(&answers) as Arc<dyn Callouts>);
            // Not counted: the first calls make the instance and fault its pages in.
            let mut times = Times::default();
            for warm in [calls.div_ceil(10).min(100), calls] {
                times = Times::default();
                for _ in 0..warm {
                    answers.rewind();
                    let exchange = exchange(file, case)?;
                    let _ = once(&worker, case, exchange, &mut times).await;
                }
            }
            let phases = times.0.into_iter();
            Ok(Cost {
                phases: phases
                    .map(|(phase, times)| (phase, quantiles(times)))
                    .collect(),
                fresh: quantiles(fresh).p50,
                memory: worker.stats().memory_high(),
            })
        })
    }

    async fn set_up(&self, file: &CaseFile, case: &Case) -> Result<Arc<Plugin>, Failure> {
        let upstreams = upstreams(file).map_err(Failure::Setup)?;
        let grants = Grants {
            upstreams: upstreams.into_iter().collect(),
            secrets: file.secrets.keys().map(|name| no_source(name)).collect(),
            shared_state: Some(SHARED_STATE),
            challenges: true,
            dns: true,
        };
        let secrets = file.secrets.iter();
        let secrets = secrets.map(|(name, text)| (name.clone(), Arc::from(text.as_bytes())));
        let setup = PluginSetup {
            name: self.name.clone(),
            config: file.config(case),
            limits: PluginLimits::default(),
            isolation: Isolation::default(),
            grants,
            secrets: Secrets::new(secrets),
        };
        let plugin = Plugin::set_up(Arc::clone(&self.component), setup, None).await;
        plugin.map_err(|error| match error {
            PluginError::Refused(reason) => Failure::Refused(reason),
            error => Failure::Setup(error.into()),
        })
    }
}

/// Why a case was not run to an outcome.
enum Failure {
    /// By the plugin, which may be what was expected.
    Refused(String),
    Setup(anyhow::Error),
}

/// The secrets of a case come from the case.
fn no_source(name: &str) -> (String, SecretSource) {
    (name.to_owned(), SecretSource::Env(String::new()))
}

/// One exchange, as a worker does it.
async fn once(
    worker: &PluginWorker,
    case: &Case,
    mut exchange: Exchange,
    times: &mut Times,
) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::default();
    if let Some(GivenChallenge { token }) = &case.challenge {
        let host = exchange.request.authority.host().to_owned();
        let called = worker.key_authorization(&mut exchange, &host, token);
        match times.take("challenge", called).await {
            Ok(answer) => outcome.key_authorization = answer,
            Err(error) => outcome.fault = Some(fault(&error)),
        }
        return Ok(outcome);
    }
    let mut bodies = Bodies {
        request: case.request.body.clone().into(),
        response: case.response.body.clone().into(),
    };
    let mut ended = phases(
        worker,
        case,
        &mut exchange,
        &mut bodies,
        &mut outcome,
        times,
    )
    .await;
    if worker.has_log_phase() {
        let summary = summary(&exchange, &bodies, &outcome, ended.as_ref().err());
        let called = worker.on_log(&mut exchange, &summary);
        ended = ended.and(times.take("log", called).await);
    }
    if let Err(error) = ended {
        outcome.fault = Some(fault(&error));
    }
    if let Some(name) = &exchange.upstream {
        outcome.upstream = Some(name.to_string());
    }
    let request = &exchange.request;
    outcome.request = Message {
        method: request.method.to_string(),
        path: request.path.as_str().to_owned(),
        host: request.authority.as_str().to_owned(),
        headers: texts(&request.headers),
        body: String::from_utf8_lossy(&bodies.request).into_owned(),
        ..Message::default()
    };
    if let Some(response) = &exchange.response {
        outcome.response = Message {
            status: response.status.as_u16(),
            headers: texts(&response.headers),
            body: String::from_utf8_lossy(&bodies.response).into_owned(),
            ..Message::default()
        };
    }
    Ok(outcome)
}

fn fault(error: &PluginError) -> (String, String) {
    (error.reason().to_owned(), error.to_string())
}

/// The bodies on their way.
struct Bodies {
    request: Bytes,
    response: Bytes,
}

async fn phases(
    worker: &PluginWorker,
    case: &Case,
    exchange: &mut Exchange,
    bodies: &mut Bodies,
    outcome: &mut Outcome,
    times: &mut Times,
) -> Result<(), PluginError> {
    if worker.has_route_phase() {
        let selected = times.take("route", worker.select(exchange)).await?;
        exchange.upstream = match selected {
            // Checked by the gateway, which knows what is configured.
            Some(name) => UpstreamName::parse(&name).ok(),
            None => None,
        };
    }
    if worker.has_request_phase() {
        let mut action = times.take("request", worker.on_request(exchange)).await?;
        if let Action::NeedBody(wish) = &action {
            let Some(mut held) = held(&bodies.request, wish.limit, wish.on_overflow) else {
                outcome.reply = Some(refusal(StatusCode::PAYLOAD_TOO_LARGE));
                return Ok(());
            };
            let called = worker.on_request_body(exchange, &mut held);
            action = times.take("request-body", called).await?;
            if held.is_replaced {
                bodies.request = held.bytes;
            }
        }
        if decided(action, outcome) {
            return Ok(());
        }
    }
    if worker.has_request_stream() {
        let chunk = bodies.request.clone();
        let called = worker.on_request_chunk(exchange, &chunk, true);
        let action = times.take("request-stream", called).await?;
        if passed(action, &mut bodies.request, outcome) {
            return Ok(());
        }
    }

    exchange.response = Some(response(case));
    if worker.phases().response {
        let mut action = times.take("response", worker.on_response(exchange)).await?;
        if let Action::NeedBody(wish) = &action {
            let Some(mut held) = held(&bodies.response, wish.limit, wish.on_overflow) else {
                outcome.reply = Some(refusal(StatusCode::BAD_GATEWAY));
                return Ok(());
            };
            let called = worker.on_response_body(exchange, &mut held);
            action = times.take("response-body", called).await?;
            if held.is_replaced {
                bodies.response = held.bytes;
            }
        }
        if decided(action, outcome) {
            return Ok(());
        }
    }
    if worker.has_response_stream() {
        let chunk = bodies.response.clone();
        let called = worker.on_response_chunk(exchange, &chunk, true);
        let action = times.take("response-stream", called).await?;
        passed(action, &mut bodies.response, outcome);
    }
    Ok(())
}

/// Whether the exchange ends here.
fn decided(action: Action, outcome: &mut Outcome) -> bool {
    match action {
        // A body is held once.
        Action::Next | Action::NeedBody(_) => false,
        Action::Abort => {
            outcome.is_aborted = true;
            true
        }
        Action::Respond(reply) => {
            outcome.reply = Some(replied(&reply));
            true
        }
    }
}

fn passed(action: ChunkAction, body: &mut Bytes, outcome: &mut Outcome) -> bool {
    match action {
        ChunkAction::Pass => false,
        ChunkAction::Replace(bytes) => {
            *body = bytes;
            false
        }
        ChunkAction::Abort => {
            outcome.is_aborted = true;
            true
        }
    }
}

/// None: it is longer than the plugin wants to hold.
fn held(body: &Bytes, limit: usize, on_overflow: Overflow) -> Option<HeldBody> {
    let is_truncated = body.len() > limit;
    if is_truncated && on_overflow == Overflow::Reject {
        return None;
    }
    Some(HeldBody {
        bytes: body.slice(..body.len().min(limit)),
        is_truncated,
        is_replaced: false,
    })
}

fn refusal(status: StatusCode) -> Message {
    Message {
        status: status.as_u16(),
        ..Message::default()
    }
}

fn replied(reply: &LocalResponse) -> Message {
    Message {
        status: reply.status.as_u16(),
        headers: texts(&reply.headers),
        body: String::from_utf8_lossy(&reply.body).into_owned(),
        ..Message::default()
    }
}

fn exchange(file: &CaseFile, case: &Case) -> anyhow::Result<Exchange> {
    let given = &case.request;
    let path = RequestPath::from_text(&given.path, EncodedSlash::Reject);
    let path = path.with_context(|| format!("request.path: `{}`", given.path))?;
    if path.as_str() != given.path {
        bail!(
            "request.path: the gateway makes `{path}` of it; write that",
            path = path.as_str()
        );
    }
    let host = HeaderValue::from_str(&given.host).context("request.host")?;
    let mut request = RequestHead {
        method: Method::try_from(given.method.as_str()).context("request.method")?,
        scheme: match given.scheme.as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => bail!("request.scheme: `{other}` is neither \"http\" nor \"https\""),
        },
        authority: Authority::parse(&host).context("request.host")?,
        path,
        ..RequestHead::default()
    };
    fill(&mut request.headers, &given.headers).context("request.headers")?;
    // Checked here, so that a mistake in a case is never taken for the plugin's.
    fill(&mut HeaderMap::new(), &case.response.headers).context("response.headers")?;
    StatusCode::from_u16(case.response.status).context("response.status")?;
    let client: IpAddr = given.client.parse().context("request.client")?;
    let mut exchange = Exchange::new(request);
    exchange.id = 1;
    exchange.client = Some(client);
    exchange.peer = Some((client, 40_000).into());
    exchange.upstreams = Some(Arc::new(Upstreams::new(upstreams(file)?)));
    Ok(exchange)
}

fn response(case: &Case) -> ResponseHead {
    let mut headers = HeaderMap::new();
    // It was checked with the request.
    let _ = fill(&mut headers, &case.response.headers);
    ResponseHead {
        status: StatusCode::from_u16(case.response.status).unwrap_or_default(),
        headers,
    }
}

fn upstreams(file: &CaseFile) -> anyhow::Result<Vec<UpstreamName>> {
    let names = file.upstreams.iter();
    let parsed = names.map(|name| UpstreamName::parse(name).context("upstreams"));
    parsed.collect()
}

fn fill(headers: &mut HeaderMap, given: &Headers) -> anyhow::Result<()> {
    for (name, values) in given {
        let place = || format!("`{name}`");
        let name = HeaderName::try_from(name.as_str()).with_context(place)?;
        for value in values.iter() {
            let value = HeaderValue::from_str(value).with_context(place)?;
            headers.append(name.clone(), value);
        }
    }
    Ok(())
}

fn texts(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        texts.entry(name.to_string()).or_default().push(text(value));
    }
    texts
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

impl Times {
    async fn take<T>(
        &mut self,
        phase: &'static str,
        call: impl Future<Output = Result<T, PluginError>>,
    ) -> Result<T, PluginError> {
        let started = Instant::now();
        let answered = call.await;
        let took = started.elapsed();
        match self.0.iter_mut().find(|(name, _)| *name == phase) {
            Some((_, times)) => times.push(took),
            None => self.0.push((phase, vec![took])),
        }
        answered
    }
}

fn quantiles(mut times: Vec<Duration>) -> Quantiles {
    times.sort_unstable();
    let at = |percent: usize| {
        let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
        times.get(index).copied().unwrap_or_default()
    };
    Quantiles {
        p50: at(50),
        p90: at(90),
        p99: at(99),
        max: at(100),
    }
}

/// The locks here guard lists, which a panic leaves as they are.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
