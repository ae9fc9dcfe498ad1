//! A decoder of the stand-in for the cloud: the one that this target is named after.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| cloud_sim::fuzzing::decode(env!("CARGO_BIN_NAME"), bytes));
