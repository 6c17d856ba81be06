//! [`postern_tests::fuzz::plugin_verdict`], under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| postern_tests::fuzz::plugin_verdict(input));
