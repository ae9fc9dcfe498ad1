//! The gateway as commands for it see it: how it is, and what of it can be limited.

use serde_json::{Value, json};

use crate::supervise::clock;
use crate::{commands, mqtt, outbox, uplink};

/// The handles that commands for the gateway act on.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) outbox: outbox::Handle,
    pub(crate) mqtt: mqtt::Handle,
    pub(crate) uplink: Option<uplink::Handle>,
}

/// Longest text in a health snapshot, in bytes, and most topics that one lists: all of it has to fit into an event.
const TEXT_BYTES_MAX: usize = 200;
const TOPICS_MAX: usize = 3;

impl commands::Site for Site {
    fn health(&self) -> Value {
        let outbox = self.outbox.status();
        let lanes: Value =
            outbox.lanes.iter().map(|lane| (lane.lane.name().to_owned(), of_lane(lane))).collect();
        let mqtt = self.mqtt.status();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "epoch": outbox.epoch.0,
            "connections": mqtt.connections,
            "outbox": {
                "backlog_bytes": outbox.backlog_bytes,
                "bytes_max": outbox.bytes_max,
                "disk_free_bytes": outbox.disk_free_bytes,
                "incidents": outbox.incidents,
                "poisoned": outbox.poisoned.as_deref().map(beginning),
                "lanes": lanes,
            },
            "uplink": self.uplink.as_ref().map(|uplink| of_uplink(&uplink.status())),
        })
    }

    fn has_uplink(&self) -> bool {
        self.uplink.is_some()
    }

    fn select(&self, subject: &commands::Subject) -> Result<Vec<String>, String> {
        let uplink = self.uplink.as_ref().ok_or("this gateway has no uplink")?;
        let selection = match subject {
            commands::Subject::Stream(name) => uplink::Selection::Stream(name),
            commands::Subject::EventHub(name) => uplink::Selection::Topic(name),
        };
        uplink.select(selection).map_err(|error| error.to_string())
    }

    fn limit(&self, cap_bytes_per_second: Option<u64>, paused_topics: Vec<String>) {
        if let Some(uplink) = &self.uplink {
            uplink.wish(uplink::Wishes { cap_bytes_per_second, paused_topics });
        }
    }
}

fn of_lane(lane: &outbox::LaneStatus) -> Value {
    let age_ms = lane.oldest_ms.map(|oldest_ms| clock::unix_ms().saturating_sub(oldest_ms));
    json!({
        "messages": lane.backlog_messages,
        "bytes": lane.backlog_bytes,
        "oldest_age_seconds": age_ms.map(|ms| ms / 1000),
        "refusing": lane.refusing.map(|reason| reason.to_string()),
    })
}

fn of_uplink(status: &uplink::Status) -> Value {
    let held = status.held.iter().take(TOPICS_MAX);
    let held: Vec<_> = held
        .map(|held| json!({ "topic": beginning(&held.topic), "reason": beginning(&held.reason) }))
        .collect();
    json!({
        "connected": status.connected,
        "in_flight": status.in_flight,
        "acked": status.acked,
        "rebuilds": status.rebuilds,
        "drain_seconds": status.drain.map(|left| left.as_secs()),
        "held_topics": status.held.len(),
        "held": held,
        "cap_bytes_per_second": status.wishes.cap_bytes_per_second,
        "paused_topics": status.wishes.paused_topics.len(),
        "fenced": status.fenced.is_some(),
        "last_error": status.last_error.as_deref().map(beginning),
    })
}

fn beginning(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or_default()
}
