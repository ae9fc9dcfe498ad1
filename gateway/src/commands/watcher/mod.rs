//! What Service Bus itself gave up: commands whose time to live was over, or that were delivered too often, end in the
//! dead-letter queue of their entity without a gateway. The watcher looks at those queues, takes nothing, and tells the
//! end of each of these commands once.
//!
//! ```text
//! dead-letter queue ──peek──► letter ──► told of?  ──no──► in hand here? ──no──► status event ┐ one
//!                                          │ yes             │ yes                    mark ┘ batch
//!                                          ▼                 ▼ looked at again
//! ```
//!
//! What holds:
//!
//! - An event and the mark that it was told are one batch: a crash neither loses nor repeats one.
//! - Letters of gateways (their reason begins with `penstock-`) have been told of. What anybody else put there has failed.
//! - A command that is in hand here, or that this gateway has told the end of, is not told of by its letter. One that had
//!   begun here and was left ends with what its device said, if that is known.
//! - Which letter it is, its whole identity says, never the order of sequence numbers; see [`ledger`].
//!
//! | What is bounded | By | At the bound |
//! |---|---|---|
//! | letters remembered | `remembered_max` | new ones wait in their queue, counted and warned of |
//! | messages in memory | one page: 100 messages, fewer after a page above 4 MiB | |
//! | pages of one entity in a row | 50 | the next entity; it goes on after the interval |
//! | events in one batch | one page | |
//! | room in lane `status` | the outbox | the watcher waits |

mod ledger;
mod mark;
mod queue;
mod source;
mod watch;

#[cfg(test)]
mod tests;

use std::time::Duration;

#[cfg(any(test, fuzzing))]
pub(crate) use mark::decode_for_fuzzing;
pub(crate) use watch::{Desk, Watcher};

/// How it is looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    /// From one look at an entity to the next.
    pub(crate) interval: Duration,
    /// Most letters remembered, of all entities together.
    pub(crate) remembered_max: usize,
}
