//! Commands for the gateway itself: out of its own session, carried out here, answered like a device's.
//!
//! ```text
//! Service Bus ──session of the gateway──► link ──► execution ──► Everybody ──► Executor ──► Site (uplink, health, …)
//!                                                     ▲                           │
//!                              settled when durable   └── final event, record, limits and audit: one batch
//! ```
//!
//! To the links the gateway is one more device, which is always there ([`Everybody`]): so order, identity, settlement and
//! the one final event are those of every command. What is special: a message that is no operation is dead-lettered as
//! malformed before anything is done ([`Operation::parse`]), and the [`Executor`] answers in the same batch that makes
//! what it does durable. A crash before that batch repeats the command; after it the record settles it.
//!
//! `docs/control.md` tells it to operators; `docs/formats/control-limits-v1.md` has the layout of what lasts.
//!
//! | What is bounded | By | At the bound |
//! |---|---|---|
//! | a body | 4 KiB | malformed |
//! | limits at a time | 64 | the next one is rejected |
//! | how long one lasts | 7 days | malformed, or rejected for `until` |

mod audit;
mod everybody;
mod executor;
mod limits;
mod operation;
mod site;

pub(crate) use everybody::{Everybody, Own};
pub(crate) use executor::Executor;
pub use limits::LimitStatus;
pub(crate) use operation::Operation;
pub use operation::Subject;
pub use site::Site;
