//! [`postern_tests::fuzz::h2_frames`], under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| postern_tests::fuzz::h2_frames(input));
