//! `exchange`: what is known beside the messages, and what follows the exchange.

use crate::bindings::postern::plugin::exchange::Host;
use crate::bindings::postern::plugin::types;
use crate::bindings::postern::plugin::types::EditError;
use crate::exchange::VarError;
use crate::host::HostState;
use crate::view::version;

impl types::Host for HostState {}

impl Host for HostState {
    fn id(&mut self) -> wasmtime::Result<u64> {
        self.in_exchange()?;
        Ok(self.exchange.id)
    }

    fn traceparent(&mut self) -> wasmtime::Result<String> {
        self.in_exchange()?;
        let traceparent = self.exchange.traceparent.as_deref();
        Ok(traceparent.unwrap_or_default().to_owned())
    }

    fn attribute(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.meter.take_bytes(name.len())?;
        self.in_exchange()?;
        let exchange = &self.exchange;
        Ok(match name.as_str() {
            "peer.ip" => exchange.peer.map(|peer| peer.ip().to_string()),
            "peer.port" => exchange.peer.map(|peer| peer.port().to_string()),
            "client.ip" => exchange.client.map(|client| client.to_string()),
            "tls.sni" => exchange.sni.as_deref().map(str::to_owned),
            "listener" => exchange.listener.as_ref().map(ToString::to_string),
            "route" => exchange.route.as_ref().map(ToString::to_string),
            "upstream" => exchange.upstream.as_ref().map(ToString::to_string),
            "http.version" => Some(version(exchange.version).to_owned()),
            _ => None,
        })
    }

    fn set_state(&mut self, state: Vec<u8>) -> wasmtime::Result<Result<(), EditError>> {
        self.meter.take_bytes(state.len())?;
        self.in_exchange()?;
        self.keep_notes();
        Ok(if self.exchange.set_state(&self.plugin, state) {
            Ok(())
        } else {
            Err(EditError::TooLarge)
        })
    }

    fn state(&mut self) -> wasmtime::Result<Vec<u8>> {
        self.in_exchange()?;
        Ok(self.exchange.state(&self.plugin).to_vec())
    }

    fn set_var(&mut self, name: String, value: String) -> wasmtime::Result<Result<(), EditError>> {
        self.meter.take_bytes(name.len() + value.len())?;
        self.in_exchange()?;
        self.keep_notes();
        let set = self.exchange.set_var(name, value);
        Ok(set.map_err(|error| match error {
            VarError::Name => EditError::Invalid,
            VarError::Size => EditError::TooLarge,
        }))
    }

    fn var(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.meter.take_bytes(name.len())?;
        self.in_exchange()?;
        Ok(self.exchange.var(&name).map(str::to_owned))
    }
}
