//! The interface on one side, the rules on the other.

#![allow(unsafe_code, reason = "generated glue to the host's functions")]

use std::sync::OnceLock;

use crate::rules::Edit;
use crate::rules::Rules;

wit_bindgen::generate!({
    path: "../../wit",
    world: "exchange-plugin",
});

use exports::postern::plugin::lifecycle;
use exports::postern::plugin::lifecycle::BodyMode;
use exports::postern::plugin::lifecycle::Spec;
use exports::postern::plugin::request_phase;
use exports::postern::plugin::response_phase;
use postern::plugin::log;
use postern::plugin::request;
use postern::plugin::response;
use postern::plugin::types::Action;
use postern::plugin::types::EditError;
use postern::plugin::types::Field;
use postern::plugin::types::LocalResponse;
use postern::plugin::types::View;

struct Headers;

export!(Headers);

/// Set by `configure`, which the host calls once in each instance and before anything else.
static RULES: OnceLock<Rules> = OnceLock::new();

impl lifecycle::Guest for Headers {
    fn configure(config: String) -> Result<Spec, String> {
        let rules = Rules::parse(&config).map_err(|problem| problem.to_string())?;
        let spec = Spec {
            request_view: rules.request.view().to_vec(),
            response_view: rules.response.view().to_vec(),
            request_body: BodyMode::None,
            response_body: BodyMode::None,
            tick_ms: 0,
        };
        RULES
            .set(rules)
            .map(|()| spec)
            .map_err(|_| "already configured".to_owned())
    }
}

impl request_phase::Guest for Headers {
    fn on_request(view: View) -> Action {
        let Some(rules) = RULES.get() else {
            return Action::Next;
        };
        let mut action = Action::Next;
        rules.request.apply(&view, |edit| {
            let (name, done) = match edit {
                Edit::Set { name, value } => (name, request::set(name, value)),
                Edit::Add { name, value } => (name, request::append(name, value)),
                Edit::Remove { name } => (name, request::remove(name)),
                Edit::Path { path } => (":path", request::set_path(path)),
                Edit::Deny { status, body } => {
                    action = deny(status, body);
                    return;
                }
            };
            insist(name, done);
        });
        action
    }
}

impl response_phase::Guest for Headers {
    fn on_response(view: View) -> Action {
        let Some(rules) = RULES.get() else {
            return Action::Next;
        };
        let mut action = Action::Next;
        rules.response.apply(&view, |edit| {
            let (name, done) = match edit {
                Edit::Set { name, value } => (name, response::set(name, value)),
                Edit::Add { name, value } => (name, response::append(name, value)),
                Edit::Remove { name } => (name, response::remove(name)),
                // `Rules::parse` lets a response have no rewrite.
                Edit::Path { .. } => return,
                Edit::Deny { status, body } => {
                    action = deny(status, body);
                    return;
                }
            };
            insist(name, done);
        });
        action
    }
}

fn deny(status: u16, body: &str) -> Action {
    let mut headers = Vec::new();
    if !body.is_empty() {
        headers.push(Field {
            name: "content-type".to_owned(),
            value: "text/plain; charset=utf-8".to_owned(),
        });
    }
    Action::Respond(LocalResponse {
        status,
        headers,
        body: body.as_bytes().to_vec(),
    })
}

/// An edit that is not made ends the call: a field that a rule removes or sets may be what
/// protects an upstream, and going on without it is not for this plugin to decide.
fn insist(name: &str, done: Result<(), EditError>) {
    if let Err(error) = done {
        let fields = [
            ("field".to_owned(), name.to_owned()),
            ("error".to_owned(), error.name().to_owned()),
        ];
        log::write(log::Level::Error, "an edit was refused", &fields);
        std::process::abort();
    }
}
