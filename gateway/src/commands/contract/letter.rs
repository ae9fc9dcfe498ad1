//! A message in a dead-letter queue of Service Bus, as far as the end of its command is told.

use super::about::{About, beginning};
use super::outcome::{Outcome, PREFIX};
use super::properties;
use crate::commands::message::{Received, Value};

/// A message that Service Bus, a gateway or somebody else gave up: all of it but its body.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Letter {
    pub(crate) about: About,
    /// Why, in a word for machines.
    reason: Option<Box<str>>,
    /// Why, in a sentence for people.
    description: Option<Box<str>>,
}

/// What Service Bus writes down when it moves a message to the dead-letter queue ("Service Bus dead-letter queues").
const REASON: &str = "DeadLetterReason";
const DESCRIPTION: &str = "DeadLetterErrorDescription";

// === impl Letter ===

impl Letter {
    /// Reads a message of the dead-letter queue of `entity`, for a device of `tenant`. There is none that cannot be
    /// read: what it does not say is not told.
    pub(crate) fn read(received: &Received, entity: &str, tenant: Option<&str>) -> Self {
        let mut about = About::of(received, entity, tenant);
        // What can be said about it is said, also if some of it is bad.
        drop(properties::read(received, &mut about));
        let text = |name: &str| match received.properties.iter().find(|(known, _)| known == name) {
            Some((_, Value::Text(text))) => beginning(Some(text)),
            _ => None,
        };
        Self { reason: text(REASON), description: text(DESCRIPTION), about }
    }

    /// Whether a gateway gave it up. It told so before it did.
    pub(crate) fn is_told(&self) -> bool {
        self.reason.as_deref().is_some_and(|reason| reason.starts_with(PREFIX))
    }

    /// How its command ends.
    pub(crate) fn outcome(&self) -> Outcome {
        Outcome::dead_lettered(self.reason.as_deref(), self.description.as_deref())
    }
}
