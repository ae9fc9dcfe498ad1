//! `$SYS`: what the gateway says of itself over MQTT, under the names that brokers have in common.
//!
//! Each value is a retained message in memory; subscribers get a new one every `sys_interval`. Nobody
//! else may publish there.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::codec::{PublishProperties, Qos};
use super::protocol::Batch;
use super::routing::{Routed, keep_in_memory, route};
use super::shared::Shared;
use crate::supervise::clock;

const VERSION: &str = concat!("penstock version ", env!("CARGO_PKG_VERSION"));

/// Publishes every value once.
pub(super) fn publish(shared: &Shared, since: Instant) {
    let uptime = clock::now().saturating_duration_since(since).as_secs();
    let total = |total: &std::sync::atomic::AtomicU64| total.load(Ordering::Relaxed).to_string();
    let (connected, sessions) = (shared.registry.connected(), shared.lasting());
    let (retained, retained_bytes) = shared.retained.size();
    let totals = &shared.metrics.totals;
    let values: [(&str, String); 12] = [
        ("$SYS/broker/version", VERSION.to_owned()),
        ("$SYS/broker/uptime", format!("{uptime} seconds")),
        ("$SYS/broker/clients/connected", connected.to_string()),
        ("$SYS/broker/sessions/lasting", sessions.to_string()),
        ("$SYS/broker/publish/messages/received", total(&totals.received)),
        ("$SYS/broker/publish/messages/sent", total(&totals.delivered)),
        ("$SYS/broker/publish/messages/dropped", total(&totals.dropped)),
        ("$SYS/broker/bytes/received", total(&totals.received_bytes)),
        ("$SYS/broker/bytes/sent", total(&totals.sent_bytes)),
        ("$SYS/broker/retained messages/count", retained.to_string()),
        ("$SYS/broker/retained messages/bytes", retained_bytes.to_string()),
        ("$SYS/broker/store/messages/bytes", shared.gauge.bytes().to_string()),
    ];
    let mut batch = Batch::default();
    for (topic, value) in values {
        let publish = Routed {
            topic,
            publisher: "",
            qos: Qos::AtMostOnce,
            retain: true,
            properties: &PublishProperties::default(),
            payload: value.as_bytes(),
        };
        keep_in_memory(shared, &mut batch, &publish);
        route(shared, &mut batch, &publish);
    }
    shared.metrics.add(&mut batch.tally);
}
