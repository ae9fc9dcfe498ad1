//! What the status says of rules and alerts.

use serde::Serialize;

use super::status::age_seconds;
use crate::alerts;

#[derive(Debug, Clone, Serialize)]
pub(super) struct Alerts {
    /// Rules in force.
    rules: usize,
    /// What is wrong with those that are not, one line each.
    rule_errors: Vec<String>,
    /// Series that are watched.
    series: usize,
    /// Alerts that are open.
    open: usize,
    /// Telemetry messages not looked at yet.
    lag_messages: u64,
    /// Telemetry messages that nobody looked at, since the start.
    skipped_messages: u64,
    /// Where alerts are sent.
    sinks: Vec<Sink>,
    /// Where commands of rules are sent.
    service_bus: Vec<Post>,
    /// What rules have the gateway publish.
    reactions: Option<Reactions>,
}

#[derive(Debug, Clone, Serialize)]
struct Reactions {
    /// Since the start.
    published: u64,
    backlog_messages: u64,
}

#[derive(Debug, Clone, Serialize)]
struct Sink {
    name: String,
    host: String,
    connected: bool,
    /// Why nothing but probes is sent.
    held: Option<&'static str>,
    /// For how long nothing was confirmed although something is to be sent.
    held_seconds: Option<f64>,
    last_error: Option<String>,
    sent: u64,
    /// Events that Event Grid refused for good.
    quarantined: u64,
    backlog_messages: u64,
}

#[derive(Debug, Clone, Serialize)]
struct Post {
    name: String,
    host: String,
    entity: String,
    connected: bool,
    /// Why it is tried once per interval only.
    held: Option<&'static str>,
    /// For how long nothing was accepted although something is to be sent.
    held_seconds: Option<f64>,
    last_error: Option<String>,
    sent: u64,
    /// Commands that could not be sent while somebody wanted them.
    expired: u64,
    /// Commands that Service Bus refused for good.
    quarantined: u64,
    /// Commands in hand.
    pending: u64,
    /// Entries of the lane, of any kind, that are not dealt with.
    backlog_messages: u64,
}

impl Alerts {
    pub(super) fn of(handle: &alerts::Handle) -> Self {
        let alerts::Status { rules, rule_errors, series, open, lag_messages, skipped, .. } = handle.status();
        let sinks = handle.sinks().into_iter().map(|sink| Sink {
            name: sink.name,
            host: sink.host,
            connected: sink.connected,
            held: sink.held.map(alerts::Trouble::name),
            held_seconds: sink.held_since_ms.map(age_seconds),
            last_error: sink.last_error,
            sent: sink.sent,
            quarantined: sink.quarantined,
            backlog_messages: sink.backlog,
        });
        let sinks = sinks.collect();
        let service_bus = handle.posts().into_iter().map(|post| Post {
            name: post.name,
            host: post.host,
            entity: post.entity,
            connected: post.connected,
            held: post.held.map(alerts::Trouble::name),
            held_seconds: post.held_since_ms.map(age_seconds),
            last_error: post.last_error,
            sent: post.sent,
            expired: post.expired,
            quarantined: post.quarantined,
            pending: post.pending,
            backlog_messages: post.backlog,
        });
        let service_bus = service_bus.collect();
        let reactions = handle.reactions().map(|reactions| Reactions {
            published: reactions.published,
            backlog_messages: reactions.backlog,
        });
        Self {
            rules,
            rule_errors,
            series,
            open,
            lag_messages,
            skipped_messages: skipped,
            sinks,
            service_bus,
            reactions,
        }
    }
}
