//! Reactions: what a rule has the gateway do itself, at once, whether or not the cloud is there.
//!
//! ```text
//! [[rule.action]] ──► lifecycle ──► lane alerts ──► a topic of a device, or a local one
//!  templates          renders, in    (one batch  └─► a queue of Service Bus
//!                     the batch of    with the
//!                     the alert       alert's row)
//! ```
//!
//! A [`Reaction`] is an entry of its own in lane `alerts`, in the same synced batch as the row of its alert, so that neither
//! is there without the other. Its id is `<alert id>:<transition>:<action>`, made from the log alone: whoever reads the log
//! again finds the same one. Consumers carry it out at least once; whoever must not act twice remembers ids.
//!
//! Everything in it is rendered when it is decided: rules that change later change nothing about it.

mod action;
mod entry;
#[cfg(any(test, fuzzing))]
mod fuzzing;
mod queues;
mod template;

#[cfg(test)]
mod tests;

pub(crate) use action::{ACTIONS_MAX, Action, Decision, Plan, form_of};
pub(crate) use entry::{Occasion, Reaction, Target, is_reaction};
#[cfg(any(test, fuzzing))]
pub(crate) use fuzzing::DECODERS;
#[cfg(test)]
pub(crate) use fuzzing::fuzzing_seeds;
pub(crate) use queues::Queues;
pub(crate) use template::{Form, Place, Template, UnknownPlace, Unusable, Values};
