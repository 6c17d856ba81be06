//! [`postern_tests::fuzz::access_log`], under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| postern_tests::fuzz::access_log(input));
