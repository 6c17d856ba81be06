//! What is known of a request besides what it says itself.

use std::net::IpAddr;

use postern_core::request::RequestHead;
use postern_wasm::Exchange;

use crate::connection::Connection;
use crate::snapshot::Rule;
use crate::worker::View;

/// Tells plugins what they may ask about.
pub(super) fn introduce(
    exchange: &mut Exchange,
    view: &View,
    connection: &Connection,
    rule: &Rule,
    client: IpAddr,
    version: http::Version,
) {
    exchange.version = version;
    exchange.peer = Some(connection.peer);
    exchange.client = Some(client);
    exchange.sni = connection.tls.as_ref().and_then(|tls| tls.sni.clone());
    exchange.listener = Some(connection.listener.name.clone());
    exchange.route = Some(rule.route.clone());
    exchange.encoded_slash = connection.rules.encoded_slash;
    exchange.upstreams = Some(view.upstreams.clone());
}

/// Who asks: the peer, or whom a trusted peer speaks for.
pub(super) fn client(connection: &Connection, head: &RequestHead) -> IpAddr {
    let peer = connection.peer_fields.peer;
    if connection.rules.is_trusted {
        let proxies = &connection.listener.spec.trusted_proxies;
        proxies.client(peer, &head.headers)
    } else {
        peer
    }
}
