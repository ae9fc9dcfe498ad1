//! Which lane's turn it is, and how an entry becomes a record.
//!
//! Lanes take turns, the highest first; each may send its share of bytes per turn. So an alert waits for
//! one share of each other lane at most, and bulk moves even while telemetry never ends.

use std::time::Instant;

use penstock_proto::{Identity, Lane, Seq, Stream};

use super::failure::{Disposition, Failure};
use super::partition::partition;
use super::producer::{Outgoing, Producer, Refused};
use super::route::Traits;
use super::service::{LANES, Worker};
use super::tracker::{Admit, Target, TopicId};
use super::window::Flight;
use crate::outbox::{Record, Segment};

/// Bytes that each lane may send per turn.
const SHARES: [usize; LANES.len()] = [256 << 10, 256 << 10, 256 << 10, 64 << 10];
/// Bytes sent in one go, before reports are heard.
const ROUND_BYTES: usize = 1 << 20;
/// Room for the header of a record: its name and the longest identity.
const HEADER_BYTES_MAX: usize = 176;

/// Whose turn it is and what is left of its share.
#[derive(Debug)]
pub(super) struct Turn {
    lane: usize,
    left: usize,
}

/// What a round of feeding did.
#[derive(Debug)]
pub(super) enum Fed {
    Nothing,
    /// There may be more at once.
    Some,
    /// The window or the client library is full.
    Full,
    /// The producer is at its end.
    Fatal(Failure),
}

/// What became of a lane's turn.
enum Ended {
    /// It has nothing to send now, or its next entry must wait.
    Empty,
    /// Its share is used up.
    Share,
    Full,
    Fatal(Failure),
}

/// What became of an entry.
enum Offer {
    Sent(usize),
    Skipped,
    /// Its topic is not ready, or an old partition count is not drained.
    Wait,
    Full,
    Fatal(Failure),
}

impl Default for Turn {
    fn default() -> Self {
        Self { lane: 0, left: SHARES[0] }
    }
}

impl Turn {
    const fn next(&mut self) {
        self.lane = (self.lane + 1) % SHARES.len();
        self.left = SHARES[self.lane];
    }
}

impl Worker {
    /// Sends what the window and the lanes' shares allow.
    pub(super) fn feed(&mut self, producer: &Producer, now: Instant) -> Fed {
        let (mut sent, mut empty) = (0, 0);
        while sent < ROUND_BYTES && empty < LANES.len() {
            let before = self.turn.left;
            let ended = self.take_turn(producer, now);
            let bytes = before - self.turn.left;
            sent += bytes;
            match ended {
                Ended::Empty => empty = if bytes > 0 { 0 } else { empty + 1 },
                Ended::Share => empty = 0,
                Ended::Full => return Fed::Full,
                Ended::Fatal(failure) => return Fed::Fatal(failure),
            }
            self.turn.next();
        }
        if sent > 0 {
            Fed::Some
        } else {
            self.turn = Turn::default();
            Fed::Nothing
        }
    }

    fn take_turn(&mut self, producer: &Producer, now: Instant) -> Ended {
        let place = self.turn.lane;
        let (mut records, mut skipped) = (0, 0);
        let ended = loop {
            let Some((segment, done)) = self.lanes[place].current(now) else { break Ended::Empty };
            let mut dealt = done;
            let mut ended = None;
            for (seq, record) in segment.records().skip(done) {
                if self.turn.left == 0 {
                    ended = Some(Ended::Share);
                    break;
                }
                match self.offer(place, &segment, seq, &record, producer, now) {
                    Offer::Sent(bytes) => {
                        self.turn.left = self.turn.left.saturating_sub(bytes);
                        records += 1;
                    }
                    Offer::Skipped => skipped += 1,
                    Offer::Wait => ended = Some(Ended::Empty),
                    Offer::Full => ended = Some(Ended::Full),
                    Offer::Fatal(failure) => ended = Some(Ended::Fatal(failure)),
                }
                if ended.is_some() {
                    break;
                }
                dealt += 1;
            }
            self.lanes[place].advance(dealt);
            if let Some(ended) = ended {
                break ended;
            }
        };
        if records > 0 {
            self.metrics.sent.increment(records);
        }
        if skipped > 0 {
            self.metrics.skipped.increment(skipped);
        }
        ended
    }

    fn offer(
        &mut self,
        place: usize,
        segment: &Segment,
        seq: Seq,
        record: &Record<'_>,
        producer: &Producer,
        now: Instant,
    ) -> Offer {
        let lane = LANES[place];
        let topic = self.routes.topic(traits(lane, record));
        if !self.topics.is_ready(topic) {
            return Offer::Wait;
        }
        let bytes = record.device.len() + record.payload.len() + HEADER_BYTES_MAX;
        if !self.window.has_room(bytes) {
            return Offer::Full;
        }
        let tracker = &mut self.lanes[place].tracker;
        let Some(count) = tracker.partitions_at(topic, seq) else { return Offer::Wait };
        let target = Target { topic, partition: partition(record.device.as_bytes(), count) };
        let prev = match tracker.admit(target, seq) {
            Admit::Send { prev } => prev,
            Admit::AlreadyAcked => return Offer::Skipped,
            Admit::Drain => return Offer::Wait,
        };
        let flight = Flight { lane, target, seq, received_ms: record.received_ms, bytes };
        let refused = match self.window.enter(flight) {
            None => Refused::Full,
            Some(slot) => match self.send(producer, segment, flight, prev, record, slot) {
                Ok(()) => return Offer::Sent(bytes),
                Err(refused) => {
                    self.window.leave(slot);
                    refused
                }
            },
        };
        self.lanes[place].tracker.retract(target, seq, prev);
        match refused {
            Refused::Full => Offer::Full,
            Refused::Fatal(failure) => Offer::Fatal(failure),
            Refused::Failure(failure) => self.hold(topic, failure, now),
        }
    }

    fn send(
        &mut self,
        producer: &Producer,
        segment: &Segment,
        flight: Flight,
        prev: Seq,
        record: &Record<'_>,
        slot: usize,
    ) -> Result<(), Refused> {
        let identity = Identity {
            gateway: self.gateway.clone(),
            log: segment.log(),
            epoch: segment.epoch(),
            lane: flight.lane,
            seq: flight.seq,
            prev,
            stream: Stream::Live,
        };
        self.headers.fill(self.header_mode, &identity, record);
        producer.send(&Outgoing {
            topic: self.routes.name(flight.target.topic),
            partition: flight.target.partition,
            key: record.device.as_bytes(),
            payload: record.payload,
            headers: &self.headers,
            timestamp_ms: record.received_ms,
            slot,
        })
    }

    /// The library itself refused a record, so nothing of it was sent and nothing else suffers.
    fn hold(&mut self, topic: TopicId, failure: Failure, now: Instant) -> Offer {
        super::metrics::Metrics::error(Disposition::Hold);
        self.topics.fail(topic, &Failure { disposition: Disposition::Hold, ..failure }, now);
        Offer::Wait
    }
}

fn traits<'a>(lane: Lane, record: &Record<'a>) -> Traits<'a> {
    let properties = &record.properties;
    Traits { lane, stream: properties.stream, class: properties.class, tenant: properties.tenant }
}
