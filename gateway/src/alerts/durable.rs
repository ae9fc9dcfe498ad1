//! How a sink makes its progress durable, with what belongs to it.

use std::sync::Arc;
use std::time::Duration;

use penstock_proto::Seq;

use crate::outbox::{Completion, Consumer, Encoded, Refused};
use crate::supervise::clock;

/// Why progress did not become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unsaved {
    /// Not yet; it is worth trying again.
    Again,
    /// The outbox is closed, or the gateway stops.
    Ended,
}

/// How often it is looked whether to wait on for a commit.
const LOOK_UP: Duration = Duration::from_millis(200);

/// Makes progress durable in one batch with `outputs`. Blocks until it is, or it is known that it is not, or for as long as
/// `wait` says.
pub(super) fn save(
    consumer: &mut Consumer,
    (low, state): (Seq, Vec<u8>),
    outputs: &Encoded,
    mut wait: impl FnMut() -> bool,
) -> Result<(), Unsaved> {
    let done = Arc::new(Completion::new());
    let ticket = match consumer.commit_with(low, state, outputs, &done) {
        Ok(ticket) => ticket,
        Err(Refused::Closed) => return Err(Unsaved::Ended),
        Err(refused) => {
            tracing::debug!(%refused, "progress waits");
            return Err(Unsaved::Again);
        }
    };
    loop {
        match done.wait(ticket, clock::now() + LOOK_UP) {
            Some(Ok(())) => return Ok(()),
            // The store is being opened again, and knows neither the progress nor what went with it.
            Some(Err(_)) => return Err(Unsaved::Again),
            None if wait() => {}
            // Nobody knows. The progress that the next start finds tells.
            None => return Err(Unsaved::Ended),
        }
    }
}
