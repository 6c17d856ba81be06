//! Lets a request pass if an authentication service says that its bearer token is good.

use postern_plugin::callout::Call;
use postern_plugin::{Action, Fault, Plugin, Reply, Request, Setup};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    /// The upstream that is asked, which has to be granted to the plugin.
    upstream: String,
    /// Where: it answers 200 with the field `x-user` for a good token, and 401 for another.
    path: String,
}

impl Plugin for Token {
    fn configure(config: &str, setup: &mut Setup) -> Result<Self, String> {
        setup.request_view(["authorization"]);
        serde_json::from_str(config).map_err(|error| error.to_string())
    }

    fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
        // Whatever the client says about itself must not reach the application.
        request.remove("x-user")?;
        let authorization = request.get("authorization").unwrap_or_default();
        let Some(token) = authorization.strip_prefix("Bearer ") else {
            return Ok(denied());
        };
        let call = Call::get(&self.upstream, &self.path).header("x-token", token);
        // A service that cannot be asked is a fault: the operator says what happens then.
        let answer = call.timeout_ms(1000).send()?;
        match (answer.status, answer.header("x-user")) {
            (200, Some(user)) => {
                request.set("x-user", user)?;
                request.remove("authorization")?;
                Ok(Action::Next)
            }
            (401, _) => Ok(denied()),
            (status, _) => Err(format!("the authentication service answered {status}").into()),
        }
    }
}

fn denied() -> Action {
    let reply = Reply::text(401, "a valid token is needed\n");
    reply.header("www-authenticate", "Bearer").into()
}

postern_plugin::export!(Token: request);

#[cfg(test)]
mod tests {
    use postern_plugin::callout::Answer;
    use postern_plugin::mock::{self, Exchange};

    use super::*;

    fn token() -> mock::Configured<Token> {
        mock::gateway(|gateway| {
            gateway.on_callout(|call| {
                let is_good = call.headers.contains(&("x-token".into(), "good".into()));
                let headers = vec![("x-user".to_owned(), "ann".to_owned())];
                Ok(Answer {
                    status: if is_good { 200 } else { 401 },
                    headers,
                    body: Vec::new(),
                })
            });
        });
        mock::configure(r#"{ "upstream": "auth", "path": "/check" }"#).unwrap()
    }

    #[test]
    fn a_good_token_names_the_user() {
        let mut exchange = Exchange::new("GET", "/")
            .header("authorization", "Bearer good")
            .header("x-user", "root");
        assert_eq!(token().on_request(&mut exchange), Ok(Action::Next));
        assert_eq!(exchange.request.get("x-user"), Some("ann"));
        assert_eq!(exchange.request.get("authorization"), None);
        let asked = mock::gateway(|gateway| gateway.calls[0].clone());
        assert_eq!((&*asked.upstream, &*asked.path), ("auth", "/check"));
    }

    #[test]
    fn a_bad_token_and_none_are_denied() {
        for value in ["Bearer bad", "Basic good", ""] {
            let mut exchange = Exchange::new("GET", "/").header("authorization", value);
            let Ok(Action::Respond(reply)) = token().on_request(&mut exchange) else {
                panic!("{value}: passed");
            };
            assert_eq!(reply.status, 401, "{value}");
        }
    }

    #[test]
    fn a_service_that_is_not_there_is_a_fault() {
        let token = token();
        mock::gateway(|gateway| *gateway = mock::Gateway::default());
        let mut exchange = Exchange::new("GET", "/").header("authorization", "Bearer good");
        assert!(token.on_request(&mut exchange).is_err());
    }
}
