//! What is counted of tokens.

use metrics::Gauge;

use super::source::FetchError;
use crate::observe::{Kind, Metric, counter_with, gauge};

const OUTCOMES: &[&str] = &["fetched", "refused", "busy", "unreachable", "local"];

const REQUESTS: Metric = Metric {
    name: "penstock_azure_token_requests_total",
    kind: Kind::Counter,
    help: "Tokens asked for, by outcome: `fetched`; `refused`, the endpoint knows the caller not or not so; `busy`, it asked to come later or failed itself; `unreachable`; `local`, a file of ours cannot be read.",
    labels: &[("outcome", OUTCOMES)],
};
const EXPIRY: Metric = Metric {
    name: "penstock_azure_token_expiry_timestamp_seconds",
    kind: Kind::Gauge,
    help: "Unix time at which the token in use expires, 0 before the first one. It is renewed at 50 to 80 % of its life.",
    labels: &[],
};
const FAILURES: Metric = Metric {
    name: "penstock_azure_token_failures",
    kind: Kind::Gauge,
    help: "Failed requests for a token since the last one came; 0 while all is well.",
    labels: &[],
};

/// Every metric of tokens.
pub(crate) const METRICS: &[Metric] = &[REQUESTS, EXPIRY, FAILURES];

pub(super) struct Metrics {
    expiry: Gauge,
    failures: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let metrics = Self { expiry: gauge(&EXPIRY), failures: gauge(&FAILURES) };
        metrics.expiry.set(0.0);
        metrics.failures.set(0.0);
        metrics
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are floats; exact for 285,000 years")]
    pub(super) fn fetched(&self, expiry_ms: u64) {
        counter_with(&REQUESTS, "outcome", "fetched").increment(1);
        self.expiry.set((expiry_ms / 1000) as f64);
        self.failures.set(0.0);
    }

    pub(super) fn failed(&self, error: &FetchError) {
        counter_with(&REQUESTS, "outcome", error.outcome()).increment(1);
        self.failures.increment(1.0);
    }
}
