//! [`postern_tests::fuzz::h1_upstream_response`], under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| postern_tests::fuzz::h1_upstream_response(input));
