//! One function per decoder of bytes that this program does not control, and random bytes for them.
//!
//! It exists in tests and under cargo-fuzz only. Each stage lists its own decoders; a decoder passes if it
//! returns, whatever it makes of the bytes, and if what it says about them holds together.

mod minimise;
mod mutate;

pub(crate) use minimise::minimise;
pub(crate) use mutate::{Random, mutate};

/// A number of the environment variable `PENSTOCK_FUZZ_<name>`, or `default`.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(format!("PENSTOCK_FUZZ_{name}")).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}
