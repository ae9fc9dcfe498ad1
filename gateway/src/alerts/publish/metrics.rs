//! What is measured of reactions on their way to devices.

use metrics::Counter;

use crate::observe::{Kind, Metric, counter_with};

const PUBLISHED: Metric = Metric {
    name: "penstock_alerts_mqtt_reactions_total",
    kind: Kind::Counter,
    help: "Reactions to alerts that were to be published to devices, by what became of them: `taken` by a subscriber; there was `nobody`, or `no-room` in the queues of those there are; `expired`; a `topic` that the gateway does not publish to; `too-large`; `unreadable`. After a crash some are counted again.",
    labels: &[("result", &Outcome::NAMES)],
};

pub(crate) const METRICS: &[Metric] = &[PUBLISHED];

/// What became of a reaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Taken,
    Nobody,
    NoRoom,
    Expired,
    Topic,
    TooLarge,
    Unreadable,
}

pub(super) struct Metrics([Counter; Outcome::NAMES.len()]);

impl Outcome {
    pub(super) const NAMES: [&'static str; 7] =
        ["taken", "nobody", "no-room", "expired", "topic", "too-large", "unreadable"];

    /// Of a message that so many sessions took and so many had no room for, and that is `kept` if it was to be retained.
    pub(super) const fn of(takers: u64, dropped: u64, kept: bool) -> Self {
        match (takers, dropped) {
            (0, 0) if kept => Self::Nobody,
            (0, _) => Self::NoRoom,
            _ => Self::Taken,
        }
    }
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self(Outcome::NAMES.map(|result| counter_with(&PUBLISHED, "result", result)))
    }

    pub(super) fn count(&self, outcome: Outcome) {
        if let Some(counter) = self.0.get(outcome as usize) {
            counter.increment(1);
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_reached_one_session_is_taken() {
        assert_eq!(Outcome::of(1, 3, true), Outcome::Taken);
        assert_eq!(Outcome::of(0, 3, true), Outcome::NoRoom);
        assert_eq!(Outcome::of(0, 0, true), Outcome::Nobody);
        assert_eq!(Outcome::of(0, 0, false), Outcome::NoRoom, "it was to be retained");
        for (place, name) in Outcome::NAMES.iter().enumerate() {
            assert_eq!(*name == "unreadable", place == Outcome::Unreadable as usize);
        }
    }
}
