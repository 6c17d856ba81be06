//! Policies for the Postern gateway, in Rust.
//!
//! A policy is a type that implements [`Plugin`], and a line that says which of its phases the
//! gateway calls:
//!
//! ```
//! use postern_plugin::{Action, Fault, Plugin, Request, Setup};
//!
//! struct Hello;
//!
//! impl Plugin for Hello {
//!     fn configure(_config: &str, _setup: &mut Setup) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!
//!     fn on_request(&self, request: &mut Request) -> Result<Action, Fault> {
//!         request.set("x-hello", "world")?;
//!         Ok(Action::Next)
//!     }
//! }
//!
//! postern_plugin::export!(Hello: request);
//! # fn main() {}
//! ```
//!
//! Built for Wasm, the functions here call the gateway. Built for any other machine they act on a
//! gateway made of values ([`mock`]), so that a policy is tested by plain `cargo test`.
//!
//! Reading order: [`Plugin`]; [`Request`] and [`Response`]; the modules named after interfaces in
//! `wit/`, which hold what else a policy may ask of the gateway; [`config`], [`json`] and [`net`] for
//! what a policy is told; [`mock`].

mod message;
mod plugin;

#[doc(hidden)]
pub mod bindings;
pub mod config;
#[doc(hidden)]
pub mod glue;
pub mod host;
pub mod json;
#[cfg(not(target_family = "wasm"))]
pub mod mock;
pub mod net;

pub use bindings::postern::plugin::types::EditError;
pub use host::body;
pub use host::callout;
pub use host::clock;
pub use host::crypto;
pub use host::exchange;
pub use host::log;
pub use host::metrics;
pub use host::random;
pub use host::secrets;
pub use host::shared;
pub use message::Request;
pub use message::Response;
pub use plugin::Action;
pub use plugin::BodyMode;
pub use plugin::ChunkAction;
pub use plugin::Fault;
pub use plugin::Overflow;
pub use plugin::Plugin;
pub use plugin::Progress;
pub use plugin::Reply;
pub use plugin::Setup;
pub use plugin::Summary;
pub use plugin::TxtRecord;

/// Makes a component of a [`Plugin`], with the phases that are listed.
///
/// The gateway calls only what is listed, so that a phase that is not costs nothing. The phases are
/// `route`, `request`, `request_body`, `request_stream`, `response`, `response_body`,
/// `response_stream`, `log`, `challenge`, `background` and `dns_solver`; each calls the function of
/// [`Plugin`] that is documented for it.
#[macro_export]
macro_rules! export {
    ($plugin:ty: $($phase:ident),+ $(,)?) => {
        #[cfg(not(target_family = "wasm"))]
        impl $crate::mock::Exported for $plugin {
            const PHASES: &'static [&'static str] = &[$(stringify!($phase)),+];
        }

        #[cfg(target_family = "wasm")]
        const _: () = {
            ::std::thread_local! {
                static PLUGIN: $crate::glue::Slot<$plugin> = const { $crate::glue::Slot::new() };
            }

            struct Export;

            $crate::__export_phase!(lifecycle, $plugin);
            $($crate::__export_phase!($phase, $plugin);)+
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_phase {
    (lifecycle, $plugin:ty) => {
        use $crate::bindings::lifecycle as lifecycle_bindings;
        use lifecycle_bindings::exports::postern::plugin::lifecycle as lifecycle_exports;
        impl lifecycle_exports::Guest for Export {
            fn configure(config: String) -> Result<lifecycle_exports::Spec, String> {
                PLUGIN.with(|slot| slot.configure(&config))
            }
        }
        lifecycle_bindings::export_lifecycle!(Export with_types_in lifecycle_bindings);
    };
    (route, $plugin:ty) => {
        use $crate::bindings::route as route_bindings;
        impl route_bindings::exports::postern::plugin::route_phase::Guest for Export {
            fn select(view: $crate::glue::View) -> Option<String> {
                PLUGIN.with(|slot| slot.select(view))
            }
        }
        route_bindings::export_route!(Export with_types_in route_bindings);
    };
    (request, $plugin:ty) => {
        use $crate::bindings::request as request_bindings;
        impl request_bindings::exports::postern::plugin::request_phase::Guest for Export {
            fn on_request(view: $crate::glue::View) -> $crate::glue::WitAction {
                PLUGIN.with(|slot| slot.on_request(view))
            }
        }
        request_bindings::export_request!(Export with_types_in request_bindings);
    };
    (request_body, $plugin:ty) => {
        use $crate::bindings::request_body as request_body_bindings;
        impl request_body_bindings::exports::postern::plugin::request_body_phase::Guest for Export {
            fn on_request_body(length: u64, truncated: bool) -> $crate::glue::WitAction {
                PLUGIN.with(|slot| slot.on_request_body(length, truncated))
            }
        }
        request_body_bindings::export_request_body!(Export with_types_in request_body_bindings);
    };
    (request_stream, $plugin:ty) => {
        use $crate::bindings::request_stream as request_stream_bindings;
        impl request_stream_bindings::exports::postern::plugin::request_stream::Guest for Export {
            fn on_request_chunk(chunk: Vec<u8>, last: bool) -> $crate::glue::WitChunkAction {
                PLUGIN.with(|slot| slot.on_request_chunk(chunk, last))
            }
        }
        request_stream_bindings::export_request_stream!(Export with_types_in request_stream_bindings);
    };
    (response, $plugin:ty) => {
        use $crate::bindings::response as response_bindings;
        impl response_bindings::exports::postern::plugin::response_phase::Guest for Export {
            fn on_response(view: $crate::glue::View) -> $crate::glue::WitAction {
                PLUGIN.with(|slot| slot.on_response(view))
            }
        }
        response_bindings::export_response!(Export with_types_in response_bindings);
    };
    (response_body, $plugin:ty) => {
        use $crate::bindings::response_body as response_body_bindings;
        impl response_body_bindings::exports::postern::plugin::response_body_phase::Guest for Export {
            fn on_response_body(length: u64, truncated: bool) -> $crate::glue::WitAction {
                PLUGIN.with(|slot| slot.on_response_body(length, truncated))
            }
        }
        response_body_bindings::export_response_body!(Export with_types_in response_body_bindings);
    };
    (response_stream, $plugin:ty) => {
        use $crate::bindings::response_stream as response_stream_bindings;
        impl response_stream_bindings::exports::postern::plugin::response_stream::Guest for Export {
            fn on_response_chunk(chunk: Vec<u8>, last: bool) -> $crate::glue::WitChunkAction {
                PLUGIN.with(|slot| slot.on_response_chunk(chunk, last))
            }
        }
        response_stream_bindings::export_response_stream!(Export with_types_in response_stream_bindings);
    };
    (log, $plugin:ty) => {
        use $crate::bindings::log as log_bindings;
        impl log_bindings::exports::postern::plugin::log_phase::Guest for Export {
            fn on_log(summary: $crate::Summary) {
                PLUGIN.with(|slot| slot.on_log(&summary))
            }
        }
        log_bindings::export_log!(Export with_types_in log_bindings);
    };
    (challenge, $plugin:ty) => {
        use $crate::bindings::challenge as challenge_bindings;
        impl challenge_bindings::exports::postern::plugin::challenge_phase::Guest for Export {
            fn key_authorization(host: String, token: String) -> Option<String> {
                PLUGIN.with(|slot| slot.plugin().key_authorization(&host, &token))
            }
        }
        challenge_bindings::export_challenge!(Export with_types_in challenge_bindings);
    };
    (background, $plugin:ty) => {
        use $crate::bindings::background as background_bindings;
        impl background_bindings::exports::postern::plugin::background::Guest for Export {
            fn on_tick() {
                PLUGIN.with(|slot| slot.on_tick())
            }
        }
        background_bindings::export_background!(Export with_types_in background_bindings);
    };
    (dns_solver, $plugin:ty) => {
        use $crate::bindings::dns_solver as dns_solver_bindings;
        impl dns_solver_bindings::exports::postern::plugin::dns_solver::Guest for Export {
            fn supports(zone: String) -> bool {
                PLUGIN.with(|slot| slot.plugin().supports(&zone))
            }
            fn present(txt: $crate::TxtRecord) -> Result<$crate::Progress, String> {
                PLUGIN.with(|slot| slot.plugin().present(&txt))
            }
            fn poll(txt: $crate::TxtRecord) -> Result<$crate::Progress, String> {
                PLUGIN.with(|slot| slot.plugin().poll(&txt))
            }
            fn cleanup(txt: $crate::TxtRecord) -> Result<(), String> {
                PLUGIN.with(|slot| slot.plugin().cleanup(&txt))
            }
        }
        dns_solver_bindings::export_dns_solver!(Export with_types_in dns_solver_bindings);
    };
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// `wit` here is a link to the one that the gateway is built from. Where a checkout or a package
    /// made a copy of it, the copy has to be true.
    #[test]
    fn the_interface_is_that_of_the_gateway() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for file in ["types.wit", "phases.wit", "host.wit", "worlds.wit"] {
            let ours = fs::read_to_string(root.join("wit").join(file)).unwrap();
            let theirs = fs::read_to_string(root.join("../../wit").join(file)).unwrap();
            assert_eq!(ours, theirs, "{file}");
        }
    }
}
