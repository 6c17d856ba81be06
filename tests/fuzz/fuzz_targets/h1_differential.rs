//! [`postern_tests::fuzz::h1_differential`], under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| postern_tests::fuzz::h1_differential(input));
