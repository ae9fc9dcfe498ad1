//! What is measured of dead letters. How many wait, and their bytes, are the outbox's backlog of lane
//! `dead`; how many were buried, the messages appended to it.

use metrics::Counter;

use crate::observe::{Kind, Metric, counter};

const RETRIED: Metric = Metric {
    name: "penstock_dead_letter_retried_messages_total",
    kind: Kind::Counter,
    help: "Dead letters that went back to their lane, as an operator said.",
    labels: &[],
};
const DISCARDED: Metric = Metric {
    name: "penstock_dead_letter_discarded_messages_total",
    kind: Kind::Counter,
    help: "Dead letters that were let go, as an operator said; a loss record lists them.",
    labels: &[],
};

pub(crate) const METRICS: &[Metric] = &[RETRIED, DISCARDED];

#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) retried: Counter,
    pub(super) discarded: Counter,
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self { retried: counter(&RETRIED), discarded: counter(&DISCARDED) }
    }
}
