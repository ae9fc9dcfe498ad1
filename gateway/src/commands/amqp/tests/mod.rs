//! The layer against what stands in front of a service, and against a Service Bus of ours.

mod connections;
mod dialing;
mod front;
mod replies;
mod sessions;
pub(in crate::commands) mod sim;
