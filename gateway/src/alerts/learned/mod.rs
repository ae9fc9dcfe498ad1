//! The learned detector: says how unusual a measurement is for its series, without being told what is usual.
//!
//! A series is predicted; seven features say how far it is from what it was: the error of the prediction, its recent
//! average, the level against the long one, more movement than usual, less, and the distance to the usual day at once
//! and averaged. Each feature is compared with its own past values ([`tail`]): how rare is one as large as this? That
//! needs no assumption about a distribution, and it makes scores of different series comparable. The rarest feature
//! and a share of all of them make the score; a score above the threshold is an alert unless one was just raised.
//!
//! The machine is pure: time comes with the measurement, the state of a series ([`Series`]) is a value of at most 512
//! bytes, and the same input gives the same bits on every machine. Averages move with time, not with samples: the unit
//! of time is the interval at which the series usually speaks, so that parameters hold for a second as for an hour, and
//! averages move across a missing sample as far as for two.
//!
//! What is not a number, or not after the last measurement, is refused and changes nothing. After a gap the prediction
//! starts anew from the first value, which is not judged; what was learned about levels and rarity stays.

mod arithmetic;
mod budget;
mod detector;
pub mod exam;
mod features;
#[cfg(any(test, fuzzing))]
mod fuzzing;
mod gate;
mod series;
mod snapshot;
mod tail;
#[cfg(test)]
mod tests;
mod tuning;

pub use budget::Budget;
pub use detector::{Detector, Observation, Refused, Settings};
#[cfg(any(test, fuzzing))]
pub(crate) use fuzzing::DECODERS;
#[cfg(test)]
pub(crate) use fuzzing::fuzzing_seeds;
pub use gate::Gate;
pub use series::Series;
pub use snapshot::Junk;
pub use tuning::Tuning;
