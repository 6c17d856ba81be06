//! Generated from `wit/`: the functions of the gateway, and one macro a phase that exports it.
//!
//! Every phase has a world of its own, so that a component exports what its author names and no
//! more: the gateway calls what it finds, and a phase that is not there costs nothing.

#![allow(
    missing_docs,
    unsafe_code,
    clippy::all,
    clippy::allow_attributes_without_reason,
    elided_lifetimes_in_paths,
    trivial_numeric_casts,
    unnameable_types,
    unreachable_pub,
    unused_qualifications,
    reason = "generated"
)]

wit_bindgen::generate!({
    path: "wit",
    world: "host",
});

macro_rules! phase {
    ($module:ident, $macro:literal, $world:literal, $path:literal) => {
        pub mod $module {
            wit_bindgen::generate!({
                path: "wit",
                inline: $world,
                pub_export_macro: true,
                export_macro_name: $macro,
                default_bindings_module: $path,
                with: {
                    "postern:plugin/types@0.1.0": crate::bindings::postern::plugin::types,
                },
            });
        }
    };
}

phase!(
    lifecycle,
    "export_lifecycle",
    "package postern:sdk; world lifecycle { import postern:plugin/types@0.1.0; export postern:plugin/lifecycle@0.1.0; }",
    "postern_plugin::bindings::lifecycle"
);
phase!(
    route,
    "export_route",
    "package postern:sdk; world route { export postern:plugin/route-phase@0.1.0; }",
    "postern_plugin::bindings::route"
);
phase!(
    request,
    "export_request",
    "package postern:sdk; world request { export postern:plugin/request-phase@0.1.0; }",
    "postern_plugin::bindings::request"
);
phase!(
    request_body,
    "export_request_body",
    "package postern:sdk; world request-body { export postern:plugin/request-body-phase@0.1.0; }",
    "postern_plugin::bindings::request_body"
);
phase!(
    request_stream,
    "export_request_stream",
    "package postern:sdk; world request-stream { export postern:plugin/request-stream@0.1.0; }",
    "postern_plugin::bindings::request_stream"
);
phase!(
    response,
    "export_response",
    "package postern:sdk; world response { export postern:plugin/response-phase@0.1.0; }",
    "postern_plugin::bindings::response"
);
phase!(
    response_body,
    "export_response_body",
    "package postern:sdk; world response-body { export postern:plugin/response-body-phase@0.1.0; }",
    "postern_plugin::bindings::response_body"
);
phase!(
    response_stream,
    "export_response_stream",
    "package postern:sdk; world response-stream { export postern:plugin/response-stream@0.1.0; }",
    "postern_plugin::bindings::response_stream"
);
phase!(
    log,
    "export_log",
    "package postern:sdk; world log { import postern:plugin/types@0.1.0; export postern:plugin/log-phase@0.1.0; }",
    "postern_plugin::bindings::log"
);
phase!(
    challenge,
    "export_challenge",
    "package postern:sdk; world challenge { import postern:plugin/types@0.1.0; export postern:plugin/challenge-phase@0.1.0; }",
    "postern_plugin::bindings::challenge"
);
phase!(
    background,
    "export_background",
    "package postern:sdk; world background { import postern:plugin/types@0.1.0; export postern:plugin/background@0.1.0; }",
    "postern_plugin::bindings::background"
);
phase!(
    dns_solver,
    "export_dns_solver",
    "package postern:sdk; world dns-solver { import postern:plugin/types@0.1.0; export postern:plugin/dns-solver@0.1.0; }",
    "postern_plugin::bindings::dns_solver"
);
