//! Readiness: whether devices' messages can be taken.

use super::Sources;
use crate::supervise::Phase;

/// Why devices should go elsewhere for now; `None` when they are welcome.
///
/// The cloud does not matter here: messages wait in the outbox.
pub(super) fn not_ready(sources: &Sources) -> Option<String> {
    if sources.shutdown.phase() > Phase::Run {
        return Some("stopping".to_owned());
    }
    sources.outbox.status().poisoned.map(|reason| format!("outbox: {reason}"))
}
