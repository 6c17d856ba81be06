//! The policies of a rule: forwards on the request, backwards on the response.
//!
//! What a plugin's failure means is decided here, by its `on-error`: the request is answered, or
//! goes on as if the plugin were not there. What a built-in policy does stands in its own file
//! below `policy/`; [`native`] calls it.

mod basic_auth;
mod bodies;
mod compression;
mod concurrency;
mod cors;
mod error_pages;
mod forward_auth;
mod htpasswd;
mod maintenance;
mod mirror;
mod native;
mod rate_limit;
mod redirect;
mod request_id;
mod security_headers;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use http_body::Body as _;
use postern_core::config::PluginSpec;
use postern_core::config::plugin::OnError;
use postern_core::name::PolicyName;
use postern_wasm::Action;
use postern_wasm::Exchange;
use postern_wasm::Plugin;
use postern_wasm::PluginError;
use postern_wasm::PluginWorker;
use postern_wasm::exchange::LocalResponse;
use postern_wasm::exchange::ResponseHead;
use tracing::Instrument as _;

pub(crate) use self::compression::Compressing;
pub(crate) use self::concurrency::Permit;
pub(crate) use self::mirror::Copying;
pub(crate) use self::native::Effects;
pub(crate) use self::native::NativePolicy;
use self::native::Turn;
use crate::body::RequestBody;
use crate::body::ResponseBody;
use crate::body::filter::Stage;
use crate::error::ProxyError;
use crate::snapshot::PolicyIndex;
use crate::snapshot::Rule;
use crate::worker::View;
use crate::worker::Worker;

/// One step on request and response, ready to run.
pub(crate) enum Policy {
    Native(Box<NativePolicy>),
    Plugin(Box<LivePlugin>),
    /// A plugin that was declared and is not there: no request passes it, whatever its `on-error`.
    Absent(PolicyName),
}

/// A plugin that was compiled and has taken its configuration.
pub(crate) struct LivePlugin {
    pub(crate) name: PolicyName,
    pub(crate) spec: PluginSpec,
    /// The component as it was read.
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) secrets: GrantedSecrets,
    pub(crate) plugin: Arc<Plugin>,
}

/// Secrets by the name that the plugin asks for, as they were read.
pub(crate) type GrantedSecrets = BTreeMap<String, Arc<[u8]>>;

impl LivePlugin {
    pub(crate) fn is_from(
        &self,
        spec: &PluginSpec,
        bytes: &[u8],
        secrets: &GrantedSecrets,
    ) -> bool {
        self.spec == *spec && *self.bytes == *bytes && self.secrets == *secrets
    }
}

/// What the policies decided on a request.
pub(crate) enum Verdict {
    Continue,
    /// Answer with this; `by` made it. A `reason` makes it a refusal, and its label.
    Respond {
        response: LocalResponse,
        by: PolicyName,
        reason: Option<&'static str>,
    },
}

/// The policies of one rule for one request.
pub(crate) struct PolicyChain<'c> {
    worker: &'c Rc<Worker>,
    view: &'c View,
    policies: &'c [PolicyIndex],
    /// How many have seen the request: those see the response as well.
    passed: usize,
    client: IpAddr,
    /// Plugins see no response that stands for a failure.
    skips_plugins: bool,
    pub(crate) effects: Effects,
}

impl<'c> PolicyChain<'c> {
    pub(crate) fn new(
        worker: &'c Rc<Worker>,
        view: &'c View,
        rule: &'c Rule,
        client: IpAddr,
    ) -> Self {
        Self {
            worker,
            view,
            policies: &rule.policies,
            passed: 0,
            client,
            skips_plugins: false,
            effects: Effects::default(),
        }
    }

    /// From now on.
    pub(crate) fn skip_plugins(&mut self) {
        self.skips_plugins = true;
    }

    /// The response is the gateway's own page for a failure: built-in policies alone see it. Gives
    /// the error by its right name: a body that was cut at its limit failed for that.
    pub(crate) fn has_failed(&mut self, error: ProxyError) -> ProxyError {
        self.skip_plugins();
        let excess = self.effects.excess.as_ref();
        match (&self.effects.body_limit, excess) {
            (Some((_, policy)), Some(excess)) if excess.get() => ProxyError::BodyTooLarge {
                policy: policy.clone(),
            },
            _ => error,
        }
    }

    /// How many have seen the request.
    pub(crate) fn passed(&self) -> usize {
        self.passed
    }

    /// In order, until one answers. Route choices come first, so that every policy on the request
    /// can see which upstream it is for.
    pub(crate) async fn on_request(
        &mut self,
        exchange: &mut Exchange,
        body: &mut RequestBody,
    ) -> Result<Verdict, ProxyError> {
        self.select(0..self.policies.len(), exchange).await?;
        self.pass(0..self.policies.len(), exchange, body).await
    }

    /// The route choices of some of the policies.
    pub(crate) async fn select(
        &mut self,
        positions: Range<usize>,
        exchange: &mut Exchange,
    ) -> Result<(), ProxyError> {
        for &index in &self.policies[positions] {
            if let Some((live, worker)) = self.plugin(index)
                && worker.has_route_phase()
            {
                exchange.undo = live.spec.on_error == OnError::Allow;
                match worker.select(exchange).await {
                    Ok(Some(name)) => self.selected(live, &name, exchange)?,
                    Ok(None) => {}
                    Err(error) => failed(live, error)?,
                }
            }
        }
        Ok(())
    }

    /// Some of the policies on the request, until one answers.
    pub(crate) async fn pass(
        &mut self,
        positions: Range<usize>,
        exchange: &mut Exchange,
        body: &mut RequestBody,
    ) -> Result<Verdict, ProxyError> {
        for &index in &self.policies[positions] {
            self.passed += 1;
            match &*self.view.snapshot.policies[index] {
                Policy::Native(native) => {
                    // A plugin before may have read the body, or replaced it.
                    self.effects.body_length = body.size_hint().lower();
                    let turn = Turn {
                        worker: self.worker,
                        view: self.view,
                        exchange,
                        effects: &mut self.effects,
                        client: self.client,
                        position: self.passed,
                    };
                    let span = tracing::debug_span!(
                        "policy",
                        policy = native.name.as_str(),
                        phase = "request"
                    );
                    let answered = native.on_request(turn).instrument(span).await;
                    if let Some((response, reason)) = answered {
                        let by = native.name.clone();
                        return Ok(Verdict::Respond {
                            response,
                            by,
                            reason,
                        });
                    }
                    if let Some((limit, _)) = &self.effects.body_limit
                        && self.effects.excess.is_none()
                    {
                        self.effects.excess = Some(body.limit(*limit));
                    }
                }
                Policy::Plugin(live) => {
                    let Some(worker) = &self.view.plugins[index] else {
                        continue;
                    };
                    if !worker.has_request_phase() {
                        continue;
                    }
                    exchange.undo = live.spec.on_error == OnError::Allow;
                    let takes_back = exchange.undo && worker.phases().request_body;
                    let before = takes_back.then(|| exchange.fork());
                    let mut acted = worker.on_request(exchange).await;
                    if let Ok(Action::NeedBody(wish)) = acted {
                        acted = bodies::on_request_body(worker, exchange, body, wish).await?;
                    }
                    match acted {
                        // Never asked for in a body phase: the host sees to it.
                        Ok(Action::Next | Action::NeedBody(_)) => {}
                        Ok(Action::Respond(response)) => {
                            let by = live.name.clone();
                            return Ok(Verdict::Respond {
                                response,
                                by,
                                reason: None,
                            });
                        }
                        Ok(Action::Abort) => {
                            let plugin = live.name.clone();
                            return Err(ProxyError::Aborted { plugin });
                        }
                        Err(error) => {
                            failed(live, error)?;
                            if let Some(before) = before {
                                exchange.restore(before);
                            }
                        }
                    }
                }
                Policy::Absent(name) => {
                    return Err(ProxyError::PluginAbsent {
                        plugin: name.clone(),
                    });
                }
            }
        }
        Ok(Verdict::Continue)
    }

    /// Backwards over those that have seen the request. A policy may replace the response; those
    /// before it then see the replacement. Names the policy that did so last.
    pub(crate) async fn on_response(
        &mut self,
        exchange: &mut Exchange,
        body: &mut ResponseBody,
    ) -> Result<Option<PolicyName>, ProxyError> {
        self.pass_back(0..self.passed, exchange, body).await
    }

    /// Some of them, backwards.
    pub(crate) async fn pass_back(
        &mut self,
        positions: Range<usize>,
        exchange: &mut Exchange,
        body: &mut ResponseBody,
    ) -> Result<Option<PolicyName>, ProxyError> {
        let mut replaced_by = None;
        for before in positions.rev() {
            let index = self.policies[before];
            match &*self.view.snapshot.policies[index] {
                Policy::Native(native) => {
                    let turn = Turn {
                        worker: self.worker,
                        view: self.view,
                        exchange,
                        effects: &mut self.effects,
                        client: self.client,
                        position: before + 1,
                    };
                    // A page changes; who answered does not.
                    if let Some(local) = native.on_response(turn) {
                        exchange.response = Some(ResponseHead {
                            status: local.status,
                            headers: local.headers,
                        });
                        *body = ResponseBody::full(local.body);
                    }
                }
                Policy::Plugin(_) if self.skips_plugins => {}
                Policy::Plugin(live) => {
                    let Some(worker) = &self.view.plugins[index] else {
                        continue;
                    };
                    if !worker.has_response_phase() {
                        continue;
                    }
                    exchange.undo = live.spec.on_error == OnError::Allow;
                    let takes_back = exchange.undo && worker.phases().response_body;
                    let before = takes_back.then(|| (exchange.fork(), exchange.response.clone()));
                    let mut acted = worker.on_response(exchange).await;
                    if let Ok(Action::NeedBody(wish)) = acted {
                        acted = bodies::on_response_body(worker, exchange, body, wish).await?;
                    }
                    match acted {
                        Ok(Action::Next | Action::NeedBody(_)) => {}
                        Ok(Action::Respond(local)) => {
                            exchange.response = Some(ResponseHead {
                                status: local.status,
                                headers: local.headers,
                            });
                            // Dropping what the upstream sent ends that exchange.
                            *body = ResponseBody::full(local.body);
                            replaced_by = Some(live.name.clone());
                        }
                        Ok(Action::Abort) => {
                            let plugin = live.name.clone();
                            return Err(ProxyError::Aborted { plugin });
                        }
                        Err(error) => {
                            failed(live, error)?;
                            if let Some((fork, response)) = before {
                                exchange.restore(fork);
                                exchange.response = response;
                            }
                        }
                    }
                }
                Policy::Absent(name) => {
                    return Err(ProxyError::PluginAbsent {
                        plugin: name.clone(),
                    });
                }
            }
        }
        Ok(replaced_by)
    }

    /// Whether any plugin may ask for fields of the request once it was sent.
    pub(crate) fn reads_request_later(&self) -> bool {
        self.plugins()
            .any(|(_, worker)| worker.plugin().reads_request_later())
    }

    /// Plugins that want to know how the exchange ends.
    pub(crate) fn log_plugins(&self) -> Vec<Rc<PluginWorker>> {
        let plugins = self.plugins();
        let plugins = plugins.filter(|(_, worker)| worker.has_log_phase());
        plugins.map(|(_, worker)| Rc::clone(worker)).collect()
    }

    /// Plugins that see the request's body on its way.
    pub(crate) fn request_stages(&self) -> Vec<Stage> {
        let plugins = self.plugins();
        let plugins = plugins.filter(|(_, worker)| worker.has_request_stream());
        plugins.map(stage).collect()
    }

    /// Plugins that see the response's body on its way, among those that have seen the request.
    pub(crate) fn response_stages(&self) -> Vec<Stage> {
        if self.skips_plugins {
            return Vec::new();
        }
        let passed = self.policies[..self.passed].iter().rev();
        let plugins = passed.filter_map(|&index| self.plugin(index));
        let plugins = plugins.filter(|(_, worker)| worker.has_response_stream());
        plugins.map(stage).collect()
    }

    fn plugins(&self) -> impl Iterator<Item = (&LivePlugin, &Rc<PluginWorker>)> {
        let policies = self.policies.iter();
        policies.filter_map(|&index| self.plugin(index))
    }

    fn plugin(&self, index: PolicyIndex) -> Option<(&LivePlugin, &Rc<PluginWorker>)> {
        match &*self.view.snapshot.policies[index] {
            Policy::Plugin(live) => Some((live, self.view.plugins[index].as_ref()?)),
            Policy::Native(_) | Policy::Absent(_) => None,
        }
    }

    /// The first plugin that names an upstream decides.
    fn selected(
        &self,
        live: &LivePlugin,
        name: &str,
        exchange: &mut Exchange,
    ) -> Result<(), ProxyError> {
        if exchange.upstream.is_some() {
            return Ok(());
        }
        let snapshot = &self.view.snapshot;
        match snapshot.upstream_index(name) {
            Some(index) => exchange.upstream = Some(snapshot.upstream_names[index].clone()),
            None if live.spec.on_error == OnError::Allow => {}
            None => {
                return Err(ProxyError::UnknownUpstream {
                    plugin: live.name.clone(),
                });
            }
        }
        Ok(())
    }
}

/// What the failure of a plugin means for its request: the end, or nothing.
pub(crate) fn failed(live: &LivePlugin, error: PluginError) -> Result<(), ProxyError> {
    let status = match live.spec.on_error {
        OnError::Deny => StatusCode::SERVICE_UNAVAILABLE,
        OnError::Status(status) => status,
        OnError::Allow => {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(plugin = %live.name, error, "plugin failed, request goes on");
            return Ok(());
        }
    };
    Err(ProxyError::Plugin {
        plugin: live.name.clone(),
        status,
        source: error,
    })
}

fn stage((live, worker): (&LivePlugin, &Rc<PluginWorker>)) -> Stage {
    Stage::new(Rc::clone(worker), live.spec.on_error)
}
