//! Wills: what is published for a client whose connection ends without a goodbye.

use super::codec::{PublishProperties, Qos, Will as Told};
use super::durable::MessageRecord;

/// A will, kept until its connection ends and its delay is over.
#[derive(Debug)]
pub(super) struct Will {
    qos: Qos,
    retain: bool,
    topic: Box<str>,
    payload: Box<[u8]>,
    /// The properties that subscribers get as they came, encoded.
    properties: Box<[u8]>,
    expiry_seconds: Option<u32>,
    delay_seconds: u32,
}

impl Will {
    pub(super) fn new(told: &Told<'_>) -> Self {
        let mut properties = Vec::new();
        told.properties.forward(&mut properties);
        Self {
            qos: told.qos,
            retain: told.retain,
            topic: told.topic.into(),
            payload: told.payload.into(),
            properties: properties.into(),
            expiry_seconds: told.properties.expiry_seconds,
            delay_seconds: told.delay_seconds,
        }
    }

    /// One that the store has; its delay runs already.
    pub(super) fn restored(record: &MessageRecord<'_>) -> Self {
        // The record says when it would expire had it been published at once.
        let expiry = record.expires_at_ms.map(|at| at.saturating_sub(record.received_ms) / 1000);
        Self {
            qos: Qos::from_number(record.qos),
            retain: record.retain,
            topic: record.topic.into(),
            payload: record.payload.into(),
            properties: record.properties.into(),
            expiry_seconds: expiry.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX)),
            delay_seconds: 0,
        }
    }

    pub(super) const fn qos(&self) -> Qos {
        self.qos
    }

    pub(super) const fn retain(&self) -> bool {
        self.retain
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    pub(super) const fn delay_seconds(&self) -> u32 {
        self.delay_seconds
    }

    /// Its properties, those of its publish.
    pub(super) fn properties(&self) -> PublishProperties<'_> {
        let mut properties = PublishProperties::of_will(&self.properties);
        properties.expiry_seconds = self.expiry_seconds;
        properties
    }

    /// Bytes of the packet that it would be, about.
    pub(super) fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.properties.len()
    }

    /// As the store keeps it, for a client whose connection ended.
    pub(super) fn record<'a>(&'a self, client: &'a str) -> MessageRecord<'a> {
        MessageRecord {
            topic: &self.topic,
            qos: self.qos.number(),
            retain: self.retain,
            received_ms: 0,
            expires_at_ms: self.expiry_seconds.map(|seconds| u64::from(seconds) * 1000),
            properties: &self.properties,
            payload: &self.payload,
            publisher: client,
        }
    }
}
