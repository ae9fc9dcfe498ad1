//! What a refusal by the cloud means for what to do next.

use std::fmt;

/// What to do about a refusal. The loop looks at nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Disposition {
    /// The record fell with another one of its producer, and that one says why.
    Collateral,
    /// Pause, build a new producer and replay: the service was busy, or forgot the producer.
    Retry,
    /// This topic cannot take this record now; hold the topic, let others flow, try again with pauses.
    Hold,
    /// The service does not take this record, whoever sends it.
    Record,
}

/// A refusal: of a record, a topic or a producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) disposition: Disposition,
    /// The client library's name of the error, for people.
    pub(crate) reason: String,
}

impl Disposition {
    /// The name in metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Collateral => "collateral",
            Self::Retry => "retry",
            Self::Hold => "hold",
            Self::Record => "record",
        }
    }
}

impl Failure {
    /// Whether the service refused because too much was sent.
    pub(crate) fn is_violation(&self) -> bool {
        matches!(self.reason.as_str(), "PolicyViolation" | "ThrottlingQuotaExceeded")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}
