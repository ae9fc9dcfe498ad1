//! A publish on its way to subscribers, held once however many there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use super::codec::Qos;

/// A publish that is to be delivered.
///
/// Topic, publisher, properties and payload lie in one allocation.
#[derive(Debug)]
pub(super) struct Message {
    /// Names it in the store, among all messages that ever waited there.
    number: u64,
    bytes: Box<[u8]>,
    topic_end: usize,
    publisher_end: usize,
    properties_end: usize,
    qos: Qos,
    retain: bool,
    /// When it came, in Unix milliseconds.
    received_ms: u64,
    /// When it is not worth delivering any more, in Unix milliseconds.
    expires_ms: Option<u64>,
    /// Places of lasting sessions that hold it in the store, and whoever is about to add some.
    stored: AtomicU32,
    held: Held,
}

/// What a message consists of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) topic: &'a str,
    /// The client id of who published it; empty for the gateway itself.
    pub(super) publisher: &'a str,
    pub(super) qos: Qos,
    pub(super) retain: bool,
    pub(super) received_ms: u64,
    /// When it is not worth delivering any more, in Unix milliseconds.
    pub(super) expires_ms: Option<u64>,
    /// The properties that subscribers get as they came, encoded.
    pub(super) properties: &'a [u8],
    pub(super) payload: &'a [u8],
}

/// Counts the bytes of messages that wait for anybody.
#[derive(Debug, Default)]
pub(super) struct Gauge {
    bytes: AtomicUsize,
}

/// Takes the message's bytes out of the gauge at its end.
#[derive(Debug)]
struct Held {
    gauge: Arc<Gauge>,
    bytes: usize,
    counted: AtomicBool,
}

// === impl Message ===

impl Message {
    /// Bytes that a message takes beside its parts.
    const OVERHEAD: usize = 128;

    pub(super) fn new(number: u64, parts: Parts<'_>, gauge: &Arc<Gauge>) -> Self {
        let Parts { topic, publisher, properties, payload, .. } = parts;
        let texts = [topic.as_bytes(), publisher.as_bytes(), properties, payload];
        let bytes: Box<[u8]> = texts.concat().into();
        let held = Held {
            gauge: Arc::clone(gauge),
            bytes: bytes.len() + Self::OVERHEAD,
            counted: AtomicBool::new(false),
        };
        Self {
            number,
            topic_end: topic.len(),
            publisher_end: topic.len() + publisher.len(),
            properties_end: bytes.len() - payload.len(),
            bytes,
            qos: parts.qos,
            retain: parts.retain,
            received_ms: parts.received_ms,
            expires_ms: parts.expires_ms,
            stored: AtomicU32::new(0),
            held,
        }
    }

    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn topic(&self) -> &str {
        self.text(0, self.topic_end)
    }

    pub(super) fn publisher(&self) -> &str {
        self.text(self.topic_end, self.publisher_end)
    }

    pub(super) fn properties(&self) -> &[u8] {
        self.bytes.get(self.publisher_end..self.properties_end).unwrap_or_default()
    }

    pub(super) fn payload(&self) -> &[u8] {
        self.bytes.get(self.properties_end..).unwrap_or_default()
    }

    pub(super) fn parts(&self) -> Parts<'_> {
        Parts {
            topic: self.topic(),
            publisher: self.publisher(),
            qos: self.qos,
            retain: self.retain,
            received_ms: self.received_ms,
            expires_ms: self.expires_ms,
            properties: self.properties(),
            payload: self.payload(),
        }
    }

    pub(super) const fn qos(&self) -> Qos {
        self.qos
    }

    /// Bytes in memory, about.
    pub(super) const fn bytes(&self) -> usize {
        self.held.bytes
    }

    /// Whether it is too old to be delivered ([MQTT-3.3.2-5]).
    pub(super) fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms.is_some_and(|expires| expires <= now_ms)
    }

    /// The rest of its lifetime, in seconds, as a delivery says it ([MQTT-3.3.2-6]).
    pub(super) fn expiry_seconds(&self, now_ms: u64) -> Option<u32> {
        let left = self.expires_ms?.saturating_sub(now_ms).div_ceil(1000);
        Some(u32::try_from(left).unwrap_or(u32::MAX))
    }

    /// It waits for somebody: its bytes count.
    pub(super) fn hold(&self) {
        if !self.held.counted.swap(true, Ordering::Relaxed) {
            self.held.gauge.bytes.fetch_add(self.held.bytes, Ordering::Relaxed);
        }
    }

    /// One more place holds it in the store; returns how many do.
    pub(super) fn store(&self) -> u32 {
        self.stored.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Whether any place holds it in the store.
    pub(super) fn is_stored(&self) -> bool {
        self.stored.load(Ordering::Acquire) > 0
    }

    /// One place less holds it in the store; returns whether none does any more.
    pub(super) fn release(&self) -> bool {
        self.stored.fetch_sub(1, Ordering::AcqRel) == 1
    }

    fn text(&self, from: usize, to: usize) -> &str {
        let bytes = self.bytes.get(from..to).unwrap_or_default();
        // It was text when it came in.
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

// === impl Gauge ===

impl Gauge {
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

// === impl Held ===

impl Drop for Held {
    fn drop(&mut self) {
        if *self.counted.get_mut() {
            self.gauge.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: Parts<'_> = Parts {
        topic: "a/b",
        publisher: "me",
        qos: Qos::AtLeastOnce,
        retain: true,
        received_ms: 1_000,
        expires_ms: Some(3_500),
        properties: b"\x01\x01",
        payload: b"21.5",
    };

    #[test]
    fn its_parts_come_out_as_they_went_in() {
        let message = Message::new(7, PARTS, &Arc::default());
        let parts = message.parts();
        assert_eq!((parts.topic, parts.publisher), ("a/b", "me"));
        assert_eq!((parts.properties, parts.payload), (&b"\x01\x01"[..], &b"21.5"[..]));
        assert_eq!((parts.qos, parts.retain, message.number()), (Qos::AtLeastOnce, true, 7));
    }

    #[test]
    fn its_lifetime_runs_out() {
        let message = Message::new(7, PARTS, &Arc::default());
        let seconds = [1_000, 2_500, 2_501, 3_499].map(|now| message.expiry_seconds(now));
        assert_eq!(seconds, [Some(3), Some(1), Some(1), Some(1)]);
        assert!(!message.is_expired(3_499) && message.is_expired(3_500));
        let eternal = Message::new(7, Parts { expires_ms: None, ..PARTS }, &Arc::default());
        assert!(!eternal.is_expired(u64::MAX) && eternal.expiry_seconds(5).is_none());
    }

    #[test]
    fn only_what_waits_is_counted_and_only_once() {
        let gauge = Arc::new(Gauge::default());
        let one = Message::new(1, PARTS, &gauge);
        let two = Message::new(2, PARTS, &gauge);
        assert_eq!(gauge.bytes(), 0);
        one.hold();
        one.hold();
        assert_eq!(gauge.bytes(), one.bytes());
        two.hold();
        drop(one);
        assert_eq!(gauge.bytes(), two.bytes());
        drop(two);
        assert_eq!(gauge.bytes(), 0);
    }
}
