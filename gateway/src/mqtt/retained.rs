//! Retained messages: the last value of each topic that was published with the retain flag.
//!
//! All are in memory, with bounds in count and bytes, and in the store. A publish without a payload
//! takes its topic's message away ([MQTT-3.3.1-6]).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;

use super::codec::filter_matches;
use super::message::Message;

/// The retained messages by topic.
#[derive(Debug)]
pub(super) struct Retained {
    messages_max: usize,
    bytes_max: usize,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    topics: BTreeMap<Box<str>, Arc<Message>>,
    bytes: usize,
    /// The gateway's own: few, beside the bounds.
    own: BTreeMap<Box<str>, Arc<Message>>,
}

/// A bound on retained messages was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

impl Retained {
    pub(super) fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self { messages_max, bytes_max, state: RwLock::default() }
    }

    /// Keeps a message as its topic's.
    pub(super) fn set(&self, message: Arc<Message>) -> Result<(), TooMany> {
        let mut state = self.state.write();
        let known = state.topics.get(message.topic()).map(|known| known.bytes());
        let bytes = state.bytes - known.unwrap_or(0) + message.bytes();
        if bytes > self.bytes_max || (known.is_none() && state.topics.len() >= self.messages_max) {
            return Err(TooMany);
        }
        state.bytes = bytes;
        state.topics.insert(message.topic().into(), message);
        Ok(())
    }

    /// Keeps a message of the gateway itself, beside the bounds.
    pub(super) fn set_own(&self, message: Arc<Message>) {
        self.state.write().own.insert(message.topic().into(), message);
    }

    /// Takes the message of a topic away; says whether there was one.
    pub(super) fn clear(&self, topic: &str) -> bool {
        let mut state = self.state.write();
        let known = state.topics.remove(topic);
        state.bytes -= known.as_ref().map_or(0, |known| known.bytes());
        known.is_some()
    }

    /// The messages that a filter matches, in the order of their topics, without those whose lifetime
    /// is over.
    pub(super) fn matching(&self, filter: &str, now_ms: u64) -> Vec<Arc<Message>> {
        let literal = filter.find(['+', '#']).map_or(filter, |end| filter.get(..end).unwrap_or_default());
        // `a/#` matches `a` as well.
        let from = literal.strip_suffix('/').unwrap_or(literal);
        let state = self.state.read();
        let bounds = (Bound::Included(from), Bound::Unbounded);
        let (topics, own) = (state.topics.range::<str, _>(bounds), state.own.range::<str, _>(bounds));
        own.take_while(|(topic, _)| topic.starts_with(from))
            .chain(topics.take_while(|(topic, _)| topic.starts_with(from)))
            .filter(|(topic, message)| filter_matches(filter, topic) && !message.is_expired(now_ms))
            .map(|(_, message)| Arc::clone(message))
            .collect()
    }

    /// Takes out what is too old, and returns the topics.
    pub(super) fn expire(&self, now_ms: u64) -> Vec<Box<str>> {
        let topics: Vec<Box<str>> = {
            let state = self.state.read();
            let expired = state.topics.iter().filter(|(_, message)| message.is_expired(now_ms));
            expired.map(|(topic, _)| topic.clone()).collect()
        };
        topics.into_iter().filter(|topic| self.clear(topic)).collect()
    }

    /// How many there are, and their bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        let state = self.state.read();
        (state.topics.len(), state.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::Qos;
    use super::super::message::Parts;
    use super::*;

    fn message(topic: &str, payload: &[u8], expires_ms: Option<u64>) -> Arc<Message> {
        let parts = Parts {
            topic,
            publisher: "",
            qos: Qos::AtMostOnce,
            retain: true,
            received_ms: 0,
            expires_ms,
            properties: &[],
            payload,
        };
        Arc::new(Message::new(0, parts, &Arc::default()))
    }

    #[test]
    fn a_filter_finds_what_it_matches_and_nothing_that_is_over() {
        let retained = Retained::new(10, 10_000);
        for topic in ["a", "a/b", "a/b/c", "ab", "b", "$SYS/x"] {
            assert_eq!(retained.set(message(topic, b"1", None)), Ok(()));
        }
        assert_eq!(retained.set(message("a/old", b"1", Some(50))), Ok(()));
        let check = |filter: &str, expected: &[&str]| {
            let found = retained.matching(filter, 100);
            assert_eq!(found.iter().map(|one| one.topic()).collect::<Vec<_>>(), expected, "{filter}");
        };
        check("a/#", &["a", "a/b", "a/b/c"]);
        check("a/+", &["a/b"]);
        check("+", &["a", "ab", "b"]);
        check("#", &["a", "a/b", "a/b/c", "ab", "b"]);
        check("$SYS/#", &["$SYS/x"]);
        check("a/b", &["a/b"]);
        check("c", &[]);
        retained.set_own(message("$SYS/own", b"1", None));
        check("$SYS/#", &["$SYS/own", "$SYS/x"]);
        assert_eq!(retained.expire(100), ["a/old".into()]);
        assert_eq!(retained.size().0, 6);
    }

    #[test]
    fn both_bounds_hold_and_replacing_needs_no_more_room() {
        let one = message("a", b"1", None).bytes();
        let retained = Retained::new(2, 2 * one + 1);
        assert_eq!(retained.set(message("a", b"1", None)), Ok(()));
        assert_eq!(retained.set(message("b", b"1", None)), Ok(()));
        assert_eq!(retained.set(message("c", b"1", None)), Err(TooMany));
        assert_eq!(retained.set(message("b", b"22", None)), Ok(()));
        assert_eq!(retained.set(message("b", b"333", None)), Err(TooMany), "a byte above the bound");
        assert_eq!(retained.size(), (2, 2 * one + 1));
        assert!(retained.clear("b") && !retained.clear("b"));
        assert_eq!(retained.set(message("c", b"1", None)), Ok(()));
    }
}
