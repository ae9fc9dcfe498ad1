//! What lasts of control commands: limits with an end, stored with the final event of the command that set them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::operation::{SECONDS_MAX, Subject};
use crate::outbox::rfc3339;
use crate::supervise::clock;

/// A limit of the uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) kind: Kind,
    /// The command that set it.
    pub(super) command: String,
    /// When it was set and when it ends, in Unix milliseconds by the clock of that time.
    pub(super) set_ms: u64,
    pub(super) until_ms: u64,
}

/// What is limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes of telemetry and bulk per second.
    Cap(u64),
    /// Nothing of this goes upward.
    Pause(Subject),
}

/// A limit as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitStatus {
    /// `cap` or `pause`.
    pub limit: &'static str,
    /// The cap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<u64>,
    /// The stream that is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The event hub that is paused, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_hub: Option<String>,
    /// When it ends, RFC 3339.
    pub until: String,
    /// The command that set it.
    pub command: String,
}

/// Where limits stand in the outbox's state. Records of commands begin with 16, dead-letter marks with 17.
pub(super) const KEY: [u8; 1] = [18];
/// Most limits at a time.
pub(super) const COUNT_MAX: usize = 64;
const VERSION: u8 = 1;

/// The stored form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    penstock: u8,
    limits: Vec<StoredLimit>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredLimit {
    #[serde(skip_serializing_if = "Option::is_none")]
    cap_bytes_per_second: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_event_hub: Option<String>,
    command: String,
    set_ms: u64,
    until_ms: u64,
}

// === impl Limit ===

impl Limit {
    /// How much of it is left. It never lasts longer than it was set for, whatever the clock does: one that was set by
    /// a clock which was not set itself is over when the gateway starts with one that is.
    pub(super) fn left(&self, now_ms: u64) -> Duration {
        let whole = self.until_ms.saturating_sub(self.set_ms).min(SECONDS_MAX * 1000);
        let left = match (clock::plausible(self.set_ms), clock::plausible(now_ms)) {
            (true, true) => self.until_ms.saturating_sub(now_ms).min(whole),
            (false, true) => 0,
            (_, false) => whole,
        };
        Duration::from_millis(left)
    }

    /// Whether the clock on the wall says that it is over.
    pub(super) const fn is_over(&self, now_ms: u64) -> bool {
        clock::plausible(self.set_ms) && now_ms >= self.until_ms
    }

    /// Whether both limit the same, so that the newer one takes the older one's place.
    pub(super) fn is_about(&self, other: &Kind) -> bool {
        match (&self.kind, other) {
            (Kind::Cap(_), Kind::Cap(_)) => true,
            (Kind::Pause(one), Kind::Pause(other)) => one == other,
            _ => false,
        }
    }

    pub(super) fn status(&self) -> LimitStatus {
        let (limit, bytes_per_second, stream, event_hub) = match &self.kind {
            Kind::Cap(bytes) => ("cap", Some(*bytes), None, None),
            Kind::Pause(Subject::Stream(name)) => ("pause", None, Some(name.clone()), None),
            Kind::Pause(Subject::EventHub(name)) => ("pause", None, None, Some(name.clone())),
        };
        let (until, command) = (rfc3339(self.until_ms), self.command.clone());
        LimitStatus { limit, bytes_per_second, stream, event_hub, until, command }
    }
}

/// The limits as they are stored.
pub(super) fn encode<'a>(limits: impl Iterator<Item = &'a Limit>) -> Vec<u8> {
    let limits = limits.map(|limit| {
        let mut stored = StoredLimit {
            cap_bytes_per_second: None,
            pause_stream: None,
            pause_event_hub: None,
            command: limit.command.clone(),
            set_ms: limit.set_ms,
            until_ms: limit.until_ms,
        };
        match &limit.kind {
            Kind::Cap(bytes) => stored.cap_bytes_per_second = Some(*bytes),
            Kind::Pause(Subject::Stream(name)) => stored.pause_stream = Some(name.clone()),
            Kind::Pause(Subject::EventHub(name)) => stored.pause_event_hub = Some(name.clone()),
        }
        stored
    });
    // Text and numbers always become JSON.
    serde_json::to_vec(&Stored { penstock: VERSION, limits: limits.collect() }).unwrap_or_default()
}

/// Reads stored limits; `None` if they are not of this version.
pub(super) fn decode(stored: &[u8]) -> Option<Vec<Limit>> {
    let stored: Stored = serde_json::from_slice(stored).ok()?;
    let limit = |stored: StoredLimit| {
        let StoredLimit { cap_bytes_per_second, pause_stream, pause_event_hub, .. } = stored;
        let kind = match (cap_bytes_per_second, pause_stream, pause_event_hub) {
            (Some(bytes), None, None) => Kind::Cap(bytes),
            (None, Some(name), None) => Kind::Pause(Subject::Stream(name)),
            (None, None, Some(name)) => Kind::Pause(Subject::EventHub(name)),
            _ => return None,
        };
        let (set_ms, until_ms) = (stored.set_ms, stored.until_ms);
        Some(Limit { kind, command: stored.command, set_ms, until_ms })
    };
    let known = stored.penstock == VERSION && stored.limits.len() <= COUNT_MAX;
    known.then(|| stored.limits.into_iter().map(limit).collect())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SET_MS: u64 = 1_790_000_000_000;
    const HOUR_MS: u64 = 3_600_000;

    fn limit(kind: Kind, set_ms: u64) -> Limit {
        Limit { kind, command: "c-1".to_owned(), set_ms, until_ms: set_ms + HOUR_MS }
    }

    #[test]
    fn limits_are_stored_and_read_as_the_format_page_says() {
        let limits = [
            limit(Kind::Cap(200_000), SET_MS),
            limit(Kind::Pause(Subject::Stream("vibration".to_owned())), SET_MS),
            limit(Kind::Pause(Subject::EventHub("plant-7".to_owned())), SET_MS),
        ];
        let stored = encode(limits.iter());
        assert_eq!(decode(&stored).as_deref(), Some(&limits[..]));
        let page = include_str!("../../../../docs/formats/control-limits-v1.md");
        let text = String::from_utf8(stored).expect("JSON");
        assert!(page.contains(&text), "{text}");
        assert_eq!(decode(&encode([].iter())), Some(Vec::new()));
    }

    #[test]
    fn what_is_not_of_this_version_is_not_read() {
        let both = r#"{"penstock":1,"limits":[{"capBytesPerSecond":1,"pauseStream":"a","command":"c","setMs":1,"untilMs":2}]}"#;
        let none = r#"{"penstock":1,"limits":[{"command":"c","setMs":1,"untilMs":2}]}"#;
        for junk in ["", "{}", r#"{"penstock":2,"limits":[]}"#, both, none, "[]"] {
            assert_eq!(decode(junk.as_bytes()), None, "{junk}");
        }
    }

    proptest! {
        #[test]
        fn junk_never_panics(junk in prop::collection::vec(any::<u8>(), 0..100)) {
            let _limits = decode(&junk);
        }
    }

    #[test]
    fn a_limit_lasts_no_longer_than_it_was_set_for() {
        let left = |set_ms: u64, now_ms: u64| limit(Kind::Cap(1), set_ms).left(now_ms).as_secs();
        assert_eq!(left(SET_MS, SET_MS + 60_000), 3540);
        assert_eq!(left(SET_MS, SET_MS + HOUR_MS), 0);
        assert_eq!(left(SET_MS, SET_MS - 100 * HOUR_MS), 3600, "the clock went back");
        assert_eq!(left(SET_MS, 5), 3600, "the clock is not set");
        assert_eq!(left(5, 7), 3600, "and was not");
        assert_eq!(left(5, SET_MS), 0, "and is now");
        let forever = Limit { until_ms: u64::MAX, ..limit(Kind::Cap(1), SET_MS) };
        assert_eq!(forever.left(SET_MS).as_secs(), SECONDS_MAX);
    }
}
