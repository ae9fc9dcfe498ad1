//! The account and the judgement of alerts.
//!
//! ```text
//! fleet ──faults it had──► truth file ──┐
//!   │                                   ├──► judge ──► verdict
//!   └──readings──► gateway ──alerts──► cloud
//! ```
//!
//! Two witnesses that share no code with the gateway: the fleet says what was wrong with which readings and when it
//! sent them ([`Truth`]), and the cloud has the alerts as they arrived. [`judge()`] holds the one against the other with a
//! table of which rules are expected to see which kind of fault. [`compare()`] holds the alerts of a gateway that was
//! killed against those of one that was not.

mod comparison;
mod event;
mod judge;
mod truth;

pub use comparison::{Comparison, Name, compare};
pub use judge::{Conditions, Counts, Expectation, Seen, Verdict, judge};
pub use truth::{Injected, Kind, Line, Run, Truth, TruthError};
