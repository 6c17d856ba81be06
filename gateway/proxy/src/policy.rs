//! The policies of a rule: forwards on the request, backwards on the response.
//!
//! What a plugin's failure means is decided here, by its `on-error`: the request is answered, or
//! goes on as if the plugin were not there. What a built-in policy does stands in its own file
//! below `policy/`; [`native`] calls it.

mod basic_auth;
mod concurrency;
mod cors;
mod error_pages;
mod forward_auth;
mod maintenance;
mod native;
mod rate_limit;
mod redirect;
mod request_id;
mod security_headers;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::StatusCode;
use postern_core::config::PluginSpec;
use postern_core::config::plugin::OnError;
use postern_core::name::PolicyName;
use postern_wasm::Action;
use postern_wasm::Exchange;
use postern_wasm::Plugin;
use postern_wasm::PluginError;
use postern_wasm::PluginWorker;
use postern_wasm::exchange::LocalResponse;

pub(crate) use self::concurrency::Permit;
pub(crate) use self::native::Effects;
pub(crate) use self::native::NativePolicy;
use self::native::Turn;
use crate::error::ProxyError;
use crate::snapshot::PolicyIndex;
use crate::snapshot::Rule;
use crate::worker::View;
use crate::worker::Worker;

/// One step on request and response, ready to run.
pub(crate) enum Policy {
    Native(NativePolicy),
    Plugin(LivePlugin),
}

/// A plugin that was compiled and has taken its configuration.
pub(crate) struct LivePlugin {
    pub(crate) name: PolicyName,
    pub(crate) spec: PluginSpec,
    /// The component as it was read.
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) plugin: Arc<Plugin>,
}

impl LivePlugin {
    pub(crate) fn is_from(&self, spec: &PluginSpec, bytes: &[u8]) -> bool {
        self.spec == *spec && *self.bytes == *bytes
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
        body_length: Option<u64>,
    ) -> Self {
        Self {
            worker,
            view,
            policies: &rule.policies,
            passed: 0,
            client,
            skips_plugins: false,
            effects: Effects::of_body(body_length),
        }
    }

    /// The response is the gateway's own page for a failure: built-in policies alone see it.
    pub(crate) fn has_failed(&mut self) {
        self.skips_plugins = true;
    }

    /// In order, until one answers. Route choices come first, so that every policy on the request
    /// can see which upstream it is for.
    pub(crate) async fn on_request(
        &mut self,
        exchange: &mut Exchange,
    ) -> Result<Verdict, ProxyError> {
        for &index in self.policies {
            if let Some((live, worker)) = self.plugin(index)
                && worker.has_route_phase()
            {
                exchange.undo = live.spec.on_error == OnError::Allow;
                match worker.select(exchange).await {
                    Ok(Some(name)) => self.selected(live, &name, exchange)?,
                    Ok(None) => {}
                    Err(error) => self.failed(live, error)?,
                }
            }
        }
        for &index in self.policies {
            self.passed += 1;
            match &*self.view.snapshot.policies[index] {
                Policy::Native(native) => {
                    let turn = Turn {
                        worker: self.worker,
                        view: self.view,
                        exchange,
                        effects: &mut self.effects,
                        client: self.client,
                        position: self.passed,
                    };
                    if let Some((response, reason)) = native.on_request(turn).await {
                        let by = native.name.clone();
                        return Ok(Verdict::Respond {
                            response,
                            by,
                            reason,
                        });
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
                    match worker.on_request(exchange).await {
                        Ok(Action::Next) => {}
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
                        Err(error) => self.failed(live, error)?,
                    }
                }
            }
        }
        Ok(Verdict::Continue)
    }

    /// Backwards over those that have seen the request. A policy may replace the response; those
    /// before it then see the replacement. `replace` is told whose answer it is, or nothing where
    /// a page changes and who answered does not.
    pub(crate) async fn on_response(
        &mut self,
        exchange: &mut Exchange,
        mut replace: impl FnMut(&mut Exchange, LocalResponse, Option<&PolicyName>),
    ) -> Result<(), ProxyError> {
        let seen = self.policies[..self.passed].iter().enumerate();
        for (before, &index) in seen.rev() {
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
                    if let Some(response) = native.on_response(turn) {
                        replace(exchange, response, None);
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
                    match worker.on_response(exchange).await {
                        Ok(Action::Next) => {}
                        Ok(Action::Respond(response)) => {
                            replace(exchange, response, Some(&live.name))
                        }
                        Ok(Action::Abort) => {
                            let plugin = live.name.clone();
                            return Err(ProxyError::Aborted { plugin });
                        }
                        Err(error) => self.failed(live, error)?,
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether any plugin will look at the response, and with it may look at the request again.
    pub(crate) fn has_response_phase(&self) -> bool {
        self.policies
            .iter()
            .filter_map(|&index| self.view.plugins[index].as_ref())
            .any(|worker| worker.has_response_phase())
    }

    fn plugin(&self, index: PolicyIndex) -> Option<(&LivePlugin, &Rc<PluginWorker>)> {
        match &*self.view.snapshot.policies[index] {
            Policy::Plugin(live) => Some((live, self.view.plugins[index].as_ref()?)),
            Policy::Native(_) => None,
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

    fn failed(&self, live: &LivePlugin, error: PluginError) -> Result<(), ProxyError> {
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
}
