//! Sends a part of the clients to a second upstream, and keeps each client where it is by a cookie.

use postern_plugin::{Action, Fault, Plugin, Request, Response, Setup, exchange, random};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AbRoute {
    a: String,
    b: String,
    /// How many of a hundred new clients go to `b`.
    percent: u64,
    cookie: String,
}

impl Plugin for AbRoute {
    fn configure(config: &str, _setup: &mut Setup) -> Result<Self, String> {
        let ab: Self = serde_json::from_str(config).map_err(|error| error.to_string())?;
        if ab.percent > 100 {
            return Err("percent: more than 100".to_owned());
        }
        Ok(ab)
    }

    fn select(&self, request: &Request) -> Result<Option<String>, Fault> {
        let side = match request.cookie(&self.cookie).as_deref() {
            Some("a") => "a",
            Some("b") => "b",
            // A new client, or one that made the cookie up. The response has to tell it.
            _ => {
                let side = if random::number() % 100 < self.percent {
                    "b"
                } else {
                    "a"
                };
                exchange::set_state(side.as_bytes())?;
                side
            }
        };
        let upstream = if side == "b" { &self.b } else { &self.a };
        Ok(Some(upstream.clone()))
    }

    fn on_response(&self, response: &mut Response) -> Result<Action, Fault> {
        let state = exchange::state();
        if !state.is_empty() {
            let side = String::from_utf8_lossy(&state);
            let cookie = format!(
                "{}={side}; Path=/; Max-Age=86400; SameSite=Lax",
                self.cookie
            );
            response.append("set-cookie", &cookie)?;
        }
        Ok(Action::Next)
    }
}

postern_plugin::export!(AbRoute: route, response);

#[cfg(test)]
mod tests {
    use postern_plugin::mock::{self, Exchange};

    use super::*;

    fn ab(percent: u64) -> mock::Configured<AbRoute> {
        let config =
            format!(r#"{{ "a": "one", "b": "two", "percent": {percent}, "cookie": "ab" }}"#);
        mock::configure(&config).unwrap()
    }

    #[test]
    fn a_client_stays_where_its_cookie_says() {
        for (cookie, upstream) in [("ab=a", "one"), ("x=1; ab=b", "two")] {
            let mut exchange = Exchange::new("GET", "/").header("cookie", cookie);
            let ab = ab(50);
            assert_eq!(ab.select(&mut exchange).unwrap().as_deref(), Some(upstream));
            ab.on_response(&mut exchange).unwrap();
            assert_eq!(exchange.response.get("set-cookie"), None);
        }
    }

    #[test]
    fn a_new_client_is_told_where_it_went() {
        for (percent, upstream, side) in [(0, "one", "ab=a;"), (100, "two", "ab=b;")] {
            let mut exchange = Exchange::new("GET", "/").header("cookie", "ab=c");
            let ab = ab(percent);
            assert_eq!(ab.select(&mut exchange).unwrap().as_deref(), Some(upstream));
            ab.on_response(&mut exchange).unwrap();
            let cookie = exchange.response.get("set-cookie").unwrap();
            assert!(cookie.starts_with(side), "{cookie}");
        }
    }
}
