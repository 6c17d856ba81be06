//! Sets and removes header fields of requests and responses, as the configuration says.

use std::collections::BTreeMap;

use postern_plugin::{Action, Fault, Plugin, Request, Response, Setup};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct Headers {
    /// Fields that every request gets.
    set: BTreeMap<String, String>,
    /// Fields that no response keeps.
    remove: Vec<String>,
}

impl Plugin for Headers {
    fn configure(config: &str, _setup: &mut Setup) -> Result<Self, String> {
        serde_json::from_str(config).map_err(|error| error.to_string())
    }

    fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
        for (name, value) in &self.set {
            request.set(name, value)?;
        }
        Ok(Action::Next)
    }

    fn on_response(&self, response: &mut Response) -> Result<Action, Fault> {
        for name in &self.remove {
            response.remove(name)?;
        }
        Ok(Action::Next)
    }
}

postern_plugin::export!(Headers: request, response);

#[cfg(test)]
mod tests {
    use postern_plugin::mock::{self, Exchange};

    use super::*;

    #[test]
    fn fields_are_set_and_removed() {
        let config = r#"{ "set": { "x-hello": "world" }, "remove": ["server"] }"#;
        let headers = mock::configure::<Headers>(config).unwrap();
        let mut exchange = Exchange::new("GET", "/").header("x-hello", "old");
        exchange.response.append("server", "app/1.0");

        assert_eq!(headers.on_request(&mut exchange), Ok(Action::Next));
        assert_eq!(exchange.request.get("x-hello"), Some("world"));
        assert_eq!(headers.on_response(&mut exchange), Ok(Action::Next));
        assert_eq!(exchange.response.get("server"), None);
    }

    #[test]
    fn a_configuration_with_unknown_keys_is_refused() {
        let refusal = mock::configure::<Headers>(r#"{ "sett": {} }"#).err();
        assert!(refusal.unwrap().contains("sett"));
    }
}
