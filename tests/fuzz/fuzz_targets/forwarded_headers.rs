//! [`postern_tests::fuzz::forwarded_headers`], under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| postern_tests::fuzz::forwarded_headers(input));
