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
//! killed against those of one that was not. Of gateways that run, [`weigh_storm`] says whether one event spoke for very many
//! alerts and all critical ones came, [`weigh_order`] in which order the cloud got what was kept for it, and
//! [`weigh_bystanders`] whether telemetry noticed anything.

mod arrival;
mod backlog;
mod bucket;
mod bystanders;
mod comparison;
mod event;
mod judge;
mod storm;
mod truth;
mod waits;

pub use arrival::Arrival;
pub use backlog::{Away, Order, weigh_order};
pub use bucket::Cap;
pub use bystanders::{Bounds, Difference, Showing, median, weigh_bystanders};
pub use comparison::{Comparison, Name, compare};
pub use judge::{Conditions, Counts, Expectation, Seen, Verdict, judge};
pub use storm::{Breach, Found, Group, Terms, weigh_storm};
pub use truth::{Injected, Kind, Line, Run, Truth, TruthError};
pub use waits::{Waits, waits};
