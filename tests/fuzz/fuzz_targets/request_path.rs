//! [`postern_tests::fuzz::request_path`], under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| postern_tests::fuzz::request_path(input));
