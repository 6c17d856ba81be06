//! What bounds a client, as it is configured.

use postern_core::config::LimitsSpec;
use postern_core::config::listener::Http2Limits;
use postern_core::config::listener::ListenerLimits;
use postern_core::config::listener::ListenerTimeouts;
use serde_json::Value;
use serde_json::json;

use super::duration;
use super::object;
use postern_core::config::parse::units::print_size;

pub(super) fn process(spec: &LimitsSpec) -> Value {
    object([
        ("connections", json!(spec.connections)),
        ("memory-close", json!(spec.memory.close)),
        ("memory-refuse", json!(spec.memory.refuse)),
        ("memory-stop", json!(spec.memory.stop)),
    ])
}

pub(super) fn timeouts(spec: &ListenerTimeouts) -> Value {
    json!({
        "proxy-header": duration(spec.proxy_header),
        "handshake": duration(spec.handshake),
        "request-head": duration(spec.request_head),
        "keep-alive": duration(spec.keep_alive),
        "body-idle": duration(spec.body_idle),
        "write-idle": duration(spec.write_idle),
        "body-grace": duration(spec.body_grace),
    })
}

pub(super) fn listener(spec: &ListenerLimits) -> Value {
    json!({
        "connections": spec.connections,
        "head": print_size(u64::from(spec.head_bytes)),
        "request-line": print_size(u64::from(spec.request_line)),
        "head-fields": spec.head_fields,
        "streams": spec.streams,
        "requests": spec.requests,
        "body-rate": print_size(u64::from(spec.body_rate)),
    })
}

pub(super) fn http2(spec: &Http2Limits) -> Value {
    json!({
        "head": print_size(u64::from(spec.head_bytes)),
        "window": duration(spec.window),
        "resets": spec.resets,
        "resets-in-window": spec.resets_in_window,
        "faults": spec.faults,
        "settings": spec.settings,
        "pings": spec.pings,
        "priorities": spec.priorities,
        "window-updates": spec.window_updates,
        "empty-data": spec.empty_data,
    })
}
