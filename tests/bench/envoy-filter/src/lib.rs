//! The bench's header policy as a proxy-wasm filter: what the gateway's plugin does, for Envoy.
//!
//! The policy is written out here, not read from a configuration, so that the filter pays for
//! nothing but the host calls and its own work.

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_http_context(|_, _| Box::new(HeaderPolicy));
}}

struct HeaderPolicy;

impl Context for HeaderPolicy {}

impl HttpContext for HeaderPolicy {
    fn on_http_request_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        let path = self.get_http_request_header(":path").unwrap_or_default();

        if path.starts_with("/admin") && self.get_http_request_header("x-api-key").is_none() {
            self.send_http_response(401, vec![], None);
            return Action::Pause;
        }
        if path.starts_with("/api/") {
            self.set_http_request_header(":path", Some(&path["/api".len()..]));
        }
        self.set_http_request_header("x-postern", Some("1"));
        self.remove_http_request_header("x-internal");
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _count: usize, _end_of_stream: bool) -> Action {
        self.set_http_response_header("x-frame-options", Some("DENY"));
        self.remove_http_response_header("server");
        Action::Continue
    }
}
