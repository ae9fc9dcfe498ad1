//! Events that are sent together, and the search for the one that is refused.

use std::collections::VecDeque;

use penstock_proto::Seq;

/// Events of one reading, in order, on their way out.
#[derive(Debug)]
pub(super) struct Batch {
    events: VecDeque<Event>,
    /// How many go next, and after them; the last of the stack is the front of the events. Never empty while there are
    /// events, and adds up to them.
    parts: Vec<usize>,
    /// Where its reading goes on.
    end: Seq,
    /// Entries of the other kind that stand behind the last event.
    passed: u64,
    /// Bytes of all events.
    bytes: usize,
}

/// An event on its way out.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) seq: Seq,
    /// Its JSON.
    pub(super) json: Vec<u8>,
    /// When the gateway took it in, in Unix milliseconds.
    pub(super) received_ms: u64,
    /// Entries of the other kind that stand between the event before it and itself.
    pub(super) passed: u64,
}

/// What was dealt with at the front of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settled {
    /// Where the reading stands now.
    pub(super) position: Seq,
    /// How many events were dealt with.
    pub(super) events: u64,
    /// How many entries of the other kind were passed.
    pub(super) passed: u64,
}

// === impl Batch ===

impl Batch {
    /// An empty one that begins at `start`.
    pub(super) const fn new(start: Seq) -> Self {
        Self { events: VecDeque::new(), parts: Vec::new(), end: start, passed: 0, bytes: 0 }
    }

    /// Whether an event of `bytes` fits beside the others. The first always does.
    pub(super) fn has_room(&self, bytes: usize, bounds: super::config::BatchBounds) -> bool {
        // The brackets, and a comma for each but the first.
        let total = 2 + self.bytes + bytes + self.events.len();
        self.events.is_empty() || (self.events.len() < bounds.events && total <= bounds.bytes)
    }

    /// Takes an event in behind the others.
    pub(super) fn push(&mut self, seq: Seq, json: Vec<u8>, received_ms: u64) {
        self.bytes += json.len();
        self.end = seq.next();
        let passed = std::mem::take(&mut self.passed);
        self.events.push_back(Event { seq, json, received_ms, passed });
        self.parts.clear();
        self.parts.push(self.events.len());
    }

    /// An entry of the other kind is passed over.
    pub(super) const fn pass(&mut self, seq: Seq, counts: bool) {
        self.end = seq.next();
        self.passed += counts as u64;
    }

    /// Its reading goes on there at least: entries are gone.
    pub(super) fn skip_to(&mut self, seq: Seq) {
        self.end = self.end.max(seq);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// How many events go with the next request; 0 if none is left.
    pub(super) fn size(&self) -> usize {
        self.parts.last().copied().unwrap_or(0)
    }

    /// The first event.
    pub(super) fn front(&self) -> Option<&Event> {
        self.events.front()
    }

    /// The body of the next request: a JSON list.
    pub(super) fn body(&self) -> Vec<u8> {
        let events = || self.events.iter().take(self.size());
        let bytes: usize = events().map(|event| event.json.len() + 1).sum();
        let mut body = Vec::with_capacity(bytes + 1);
        body.push(b'[');
        for (place, event) in events().enumerate() {
            if place > 0 {
                body.push(b',');
            }
            body.extend_from_slice(&event.json);
        }
        body.push(b']');
        body
    }

    /// The next request is to have half as many events; one stays one.
    pub(super) fn split(&mut self) {
        let size = self.size();
        if size > 1 {
            self.parts.pop();
            self.parts.extend([size - size / 2, size / 2]);
        }
    }

    /// What will be settled when the events of the next request are dealt with.
    pub(super) fn next_settled(&self) -> Settled {
        let size = self.size();
        let passed: u64 = self.events.iter().take(size).map(|event| event.passed).sum();
        let (position, behind) = match self.events.get(size) {
            // Up to the event: what stands before it is passed with it.
            Some(next) => (self.events.get(size.wrapping_sub(1)).map_or(next.seq, |last| last.seq.next()), 0),
            None => (self.end, self.passed),
        };
        Settled { position, events: size as u64, passed: passed + behind }
    }

    /// The events of the next request are dealt with.
    pub(super) fn settle(&mut self) {
        let size = self.parts.pop().unwrap_or(0);
        for event in self.events.drain(..size.min(self.events.len())) {
            self.bytes -= event.json.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::config::BatchBounds;
    use super::*;

    fn batch(count: u64) -> Batch {
        let mut batch = Batch::new(Seq(10));
        for seq in 10..10 + count {
            batch.push(Seq(seq), seq.to_string().into_bytes(), 1);
        }
        batch
    }

    #[test]
    fn the_body_is_a_list() {
        assert_eq!(batch(3).body(), b"[10,11,12]");
        assert_eq!(batch(1).body(), b"[10]");
    }

    #[test]
    fn a_batch_has_bounds_by_count_and_by_bytes() {
        let bounds = BatchBounds { events: 3, bytes: 14 };
        assert!(batch(0).has_room(1_000_000, bounds), "one always goes");
        assert!(batch(2).has_room(6, bounds) && !batch(2).has_room(7, bounds));
        assert!(!batch(3).has_room(0, bounds));
        let mut filled = batch(2);
        filled.push(Seq(12), vec![b'1'; 6], 1);
        assert_eq!(filled.body().len(), bounds.bytes);
    }

    #[test]
    fn what_is_passed_is_settled_with_the_event_behind_it() {
        let mut batch = Batch::new(Seq(1));
        batch.pass(Seq(1), true);
        batch.push(Seq(2), b"2".to_vec(), 1);
        batch.pass(Seq(3), true);
        batch.pass(Seq(4), false);
        batch.push(Seq(5), b"5".to_vec(), 1);
        batch.pass(Seq(6), true);
        assert_eq!(batch.next_settled(), Settled { position: Seq(7), events: 2, passed: 3 });
        batch.split();
        assert_eq!(batch.next_settled(), Settled { position: Seq(3), events: 1, passed: 1 });
        batch.settle();
        assert_eq!(batch.next_settled(), Settled { position: Seq(7), events: 1, passed: 2 });
        batch.settle();
        assert!(batch.is_empty() && batch.size() == 0);
    }

    proptest! {
        /// The service refuses a batch that holds a bad event, and nothing else.
        #[test]
        fn halving_finds_every_bad_event_and_sends_the_others_once_in_order(
            count in 1_u64..200,
            bad in prop::collection::btree_set(0_u64..200, 0..6),
        ) {
            let (mut batch, mut sent, mut buried, mut requests) = (batch(count), Vec::new(), Vec::new(), 0);
            let mut position = Seq(10);
            while !batch.is_empty() {
                requests += 1;
                let body: Vec<u64> = serde_json::from_slice(&batch.body()).unwrap();
                prop_assert_eq!(body.len(), batch.size());
                prop_assert_eq!(body[0], position.0);
                let refused = body.iter().any(|seq| bad.contains(&(seq - 10)));
                if refused && body.len() > 1 {
                    batch.split();
                    continue;
                }
                if refused { buried.extend(body) } else { sent.extend(body) }
                position = batch.next_settled().position;
                batch.settle();
            }
            prop_assert_eq!(position, Seq(10 + count));
            let is_bad = |seq: &u64| bad.contains(&(seq - 10));
            prop_assert_eq!(buried, (10..10 + count).filter(is_bad).collect::<Vec<_>>());
            prop_assert_eq!(sent, (10..10 + count).filter(|seq| !is_bad(seq)).collect::<Vec<_>>());
            prop_assert!(requests <= 1 + 6 * 2 * 8, "{}", requests);
        }
    }
}
