//! The Event Grid side of cloud-sim: its control API; publishers that were not written here; and what judges events.

mod judge;
mod publishers;

use serde::Deserialize;
use serde_json::{Value, json};

pub use self::judge::{
    EVENT_BYTES_MAX, JudgeError, Opinion, Verdict, judge, judge_entries, judges_are_installed,
};
pub use self::publishers::{Publisher, Refused};
use super::{Control, ControlError};

/// The two access keys, unless cloud-sim was told others.
pub const KEYS: [&str; 2] =
    ["Y2xvdWQtc2ltIGV2ZW50IGdyaWQga2V5IG51bWJlciA=", "Y2xvdWQtc2ltIGV2ZW50IGdyaWQga2V5IG51bWJlcjI="];

/// Events that were accepted.
#[derive(Debug, Clone, Deserialize)]
pub struct Page {
    /// At most 1,000, in the order in which they were accepted.
    pub entries: Vec<Entry>,
    /// How many were accepted in all.
    pub accepted: u64,
}

/// An event that was accepted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Entry {
    /// 1, 2, 3 and so on.
    pub number: u64,
    /// Unix time in milliseconds.
    pub at_ms: u64,
    /// The number of the request that it came with, since the start of cloud-sim.
    pub request: u64,
    /// The topic of the namespace or of the domain.
    pub topic: Option<String>,
    /// The CloudEvent.
    pub event: Value,
}

/// What came more than once.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Duplicate {
    /// `source` of the event.
    pub source: String,
    /// `id` of the event.
    pub id: String,
    /// How often it came.
    pub times: u64,
    /// Whether it was not the same event each time.
    pub differs: bool,
}

/// The part of the control API that is about Event Grid.
#[derive(Debug, Clone, Copy)]
pub struct EventGrid<'a> {
    control: &'a Control,
}

impl<'a> EventGrid<'a> {
    pub(super) fn new(control: &'a Control) -> Self {
        Self { control }
    }

    /// Accepted events with a number above `after`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn events_after(self, after: u64) -> Result<Page, ControlError> {
        self.control.read(&format!("/eventgrid/events?after={after}"))
    }

    /// What came more than once.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn duplicates(self) -> Result<Vec<Duplicate>, ControlError> {
        #[derive(Deserialize)]
        struct Answer {
            duplicates: Vec<Duplicate>,
        }
        self.control.read("/eventgrid/duplicates").map(|answer: Answer| answer.duplicates)
    }

    /// Counts of events and requests.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn counters(self) -> Result<Value, ControlError> {
        self.control.get("/eventgrid/counters")
    }

    /// Every accepted event with a number above `after`, page by page.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn all_events_after(self, mut after: u64) -> Result<Vec<Entry>, ControlError> {
        let mut all = Vec::new();
        loop {
            let page = self.events_after(after)?;
            let Some(last) = page.entries.last() else { return Ok(all) };
            after = last.number;
            all.extend(page.entries);
        }
    }

    /// Any fault, such as `{"fault": "lose-answers", "requests": 3}`. Gives how many connections it met. The faults are
    /// listed in docs/cloud-sim.md.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub fn fault(self, order: &Value) -> Result<u64, ControlError> {
        Ok(self.control.ask("/eventgrid/faults", order)?["met"].as_u64().unwrap_or(0))
    }

    /// Whether it closes every connection at once.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn away(self, enabled: bool) -> Result<u64, ControlError> {
        self.fault(&json!({ "fault": "away", "enabled": enabled }))
    }

    /// The next requests get this status, and nothing of them is accepted.
    ///
    /// # Errors
    /// When it does not answer, or the status is no refusal.
    pub fn refuse(self, status: u16, requests: u64) -> Result<u64, ControlError> {
        self.fault(&json!({ "fault": "status", "status": status, "requests": requests }))
    }

    /// As [`Self::refuse`], with `Retry-After` in seconds.
    ///
    /// # Errors
    /// When it does not answer, or the status is no refusal.
    pub fn refuse_for(self, status: u16, requests: u64, retry_after: u64) -> Result<u64, ControlError> {
        let order =
            json!({ "fault": "status", "status": status, "requests": requests, "retry_after": retry_after });
        self.fault(&order)
    }

    /// As [`Self::refuse`], but the events are accepted all the same.
    ///
    /// # Errors
    /// When it does not answer, or the status is no refusal.
    pub fn refuse_what_is_accepted(self, status: u16, requests: u64) -> Result<u64, ControlError> {
        self.fault(&json!({ "fault": "status", "status": status, "requests": requests, "accept": true }))
    }

    /// The next requests are accepted, and their connections cut instead of an answer: what makes duplicates.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn lose_answers(self, requests: u64) -> Result<u64, ControlError> {
        self.fault(&json!({ "fault": "lose-answers", "requests": requests }))
    }

    /// The next requests are read and their connections cut; nothing of them is accepted.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn cut_requests(self, requests: u64) -> Result<u64, ControlError> {
        self.fault(&json!({ "fault": "cut-requests", "requests": requests }))
    }

    /// The next requests are read and never answered; nothing of them is accepted.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn black_hole(self, requests: u64) -> Result<u64, ControlError> {
        self.fault(&json!({ "fault": "black-hole", "requests": requests }))
    }

    /// Requests with one of these events are refused with 400; an empty list ends it.
    ///
    /// # Errors
    /// When it does not answer, or there are more than 10,000 ids.
    pub fn reject_ids(self, ids: &[&str]) -> Result<u64, ControlError> {
        self.fault(&json!({ "fault": "reject-ids", "ids": ids }))
    }

    /// The so-manieth event from now on becomes one that is refused with 400.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn reject_nth(self, nth: u64) -> Result<u64, ControlError> {
        self.fault(&json!({ "fault": "reject-nth", "nth": nth }))
    }

    /// Above so many events per second requests get 429, with `Retry-After` in seconds if it is given; 0 sets no limit.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn rate(self, events_per_second: u64, retry_after: Option<u64>) -> Result<u64, ControlError> {
        let order = json!({
            "fault": "rate", "events_per_second": events_per_second, "retry_after": retry_after
        });
        self.fault(&order)
    }

    /// Answers are held back for so many milliseconds; 0 ends it.
    ///
    /// # Errors
    /// When it does not answer, or it is above 120,000.
    pub fn delay(self, ms: u64) -> Result<u64, ControlError> {
        self.fault(&json!({ "fault": "delay", "ms": ms }))
    }

    /// Replaces the first key: what shows it, or is signed with it, gets 401 from now on.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn rotate_key(self, key: &str) -> Result<u64, ControlError> {
        self.fault(&json!({ "fault": "rotate-key", "key": key }))
    }

    /// Every token that was given so far gets 401 from now on; a new one does not. Cuts the connections of Kafka and
    /// Service Bus too.
    ///
    /// # Errors
    /// When it does not answer, or was started without `--oauth`.
    pub fn expire_tokens(self) -> Result<(), ControlError> {
        self.control.post("/v1/faults/tokens", &json!({ "expire": true }))
    }

    /// Ends all faults but for the keys.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn clear(self) -> Result<u64, ControlError> {
        self.fault(&json!({ "fault": "clear" }))
    }
}
