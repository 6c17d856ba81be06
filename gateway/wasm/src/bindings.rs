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

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "full-plugin",
    ownership: Borrowing { duplicate_if_necessary: false },
    imports: { default: trappable },
    exports: { default: async },
});
