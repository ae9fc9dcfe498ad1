//! What control commands act on, as the wiring puts it together.

use std::fmt::Debug;

use super::operation::Subject;

/// The gateway around this stage. Calls are short and do not block.
pub trait Site: Send + Sync + Debug {
    /// How the gateway is, as JSON of at most 3 KiB.
    fn health(&self) -> serde_json::Value;

    /// Whether there is an uplink whose work can be limited.
    fn has_uplink(&self) -> bool;

    /// The event hubs that a pause of `subject` stops.
    ///
    /// # Errors
    ///
    /// A sentence that says why it cannot be paused.
    fn select(&self, subject: &Subject) -> Result<Vec<String>, String>;

    /// Limits the uplink in this way from now on, in place of what was said before: at most so many bytes of telemetry
    /// and bulk per second, and none of them to these event hubs.
    fn limit(&self, cap_bytes_per_second: Option<u64>, paused: Vec<String>);
}
