//! What Service Bus itself saw: who settled what, when, and as which delivery (`GET /servicebus/wire-log`).

use serde::Deserialize;

/// A piece of the wire log.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Page {
    /// The number of the oldest entry that the log still has.
    pub first: u64,
    /// The entries, oldest first.
    pub entries: Vec<Entry>,
}

/// Something that happened to a message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// Its number in the log, from 1 without a gap.
    pub id: u64,
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// What happened.
    pub event: Event,
    /// The session, which is the device.
    #[serde(default)]
    pub session: Option<String>,
    /// The sequence number of the message.
    pub sequence: i64,
    /// Its message id.
    #[serde(default)]
    pub message_id: Option<String>,
    /// How many of its deliveries have failed, this one included.
    pub delivery_count: u32,
    /// Why it was dead-lettered.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What may happen to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// Handed to a receiver, under a lock.
    Delivered,
    /// Done, and gone.
    Completed,
    /// Given back; the delivery counts as failed.
    Abandoned,
    /// Given back; the delivery does not count.
    Released,
    /// Put aside by its receiver until it asks for it.
    Deferred,
    /// Put aside for good.
    DeadLettered,
    /// Its time to live was over.
    Expired,
    /// Its lock ran out; the delivery counts as failed.
    LockExpired,
    /// Back because its link or its connection ended; the delivery does not count.
    Returned,
}

impl Page {
    /// Whether entries are gone that come after the one with this number.
    #[must_use]
    pub const fn has_gap_after(&self, after: u64) -> bool {
        self.first > after + 1
    }
}

impl Entry {
    /// Whether a receiver took the message from the queue for good.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self.event, Event::Completed | Event::DeadLettered)
    }

    /// Whether a delivery of the message counts as failed by this.
    #[must_use]
    pub const fn is_failed_delivery(&self) -> bool {
        matches!(self.event, Event::Abandoned | Event::LockExpired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_cloud_sim_writes_it() {
        let text = r#"{"first":7,"next":9,"entries":[{"id":7,"at_ms":5,"event":"delivered","entity":"q","link":3,
            "session":"d","sequence":1,"message_id":"m","delivery_count":0},{"id":8,"at_ms":6,
            "event":"dead-lettered","entity":"q","link":null,"session":"d","sequence":1,"message_id":"m",
            "delivery_count":0,"reason":"penstock-refused"}]}"#;
        let page: Page = serde_json::from_str(text).unwrap();
        let [delivered, dead] = &page.entries[..] else { panic!("{page:?}") };
        assert!(!delivered.is_final() && dead.is_final() && !dead.is_failed_delivery());
        assert_eq!(dead.reason.as_deref(), Some("penstock-refused"));
        assert!(page.has_gap_after(5) && !page.has_gap_after(6) && !page.has_gap_after(8));
    }
}
