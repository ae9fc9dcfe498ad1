//! Rules: what people say is wrong with a measurement, and whether it is.
//!
//! ```text
//! rules file ──parse──► RuleSet (compiled, immutable) ──┐
//!                       errors, by file, rule, place     ▼
//! samples of an entry ───────────────────────────► Evaluator ──► edges
//! the time ──────────────────────────────────────►  state of all series, as a snapshot now and then
//! ```
//!
//! Pure: no clock, no files, nothing random. The same entries in the same order give the same edges, however often the
//! state was written down and read back in between. Per subject (a rule, a device, a metric where the rule is about
//! one) edges come as raised, any number of changes of severity, cleared, and again.
//!
//! A file is read as far as it can be ([`file::Parsed`]): a rule with a mistake is left out and reported, the others run.
//! `docs/rules.md` is the page for those who write rules.

mod action;
mod comparison;
mod definition;
mod draft;
mod error;
mod evaluator;
mod expression;
mod file;
#[cfg(any(test, fuzzing))]
mod fuzzing;
mod kinds;
mod learned;
mod reading;
mod selector;
mod set;
pub(super) mod tests_file;

#[cfg(test)]
mod tests;

pub(crate) use definition::Rule;
#[cfg(test)]
pub(crate) use error::Junk;
pub(crate) use error::{FileError, RuleError};
pub(crate) use evaluator::{Evaluator, Limits};
pub(crate) use file::FILE_BYTES_MAX;
#[cfg(any(test, fuzzing))]
pub(crate) use fuzzing::DECODERS;
#[cfg(test)]
pub(crate) use fuzzing::fuzzing_seeds;
pub(crate) use set::RuleSet;
