#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| klamm_tests::fuzz::run("voter_door", input));
