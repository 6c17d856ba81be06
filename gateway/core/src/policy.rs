//! The half of a policy that needs no clock, socket or file: values in, values out.

pub mod canary;
pub mod compression;
pub mod concurrency;
pub mod cors;
pub mod forward_auth;
pub mod ip_access;
pub mod rate_limit;
pub mod redirect;
