//! [`postern_tests::fuzz::h1_edge`], under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| postern_tests::fuzz::h1_edge(input));
