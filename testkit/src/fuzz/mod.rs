//! Random bytes for decoders of bytes that nobody vouches for.
//!
//! A [`Target`] is one decoder with cases to begin with: valid ones, made by the encoders, and broken ones
//! written by hand. [`run`] changes them at random and calls the decoder, in parallel; the same seed makes the
//! same cases, however many threads there are. A case that panics is made as small as it gets and written to
//! a file, which [`replay`] runs again.
//!
//! Five environment variables tell a test what to do: `PENSTOCK_FUZZ_CASES` (how many cases for all decoders
//! together), `PENSTOCK_FUZZ_SEED`, `PENSTOCK_FUZZ_THREADS`, `PENSTOCK_FUZZ_DIR` (where failing cases go) and
//! `PENSTOCK_FUZZ_REPLAY` (a file to run again, and nothing else).

mod minimise;
mod mutate;
mod runner;

pub use minimise::minimise;
pub use mutate::{Random, mutate};
pub use runner::{Failure, Outcome, Plan, Row, Target, replay, run};

/// A number of the environment variable `PENSTOCK_FUZZ_<name>`, or `default` if it is not set.
///
/// # Panics
///
/// If it is set to something else than a number.
#[must_use]
pub fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(format!("PENSTOCK_FUZZ_{name}")).ok();
    text.map_or(default, |text| text.parse().expect("PENSTOCK_FUZZ_ variables hold numbers"))
}
