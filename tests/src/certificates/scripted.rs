//! A certificate authority that does as it is told, for what real ones do once a year: a binding that
//! can be used once, names that it knows already, hours of work, pauses, pages of a proxy, refusals.
//!
//! It checks what a careful authority checks: signatures, nonces, URLs and accounts of requests. It
//! gives an order that is pending to who asks for the same names again, as Let's Encrypt does.

mod jose;
mod orders;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http_body_util::BodyExt as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use self::jose::Signed;
use self::orders::Order;
use crate::certs::Authority;

/// What it does other than issuing at once.
#[derive(Clone, Debug)]
pub struct Script {
    /// The key identifier and base64url key that an account needs; good for one account.
    pub binding: Option<(String, String)>,
    /// Whether a proxy in front of it says that it is away.
    pub is_down: bool,
    /// Whether names are known, so that no challenge is offered.
    pub knows_names: bool,
    /// Whether an order that was finalized stays at "processing".
    pub is_slow: bool,
    /// Seconds to wait, with everything that is not over.
    pub retry_after: Option<u64>,
    /// A problem (type) for orders that replace a certificate.
    pub refuses_replacement: Option<&'static str>,
    /// A problem (type and words) for every new order.
    pub refuses_orders: Option<(&'static str, &'static str)>,
    /// A problem (type and words) that every challenge fails with.
    pub refuses_challenges: Option<(&'static str, &'static str)>,
    /// Whether it delivers a certificate for another name.
    pub mistakes_names: bool,
    /// Whether it delivers a certificate for another key.
    pub mistakes_keys: bool,
    /// Seconds that certificates are valid.
    pub life: u64,
    /// Start and end of the window for renewals, RFC 3339.
    pub window: Option<(String, String)>,
    /// Looks for HTTP-01 there, at the port of this address; every challenge is good otherwise.
    pub looks_at: Option<SocketAddr>,
    /// Answers that come before anything else, for paths that begin so, each once.
    pub faults: Vec<Fault>,
    /// A request that is never answered, once.
    pub hold: Option<Hold>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            binding: None,
            is_down: false,
            knows_names: false,
            is_slow: false,
            retry_after: None,
            refuses_replacement: None,
            refuses_orders: None,
            refuses_challenges: None,
            mistakes_names: false,
            mistakes_keys: false,
            life: 90 * 24 * 60 * 60,
            window: None,
            looks_at: None,
            faults: Vec::new(),
            hold: None,
        }
    }
}

/// A request that is never answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hold {
    /// The first part of its path.
    pub kind: &'static str,
    /// Whether what it asks for is done.
    pub is_done: bool,
}

/// One answer in the place of what should come.
#[derive(Clone, Debug)]
pub struct Fault {
    pub path: &'static str,
    pub status: u16,
    pub retry_after: Option<u64>,
    pub body: &'static str,
}

/// What has been asked of it.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Requests by the first part of their path.
    pub requests: BTreeMap<String, usize>,
    pub accounts: usize,
    /// Accounts that came with a binding, good or not.
    pub bindings: usize,
    /// Orders that it made.
    pub orders: usize,
    /// Of those, orders that named a certificate that they replace.
    pub replacements: usize,
    /// Certificates that were fetched.
    pub issued: usize,
    /// Requests that are never answered.
    pub held: usize,
}

#[derive(Default)]
struct State {
    script: Script,
    counts: Counts,
    nonces: BTreeSet<String>,
    next: u64,
    /// The public key of each account, as it was sent.
    accounts: Vec<Value>,
    binding_is_used: bool,
    orders: Vec<Order>,
}

/// A running authority. Ends with its runtime.
pub struct ScriptedCa {
    addr: SocketAddr,
    authority: Authority,
    root: String,
    shared: Arc<Shared>,
}

struct Shared {
    base: String,
    issuer: Issuer<'static, KeyPair>,
    state: Mutex<State>,
}

impl ScriptedCa {
    pub async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let authority = Authority::new("servers of the scripted CA");
        let leaf = authority.leaf(&["localhost"]);
        let chain = CertificateDer::pem_slice_iter(leaf.chain.as_bytes());
        let chain: Vec<_> = chain.map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        let shared = Arc::new(Shared {
            base: format!("https://localhost:{}", addr.port()),
            issuer: Issuer::new(params, key),
            state: Mutex::new(State {
                script,
                ..State::default()
            }),
        });
        // Ends with the runtime of the test.
        tokio::spawn(accept(
            listener,
            TlsAcceptor::from(Arc::new(tls)),
            Arc::clone(&shared),
        ));
        Self {
            addr,
            authority,
            root,
            shared,
        }
    }

    /// The URL of its directory.
    pub fn directory(&self) -> String {
        format!("https://localhost:{}/directory", self.addr.port())
    }

    /// The root that its servers are to be trusted by, PEM.
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// The root of what it issues, PEM.
    pub fn root(&self) -> &str {
        &self.root
    }

    pub fn counts(&self) -> Counts {
        self.shared.lock().counts.clone()
    }

    /// Changes what it does from now on.
    pub fn direct(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.shared.lock().script);
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        // Ends with its client.
        tokio::spawn(async move {
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(answer(&shared, request).await) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _ = connection.await;
        });
    }
}

type Answer = Response<Full<Bytes>>;

async fn answer(shared: &Shared, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    // One that is killed in the middle of a request is no fault of this server.
    let body = request.into_body().collect().await.unwrap_or_default();
    let body = body.to_bytes();
    let held = shared.hold(&path);
    if held.is_some_and(|hold| !hold.is_done) {
        shared.hang().await;
    }
    let mut answer = route(shared, &method, &path, &body).await;
    if held.is_some() {
        shared.hang().await;
    }
    let nonce = shared.nonce();
    let headers = answer.headers_mut();
    headers.insert("replay-nonce", nonce.parse().unwrap());
    answer
}

async fn route(shared: &Shared, method: &Method, path: &str, body: &[u8]) -> Answer {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (kind, rest) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    {
        let mut state = shared.lock();
        *state.counts.requests.entry(kind.to_owned()).or_default() += 1;
        if state.script.is_down {
            let away = Fault {
                path: "",
                status: 503,
                retry_after: Some(5),
                body: "<html>away</html>",
            };
            return away.answer();
        }
        let faults = &mut state.script.faults;
        if let Some(at) = faults.iter().position(|fault| path.starts_with(fault.path)) {
            let fault = faults.remove(at);
            return fault.answer();
        }
    }
    match (method.as_str(), kind) {
        ("GET", "directory") => return reply(200, &shared.directory()),
        ("HEAD" | "GET", "nonce") => return reply(200, &json!({})),
        ("GET", "renewal") => return shared.renewal(),
        ("POST", _) => {}
        _ => return problem(405, "malformed", "only POST"),
    }
    let signed = match shared.check(path, body) {
        Ok(signed) => signed,
        Err(refusal) => return *refusal,
    };
    match kind {
        "account" => shared.account(&signed),
        "order" if rest.is_empty() => shared.new_order(&signed),
        "order" => shared.order(rest),
        "authorization" => shared.authorization(rest),
        "challenge" => shared.challenge(rest).await,
        "finalize" => shared.finalize(rest, &signed),
        "certificate" => shared.certificate(rest),
        _ => problem(404, "malformed", "not found"),
    }
}

impl Fault {
    fn answer(&self) -> Answer {
        let mut response = Response::new(Full::new(Bytes::from_static(self.body.as_bytes())));
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap();
        if let Some(seconds) = self.retry_after {
            let value = seconds.to_string().parse().unwrap();
            response.headers_mut().insert("retry-after", value);
        }
        response
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this request is the one that is never answered.
    fn hold(&self, path: &str) -> Option<Hold> {
        let mut state = self.lock();
        let kind = path.trim_start_matches('/').split('/').next();
        let is_it = state
            .script
            .hold
            .is_some_and(|hold| Some(hold.kind) == kind);
        state.script.hold.take_if(|_| is_it)
    }

    /// Until the client is gone.
    async fn hang(&self) {
        self.lock().counts.held += 1;
        std::future::pending().await
    }

    fn nonce(&self) -> String {
        let mut state = self.lock();
        state.next += 1;
        let nonce = format!("nonce-{}", state.next);
        state.nonces.insert(nonce.clone());
        nonce
    }

    fn directory(&self) -> Value {
        let url = |path: &str| format!("{}/{path}", self.base);
        let state = self.lock();
        let mut directory = json!({
            "newNonce": url("nonce"),
            "newAccount": url("account"),
            "newOrder": url("order"),
            "meta": {
                "externalAccountRequired": state.script.binding.is_some(),
                "profiles": { "shortlived": "six days" },
            },
        });
        if state.script.window.is_some() || state.script.refuses_replacement.is_some() {
            directory["renewalInfo"] = json!(url("renewal"));
        }
        directory
    }

    fn renewal(&self) -> Answer {
        match &self.lock().script.window {
            Some((start, end)) => reply(
                200,
                &json!({ "suggestedWindow": { "start": start, "end": end } }),
            ),
            None => problem(404, "malformed", "no such certificate"),
        }
    }

    /// The signature, the nonce, the URL, and, but for new accounts, the account.
    fn check(&self, path: &str, body: &[u8]) -> Result<Signed, Box<Answer>> {
        let mut state = self.lock();
        let signed = Signed::read(body, &state.accounts)
            .map_err(|error| Box::new(problem(400, "malformed", error)))?;
        if signed.url != format!("{}{path}", self.base) {
            return Err(Box::new(problem(
                400,
                "malformed",
                "signed for another URL",
            )));
        }
        if !state.nonces.remove(&signed.nonce) {
            return Err(Box::new(problem(400, "badNonce", "used or unknown")));
        }
        if signed.account.is_none() && path != "/account" {
            return Err(Box::new(problem(401, "accountDoesNotExist", "who are you")));
        }
        Ok(signed)
    }

    fn account(&self, signed: &Signed) -> Answer {
        let mut state = self.lock();
        let known = state.accounts.iter().position(|key| *key == signed.key);
        if let Some(known) = known {
            return located(
                200,
                &json!({ "status": "valid" }),
                &self.base,
                "account",
                known,
            );
        }
        if signed.payload["onlyReturnExisting"] == true {
            return problem(400, "accountDoesNotExist", "no account with this key");
        }
        let proof = &signed.payload["externalAccountBinding"];
        if !proof.is_null() {
            state.counts.bindings += 1;
        }
        if let Some((id, key)) = state.script.binding.clone() {
            if proof.is_null() {
                return problem(403, "externalAccountRequired", "no binding");
            }
            if !jose::is_bound(proof, &id, &key, &signed.key) {
                return problem(403, "unauthorized", "unknown key identifier or wrong key");
            }
            if state.binding_is_used {
                let words = "The account is not awaiting external account binding";
                return problem(403, "unauthorized", words);
            }
            state.binding_is_used = true;
        }
        state.counts.accounts += 1;
        state.accounts.push(signed.key.clone());
        let new = state.accounts.len() - 1;
        located(
            201,
            &json!({ "status": "valid" }),
            &self.base,
            "account",
            new,
        )
    }
}

fn reply(status: u16, value: &Value) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn located(status: u16, value: &Value, base: &str, kind: &str, index: usize) -> Answer {
    let mut response = reply(status, value);
    let url = format!("{base}/{kind}/{index}").parse().unwrap();
    response.headers_mut().insert("location", url);
    response
}

fn problem(status: u16, kind: &str, detail: &str) -> Answer {
    let kind = format!("urn:ietf:params:acme:error:{kind}");
    reply(
        status,
        &json!({ "type": kind, "detail": detail, "status": status }),
    )
}

/// How long it looks for a challenge.
const LOOK: Duration = Duration::from_secs(5);
