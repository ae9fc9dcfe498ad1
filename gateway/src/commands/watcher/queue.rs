//! One dead-letter queue: when it is looked at, and what operators hear of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ledger::{Found, Ledger};
use crate::commands::DeadLetterStatus;
use crate::commands::amqp::LinkError;
use crate::commands::dispatch::Dice;
use crate::supervise::clock;

/// A dead-letter queue that is watched.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) entity: Arc<str>,
    pub(super) ledger: Ledger,
    /// When it is looked at next.
    pub(super) due: Instant,
    /// In a row.
    failures: u32,
    /// What the last look from end to end found.
    found: Option<Found>,
    /// The newest error and when it was.
    error: Option<(String, u64)>,
    warned: Warned,
}

/// What was warned of and has not passed.
#[derive(Debug, Default)]
struct Warned {
    held: bool,
    unreadable: bool,
}

/// First and longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));

// === impl Queue ===

impl Queue {
    pub(super) fn new(entity: Arc<str>, due: Instant) -> Self {
        let (ledger, warned) = (Ledger::default(), Warned::default());
        Self { entity, ledger, due, failures: 0, found: None, error: None, warned }
    }

    /// It could be looked at; the next time is after `interval`, a tenth earlier or later.
    pub(super) fn looked(&mut self, interval: Duration, dice: &mut Dice) {
        if self.failures > 0 {
            tracing::info!(entity = &*self.entity, "commands: dead letters are looked at again");
        }
        self.failures = 0;
        self.due = clock::now() + dice.between(interval * 9 / 10, interval * 11 / 10);
    }

    /// It could not. Logged when the error is another one than before.
    pub(super) fn failed(&mut self, error: &LinkError, dice: &mut Dice) {
        let text = error.to_string();
        if self.failures == 0 || self.error.as_ref().is_none_or(|(known, _)| *known != text) {
            let entity = &*self.entity;
            tracing::warn!(entity, error = text, "commands: dead letters cannot be looked at; trying again");
        }
        self.failures = self.failures.saturating_add(1);
        self.error = Some((text, clock::unix_ms()));
        let (first, longest) = PAUSE;
        let pause = dice.pause(self.failures, first, longest);
        self.due = clock::now() + pause.max(error.retry_after().unwrap_or_default());
    }

    /// A look is over.
    pub(super) fn over(&mut self, found: Found) {
        let entity = &*self.entity;
        if found.held > 0 && !self.warned.held {
            let held = found.held;
            tracing::warn!(
                entity,
                held,
                "commands: dead letters are not told of, since commands.dead_letters.remembered_max are remembered: empty the dead-letter queue, or raise it"
            );
        }
        if found.unreadable > 0 && !self.warned.unreadable {
            let unreadable = found.unreadable;
            tracing::warn!(entity, unreadable, "commands: dead letters that are not AMQP are passed over");
        }
        self.warned = Warned { held: found.held > 0, unreadable: found.unreadable > 0 };
        self.found = Some(found);
    }

    pub(super) const fn found(&self) -> Option<&Found> {
        self.found.as_ref()
    }

    pub(super) fn status(&self) -> DeadLetterStatus {
        let found = self.found.unwrap_or_default();
        DeadLetterStatus {
            entity: self.entity.to_string(),
            looked: self.found.is_some(),
            told: found.told,
            own: found.own,
            open: found.open,
            held: found.held,
            unreadable: found.unreadable,
            failing: self.failures > 0,
            last_error: self.error.as_ref().map(|(text, _)| text.clone()),
            last_error_ms: self.error.as_ref().map(|(_, at_ms)| *at_ms),
        }
    }
}
