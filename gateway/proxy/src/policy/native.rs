//! Built-in policies: which kind does what, and when.
//!
//! A policy is shared by all workers and outlives changes that leave its declaration equal, with
//! whatever it counts. What it wants of a request later than its own turn goes into [`Effects`].

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use http::HeaderName;
use http::HeaderValue;
use http::StatusCode;
use postern_core::config::PolicySpec;
use postern_core::config::policy::HeadersSpec;
use postern_core::config::policy::limit::LimitKey;
use postern_core::config::policy::traffic::CanarySpec;
use postern_core::name::PolicyName;
use postern_core::policy::canary::is_chosen;
use postern_core::policy::ip_access::IpAccess;
use postern_wasm::Exchange;
use postern_wasm::exchange::LocalResponse;

use super::basic_auth::BasicAuth;
use super::compression::Compress;
use super::compression::Compression;
use super::concurrency::Concurrency;
use super::concurrency::Permit;
use super::cors::CorsPolicy;
use super::error_pages::ErrorPages;
use super::forward_auth::ForwardAuth;
use super::maintenance::Maintenance;
use super::mirror::Copying;
use super::mirror::Mirror;
use super::rate_limit::RateLimit;
use super::redirect;
use super::request_id::RequestId;
use super::security_headers::SecurityHeaders;
use crate::response;
use crate::worker::View;
use crate::worker::Worker;

/// A built-in policy, ready to run.
pub(crate) struct NativePolicy {
    pub(crate) name: PolicyName,
    spec: PolicySpec,
    /// What `PolicySpec::file` held.
    file: Option<Arc<[u8]>>,
    step: Step,
}

/// A built-in policy cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyError {
    #[error("the file is no text")]
    NotText,
    #[error("the file names no user")]
    NoUsers,
    #[error("line {0} of the file is no user and hash, as in user:$2y$...")]
    UserLine(usize),
    #[error(
        "line {0} of the file holds no hash of a kind that is known (bcrypt, $apr1$, $1$, $5$, $6$, \
         {{SHA}}); make one with htpasswd -B"
    )]
    UserHash(usize),
    #[error("line {0} of the file holds a hash with a cost above {1}, which takes seconds")]
    UserCost(usize, u32),
    #[error("line {0} of the file holds a hash with more than {1} rounds, which takes seconds")]
    UserRounds(usize, usize),
    #[error("the system gives no random numbers")]
    Random,
}

enum Step {
    BasicAuth(Box<BasicAuth>),
    /// Bytes.
    BodySize(u64),
    /// With a count of the requests, for those that choose for themselves.
    Canary(CanarySpec, AtomicU64),
    Compression(Compression),
    Concurrency(Concurrency),
    Cors(CorsPolicy),
    ErrorPages(ErrorPages),
    ForwardAuth(Box<ForwardAuth>),
    Headers(HeadersSpec),
    IpAccess(IpAccess),
    Maintenance(Maintenance),
    Mirror(Mirror),
    RateLimit(Box<RateLimit>),
    Redirect(postern_core::config::route::RedirectSpec),
    RequestId(RequestId),
    SecurityHeaders(SecurityHeaders),
}

/// One policy's turn at one request or response.
pub(super) struct Turn<'t> {
    pub(super) worker: &'t Rc<Worker>,
    pub(super) view: &'t View,
    pub(super) exchange: &'t mut Exchange,
    pub(super) effects: &'t mut Effects,
    pub(super) client: IpAddr,
    /// Of the policy in its rule, the same in both directions.
    pub(super) position: usize,
}

/// What policies have decided about a request for later. Empty, it costs nothing.
#[derive(Default)]
pub(crate) struct Effects {
    /// Bytes of the request body, as many as are known of: what the client said, or was read.
    pub(super) body_length: u64,
    /// Most bytes of the request body, and the policy that says so.
    pub(super) body_limit: Option<(u64, PolicyName)>,
    /// Whether there were more, once the limit holds.
    pub(super) excess: Option<Rc<Cell<bool>>>,
    /// Held until the request is over.
    pub(crate) permits: Vec<Permit>,
    /// How the response may be compressed, at the very end.
    pub(crate) compress: Option<Rc<Compress>>,
    /// A copy of the request for another upstream.
    pub(crate) copying: Option<Copying>,
    /// Response fields, each written when its policy's turn on the response comes.
    fields: Vec<(usize, HeaderName, HeaderValue)>,
    /// The same, for fields that may be there more than once.
    more_fields: Vec<(usize, HeaderName, HeaderValue)>,
}

impl Turn<'_> {
    /// Sets a field of the response, once there is one.
    pub(super) fn set_on_response(&mut self, name: HeaderName, value: HeaderValue) {
        self.effects.fields.push((self.position, name, value));
    }

    /// Adds a field to the response, beside what the upstream sends under that name.
    pub(super) fn add_on_response(&mut self, name: HeaderName, value: HeaderValue) {
        self.effects.more_fields.push((self.position, name, value));
    }

    /// What the client used, perhaps with a trusted proxy before this gateway.
    pub(super) fn scheme(&self) -> &'static str {
        self.exchange.request.client_scheme().as_str()
    }

    /// The page for a status, as a refusal with this label.
    pub(super) fn refuse(&self, status: StatusCode, reason: &'static str) -> Reply {
        (response::page(status, self.exchange.id), Some(reason))
    }
}

/// An answer in the upstream's place, and the label of what was refused if it is a refusal.
pub(super) type Reply = (LocalResponse, Option<&'static str>);

impl NativePolicy {
    pub(crate) fn new(
        name: PolicyName,
        spec: PolicySpec,
        file: Option<Arc<[u8]>>,
    ) -> Result<Self, PolicyError> {
        let bytes = file.as_deref().unwrap_or_default();
        let step = match &spec {
            PolicySpec::BasicAuth(spec) => Step::BasicAuth(Box::new(BasicAuth::new(spec, bytes)?)),
            PolicySpec::BodySize(spec) => Step::BodySize(spec.limit),
            PolicySpec::Canary(spec) => Step::Canary(spec.clone(), AtomicU64::new(0)),
            PolicySpec::Compression(spec) => Step::Compression(Compression::new(spec)),
            PolicySpec::Concurrency(spec) => Step::Concurrency(Concurrency::new(spec.clone())),
            PolicySpec::Cors(spec) => Step::Cors(CorsPolicy::new(spec)),
            PolicySpec::ErrorPages(spec) => Step::ErrorPages(ErrorPages::new(spec, bytes)),
            PolicySpec::ForwardAuth(spec) => {
                Step::ForwardAuth(Box::new(ForwardAuth::new((**spec).clone())))
            }
            PolicySpec::Headers(spec) => Step::Headers(spec.clone()),
            PolicySpec::IpAccess(spec) => Step::IpAccess(IpAccess::new(spec)),
            PolicySpec::Maintenance(spec) => Step::Maintenance(Maintenance::new(spec.clone())),
            PolicySpec::Mirror(spec) => Step::Mirror(Mirror::new(spec)),
            PolicySpec::RateLimit(spec) => {
                Step::RateLimit(Box::new(RateLimit::new(&name, spec.clone())))
            }
            PolicySpec::Redirect(spec) => Step::Redirect(spec.clone()),
            PolicySpec::RequestId(spec) => Step::RequestId(RequestId::new(spec.clone())),
            PolicySpec::SecurityHeaders(spec) => Step::SecurityHeaders(SecurityHeaders::new(spec)),
            // Plugins are built by the caller.
            PolicySpec::Plugin(_) => Step::Headers(HeadersSpec::default()),
        };
        Ok(Self {
            name,
            spec,
            file,
            step,
        })
    }

    /// The word for it in configuration.
    pub(crate) fn kind(&self) -> &'static str {
        self.spec.kind()
    }

    pub(crate) fn is_from(&self, spec: &PolicySpec, file: Option<&[u8]>) -> bool {
        self.spec == *spec && self.file.as_deref() == file
    }

    pub(super) async fn on_request(&self, mut turn: Turn<'_>) -> Option<Reply> {
        match &self.step {
            // Boxed, being large: every other policy would carry their size.
            Step::BasicAuth(auth) => Box::pin(auth.on_request(&mut turn)).await,
            Step::BodySize(limit) => self.limit_body(*limit, &mut turn),
            Step::Canary(spec, count) => {
                self.choose_upstream(spec, count, &mut turn);
                None
            }
            Step::Compression(compression) => {
                compression.on_request(&mut turn);
                None
            }
            Step::Concurrency(concurrency) => concurrency.on_request(&mut turn),
            Step::Cors(cors) => cors.on_request(&mut turn),
            Step::ErrorPages(_) => None,
            Step::ForwardAuth(auth) => Box::pin(auth.on_request(&mut turn)).await,
            Step::Headers(spec) => {
                spec.request.apply(&mut turn.exchange.request.headers);
                None
            }
            Step::IpAccess(access) if access.allows(turn.client) => None,
            Step::IpAccess(_) => Some(turn.refuse(StatusCode::FORBIDDEN, "ip-access")),
            Step::Maintenance(maintenance) => maintenance.on_request(&turn),
            Step::Mirror(mirror) => {
                if let Some(copying) = mirror.on_request() {
                    turn.effects.copying = Some(copying);
                }
                None
            }
            Step::RateLimit(limit) => limit.on_request(&mut turn),
            Step::Redirect(spec) => redirect::on_request(spec, &turn),
            Step::RequestId(request_id) => {
                request_id.on_request(&mut turn);
                None
            }
            Step::SecurityHeaders(headers) => {
                headers.on_request(&mut turn);
                None
            }
        }
    }

    /// Edits the response, or gives another in its place.
    pub(super) fn on_response(&self, turn: Turn<'_>) -> Option<LocalResponse> {
        let response = turn.exchange.response.as_mut()?;
        match &self.step {
            Step::ErrorPages(pages) => return pages.on_response(response),
            Step::Cors(cors) => cors.on_response(&mut response.headers),
            Step::Headers(spec) => spec.response.apply(&mut response.headers),
            Step::SecurityHeaders(headers) => headers.on_response(&mut response.headers),
            Step::BasicAuth(_)
            | Step::BodySize(_)
            | Step::Canary(..)
            | Step::Compression(_)
            | Step::Concurrency(_)
            | Step::ForwardAuth(_)
            | Step::IpAccess(_)
            | Step::Maintenance(_)
            | Step::Mirror(_)
            | Step::RateLimit(_)
            | Step::Redirect(_)
            | Step::RequestId(_) => {}
        }
        for (position, name, value) in &turn.effects.fields {
            if *position == turn.position {
                response.headers.insert(name, value.clone());
            }
        }
        for (position, name, value) in &turn.effects.more_fields {
            if *position == turn.position {
                response.headers.append(name, value.clone());
            }
        }
        None
    }

    /// Unless a plugin has chosen: its word is the more special one.
    fn choose_upstream(&self, spec: &CanarySpec, count: &AtomicU64, turn: &mut Turn<'_>) {
        let headers = &turn.exchange.request.headers;
        let count = match spec.by {
            LimitKey::All => count.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
        if turn.exchange.upstream.is_none()
            && is_chosen(spec, self.name.as_str(), headers, turn.client, count)
        {
            turn.exchange.upstream = Some(spec.upstream.clone());
        }
    }

    /// A body whose length is known is refused before anything is sent; others are cut midway.
    fn limit_body(&self, limit: u64, turn: &mut Turn<'_>) -> Option<Reply> {
        let effects = &mut *turn.effects;
        if effects.body_length > limit {
            return Some(turn.refuse(StatusCode::PAYLOAD_TOO_LARGE, "body-size"));
        }
        if effects
            .body_limit
            .as_ref()
            .is_none_or(|(other, _)| limit < *other)
        {
            effects.body_limit = Some((limit, self.name.clone()));
            // Put on the body anew.
            effects.excess = None;
        }
        None
    }
}
