//! [`postern_tests::fuzz::component_load`], under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| postern_tests::fuzz::component_load(input));
