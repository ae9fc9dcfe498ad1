//! Requests to Sparkplug edge nodes whose messages are missing, to tell their births again.
//!
//! They go out over MQTT to whoever subscribes to the edge node's commands, at QoS 0 as the specification has it, at most
//! one per edge node and minute. One that is lost is made up for by the next message that cannot be read.

use metrics::Counter;

use super::measure::Rebirth;
use crate::mqtt::{Outgoing, Publisher};
use crate::observe::{Kind, Metric, counter_with};

pub(super) const REQUESTS: Metric = Metric {
    name: "penstock_alerts_sparkplug_requests_total",
    kind: Kind::Counter,
    help: "Requests to Sparkplug edge nodes to tell their births again: sent, not heard by anybody, not publishable (the log says why), or not made since `sparkplug_rebirth` is off.",
    labels: &[("result", &["sent", "unheard", "refused", "off"])],
};

/// Makes the requests.
pub(super) struct Requests {
    /// None if none are to be made.
    publisher: Option<Publisher>,
    sent: Counter,
    unheard: Counter,
    refused: Counter,
    off: Counter,
}

// === impl Requests ===

impl Requests {
    pub(super) fn new(publisher: Option<Publisher>) -> Self {
        let result = |result| counter_with(&REQUESTS, "result", result);
        Self {
            publisher,
            sent: result("sent"),
            unheard: result("unheard"),
            refused: result("refused"),
            off: result("off"),
        }
    }

    /// Asks for what is wished for. `now_ms` is the wall clock, in Unix milliseconds.
    pub(super) fn make(&self, wish: &Rebirth, now_ms: u64) {
        let (group, edge_node) = (&wish.group, &wish.edge_node);
        let Some(publisher) = &self.publisher else {
            self.off.increment(1);
            tracing::warn!(%group, %edge_node, "messages of a Sparkplug node are missing; it has to tell its births again");
            return;
        };
        let (topic, payload) = (wish.topic(), Rebirth::payload(now_ms));
        match publisher.publish(&Outgoing::new(&topic, &payload)) {
            Ok(published) if published.takers > 0 => {
                self.sent.increment(1);
                tracing::warn!(%group, %edge_node, "messages of a Sparkplug node are missing; it is asked to tell its births again");
            }
            Ok(_) => {
                self.unheard.increment(1);
                tracing::warn!(%group, %edge_node, topic, "messages of a Sparkplug node are missing, and nobody subscribes to its commands");
            }
            Err(error) => {
                self.refused.increment(1);
                tracing::warn!(%group, %edge_node, topic, %error, "messages of a Sparkplug node are missing, and it cannot be asked for its births");
            }
        }
    }
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests").field("publisher", &self.publisher).finish_non_exhaustive()
    }
}
