//! The sink of reactions that are published: to the command topic of a device, or to any local topic.
//!
//! One consumer of lane alerts, there whether or not a rule has something to publish, so that nothing ever waits for it that
//! is not its own. What enters: reactions, in the order in which they were decided. What leaves: publishes to whoever
//! subscribes at this gateway, with the reaction's id as correlation data and user property. Bounds: 256 publishes that are
//! not durable yet; then it waits for them. An expired reaction is counted and not published; nothing else makes it forget one.

mod metrics;
mod sink;
mod status;

#[cfg(test)]
mod tests;

pub(crate) use metrics::METRICS;
pub(crate) use sink::{Sink, consumer};
pub(crate) use status::{Handle, Status};
