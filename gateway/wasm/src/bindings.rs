//! Generated from `wit/`: the types that cross the boundary, and the glue on this side of it.
//!
//! Nothing outside this crate names a generated type: what the proxy sees is in
//! [`exchange`](crate::exchange).

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated; the interface is documented in wit/"
)]

// A world of the gateway's own lists what this host serves: the worlds in `wit/` are for plugins,
// and none of them has every phase.
wasmtime::component::bindgen!({
    path: "../../wit",
    inline: "
        package postern:gateway;

        world gateway {
            import postern:plugin/types@0.1.0;
            import postern:plugin/request@0.1.0;
            import postern:plugin/response@0.1.0;
            import postern:plugin/body@0.1.0;
            import postern:plugin/exchange@0.1.0;
            import postern:plugin/log@0.1.0;
            import postern:plugin/metrics@0.1.0;
            import postern:plugin/shared@0.1.0;
            import postern:plugin/callout@0.1.0;
            import postern:plugin/clock@0.1.0;
            import postern:plugin/random@0.1.0;
            import postern:plugin/secrets@0.1.0;
            import postern:plugin/crypto@0.1.0;

            export postern:plugin/lifecycle@0.1.0;
            export postern:plugin/route-phase@0.1.0;
            export postern:plugin/request-phase@0.1.0;
            export postern:plugin/request-body-phase@0.1.0;
            export postern:plugin/request-stream@0.1.0;
            export postern:plugin/response-phase@0.1.0;
            export postern:plugin/response-body-phase@0.1.0;
            export postern:plugin/response-stream@0.1.0;
            export postern:plugin/log-phase@0.1.0;
            export postern:plugin/challenge-phase@0.1.0;
            export postern:plugin/background@0.1.0;
            export postern:plugin/dns-solver@0.1.0;
        }
    ",
    world: "postern:gateway/gateway",
    ownership: Borrowing { duplicate_if_necessary: false },
    imports: {
        "postern:plugin/callout.send": async | trappable,
        "postern:plugin/callout.send-all": async | trappable,
        "postern:plugin/clock.sleep-ms": async | trappable,
        default: trappable,
    },
    exports: { default: async },
});
