//! A decoder of the gateway: the one that this target is named after.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| penstock::fuzzing::decode(env!("CARGO_BIN_NAME"), bytes));
