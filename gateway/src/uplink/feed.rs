//! Which lane's turn it is, and how an entry becomes a record or part of one.
//!
//! Lanes take turns, the highest first; each may send its share of bytes per turn. So an alert waits for
//! one share of each other lane at most, and bulk moves even while telemetry never ends. Within a lane live
//! entries and backlog share as configured.

use std::time::Instant;

use penstock_proto::{Identity, Lane, Seq, Stream};

use super::caution::{Allowed, Refusal};
use super::config::{CatchUp, Format};
use super::failure::{Disposition, Failure};
use super::lane::Waited;
use super::metrics::Metrics;
use super::pace::Kind;
use super::packer::{Key, Packer};
use super::partition::partition;
use super::producer::{Outgoing, Producer, Refused};
use super::route::Traits;
use super::service::{LANES, Worker};
use super::topics::Readiness;
use super::tracker::{Admit, ChainId, Target};
use super::window::Flight;
use super::wishes::PACED;
use crate::dead_letter;
use crate::outbox::{Encoded, Record, Segment};
use crate::supervise::clock;

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
    /// The window or the client library is full, or more would be faster than allowed.
    Full,
    /// The producer is at its end.
    Fatal(Failure),
}

/// What became of a lane's turn, or of a part of it.
enum Ended {
    /// It has nothing to send now, or its next entry must wait.
    Empty,
    /// A segment is dealt with.
    Segment,
    /// Its share is used up.
    Share,
    Full,
    Fatal(Failure),
}

/// What became of an entry.
enum Offer {
    Sent(usize),
    Skipped,
    /// Its topic is not ready, or something must happen before.
    Wait,
    Full,
    Fatal(Failure),
}

/// What became of a pack.
enum PackSent {
    Yes,
    /// It was refused: its entries are offered again, from the first one on.
    TakenApart,
    No(Fed),
}

/// Where an entry stands.
struct At<'a> {
    place: usize,
    stream: Stream,
    segment: &'a Segment,
    kind: Kind,
    now: Instant,
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
        if self.fenced.is_some() {
            return Fed::Nothing;
        }
        if let Some(ended) = self.send_due_packs(producer, now, false) {
            return ended;
        }
        let (mut sent, mut empty) = (0, 0);
        while sent < ROUND_BYTES && empty < LANES.len() {
            let before = self.turn.left;
            let ended = self.take_turn(producer, now);
            let bytes = before - self.turn.left;
            sent += bytes;
            match ended {
                Ended::Empty | Ended::Segment => empty = if bytes > 0 { 0 } else { empty + 1 },
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
        self.lanes[place].answer_drop_request();
        match self.lanes[place].wait() {
            Waited::Pending => return Ended::Empty,
            Waited::Durable(Some(_)) => self.metrics.dead_lettered.increment(1),
            Waited::Nothing | Waited::Durable(None) => {}
        }
        loop {
            let mut ended = Ended::Empty;
            for stream in self.streams(place, now) {
                ended = self.send_from(place, stream, producer, now);
                if !matches!(ended, Ended::Empty) {
                    break;
                }
            }
            if !matches!(ended, Ended::Segment) {
                return ended;
            }
        }
    }

    /// The streams of a lane, the one whose turn it is first.
    fn streams(&mut self, place: usize, now: Instant) -> impl Iterator<Item = Stream> + use<> {
        let lane = &mut self.lanes[place];
        let mut order = [Some(Stream::Live), None];
        if lane.tracker.position(Stream::Backlog).is_some() {
            let live = lane.current(Stream::Live, now).is_some();
            let backlog = lane.current(Stream::Backlog, now).is_some();
            order = match lane.share.turn(live, backlog) {
                Some(Kind::Backlog) => [Some(Stream::Backlog), Some(Stream::Live)],
                _ => [Some(Stream::Live), Some(Stream::Backlog)],
            };
        }
        order.into_iter().flatten()
    }

    /// Sends from the segment that a stream of a lane is at.
    fn send_from(&mut self, place: usize, stream: Stream, producer: &Producer, now: Instant) -> Ended {
        let Some((segment, from)) = self.lanes[place].current(stream, now) else { return Ended::Empty };
        let age_ms = clock::unix_ms().saturating_sub(segment.committed_ms());
        let is_old = u128::from(age_ms) > self.live_first_after.as_millis();
        if is_old && stream == Stream::Live && self.split(place) {
            return Ended::Empty;
        }
        let kind = if is_old || stream == Stream::Backlog { Kind::Backlog } else { Kind::Live };
        let at = At { place, stream, segment: &segment, kind, now };
        let Some((_, run_end)) = self.lanes[place].tracker.run(stream, from) else { return Ended::Empty };
        let (mut records, mut skipped, mut bytes) = (0, 0, 0);
        let mut ended = None;
        for (seq, record) in segment.records_from(from) {
            if seq >= run_end {
                break;
            }
            // A pack that was taken apart sets the reading back.
            if seq > segment.first().max(from) && self.lanes[place].tracker.position(stream) < Some(seq) {
                ended = Some(Ended::Empty);
                break;
            }
            match self.offer(&at, seq, &record, producer) {
                Offer::Sent(size) => {
                    bytes += size;
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
            if bytes >= self.turn.left {
                ended = Some(Ended::Share);
                break;
            }
        }
        self.turn.left = self.turn.left.saturating_sub(bytes);
        let sender = if stream == Stream::Live { Kind::Live } else { Kind::Backlog };
        self.lanes[place].share.sent(sender, bytes);
        self.metrics.sent.increment(records);
        if skipped > 0 {
            self.metrics.skipped.increment(skipped);
        }
        ended.unwrap_or_else(|| {
            self.lanes[place].finish_segment(stream);
            Ended::Segment
        })
    }

    /// Makes backlog of what has waited too long, if that is configured. Returns whether it did.
    fn split(&mut self, place: usize) -> bool {
        if !matches!(self.catch_up, CatchUp::LiveFirst { .. }) || !self.packer_is_empty() {
            return false;
        }
        let head = self.outbox.status().lanes[place].next;
        let lane = &mut self.lanes[place];
        if !lane.tracker.split(head) {
            return false;
        }
        tracing::info!(lane = %lane.lane, until = head.0, "what waited becomes backlog, new entries go first");
        lane.commit_durably(&Encoded::default(), None);
        true
    }

    fn offer(&mut self, at: &At<'_>, seq: Seq, record: &Record<'_>, producer: &Producer) -> Offer {
        let place = at.place;
        let topic = self.routes.topic(traits(LANES[place], record));
        let lane = &mut self.lanes[place];
        match self.topics.readiness(topic) {
            Readiness::Ready => {}
            Readiness::Held => {
                lane.tracker.pass(topic, at.stream, seq);
                return Offer::Skipped;
            }
            Readiness::Unknown => return Offer::Wait,
        }
        if is_paced(LANES[place]) && self.paused.get(usize::from(topic.0)) == Some(&true) {
            lane.tracker.pass(topic, at.stream, seq);
            return Offer::Skipped;
        }
        let Some(count) = lane.tracker.partitions_at(topic, seq) else { return Offer::Wait };
        let target = Target { topic, partition: partition(record.device.as_bytes(), count) };
        let chain = ChainId { target, stream: at.stream };
        if !lane.tracker.is_new(chain, seq) {
            lane.tracker.admit(chain, seq);
            return Offer::Skipped;
        }
        if !lane.tracker.is_open(topic) {
            self.open_topic(place, topic, at.now);
            return Offer::Wait;
        }
        let key = (place, chain);
        let mut group = u32::MAX;
        if !self.caution.is_empty() {
            if self.caution.condemned(key, seq).is_some() {
                let alone = self.lanes[place].tracker.in_flight(chain) == 0;
                return if alone { self.bury(at, key, seq, record) } else { Offer::Wait };
            }
            let in_flight = self.lanes.iter().map(|lane| lane.tracker.in_flight_to(target)).sum();
            group = match self.caution.allowed(target, in_flight) {
                Allowed::All => u32::MAX,
                Allowed::Group(count) => count,
                Allowed::Nothing => return Offer::Wait,
            };
        }
        let bytes = record.device.len() + record.payload.len() + HEADER_BYTES_MAX;
        let packing = self.packer.as_ref().map_or(0, Packer::bytes);
        if !self.window.has_room(bytes, packing) {
            return self.make_room(producer, at.now);
        }
        let offer = match self.format {
            Format::PerMessage => self.offer_alone(at, key, (seq, record), bytes, producer),
            Format::Packed(_) => self.offer_packed(at, key, (seq, record), group, producer),
        };
        if matches!(offer, Offer::Sent(_)) {
            self.lanes[place].sent(topic, at.now);
            if !self.caution.is_empty() {
                self.caution.went(target);
            }
        }
        offer
    }

    /// Sends an entry as a record of its own.
    fn offer_alone(
        &mut self,
        at: &At<'_>,
        key: Key,
        (seq, record): (Seq, &Record<'_>),
        bytes: usize,
        producer: &Producer,
    ) -> Offer {
        let (place, chain) = key;
        let prev = match self.lanes[place].tracker.admit(chain, seq) {
            Admit::Send { prev } => prev,
            Admit::Skip => return Offer::Skipped,
            Admit::Drain => return Offer::Wait,
        };
        let flight = Flight { place, chain, last: seq, count: 1, received_ms: record.received_ms, bytes };
        let capped = is_paced(LANES[place]);
        if capped && !self.pace.admit_capped(at.now, bytes) {
            self.lanes[place].tracker.retract(chain, seq, prev);
            return Offer::Wait;
        }
        if !self.pace.admit(at.now, at.kind, 1, bytes) {
            // Others may be allowed what this one is not.
            if capped {
                self.pace.settle_capped(bytes, 0);
            }
            self.lanes[place].tracker.retract(chain, seq, prev);
            return Offer::Wait;
        }
        let refused = if let Some(slot) = self.window.enter(flight) {
            self.identity.log = at.segment.log();
            self.identity.epoch = at.segment.epoch();
            self.identity.lane = at.segment.lane();
            (self.identity.seq, self.identity.prev, self.identity.stream) = (seq, prev, chain.stream);
            self.headers.fill(self.header_mode, &self.identity, record);
            let sent = producer.send(&Outgoing {
                topic: self.routes.name(chain.target.topic),
                partition: chain.target.partition,
                key: record.device.as_bytes(),
                payload: record.payload,
                headers: &self.headers,
                timestamp_ms: record.received_ms,
                slot,
            });
            match sent {
                Ok(()) => return Offer::Sent(bytes),
                Err(refused) => {
                    self.window.leave(slot);
                    refused
                }
            }
        } else {
            Refused::Full
        };
        if capped {
            self.pace.settle_capped(bytes, 0);
        }
        self.lanes[place].tracker.retract(chain, seq, prev);
        self.refused(refused, key, (1, seq), at.now)
    }

    /// What follows when the client library did not take a record; nothing of it was sent and nothing else
    /// suffers. The record has `count` entries of which `last` is the last.
    fn refused(&mut self, refused: Refused, key: Key, (count, last): (u32, Seq), now: Instant) -> Offer {
        match refused {
            Refused::Full => Offer::Full,
            Refused::Fatal(failure) => Offer::Fatal(failure),
            Refused::Failure(failure) if failure.disposition == Disposition::Record => {
                Metrics::error(Disposition::Record);
                let (target, reason) = (key.1.target, failure.reason);
                self.caution.refused(&Refusal { target, chains: vec![(key, count, last)], reason });
                Offer::Wait
            }
            Refused::Failure(failure) => {
                Metrics::error(Disposition::Hold);
                let failure = Failure { disposition: Disposition::Hold, ..failure };
                self.topics.fail(key.1.target.topic, &failure, now);
                Offer::Wait
            }
        }
    }

    // --- packs ---

    /// Adds an entry to the pack of its chain.
    fn offer_packed(
        &mut self,
        at: &At<'_>,
        key: Key,
        (seq, record): (Seq, &Record<'_>),
        group: u32,
        producer: &Producer,
    ) -> Offer {
        let (place, chain) = key;
        let bytes = record.device.len() + record.topic.len() + record.payload.len();
        let Some(packer) = &mut self.packer else { return Offer::Wait };
        if let Some(open) = packer.get(&key) {
            let tracker = &mut self.lanes[place].tracker;
            if packer.fits(open, at.segment, record, group.saturating_add(open.pack.count()))
                && !tracker.is_draining(chain, seq)
            {
                if is_paced(LANES[place]) && !self.pace.admit_capped(at.now, Packer::cost(record)) {
                    return Offer::Wait;
                }
                tracker.extend(chain, seq);
                if !packer.push(key, seq, record) {
                    return Offer::Sent(bytes);
                }
                return match self.send_pack(key, producer, at.now) {
                    PackSent::TakenApart => Offer::Wait,
                    PackSent::No(Fed::Fatal(failure)) => Offer::Fatal(failure),
                    // If it did not go the entry is in the pack all the same, which goes with the next attempt.
                    PackSent::Yes | PackSent::No(_) => Offer::Sent(bytes),
                };
            }
            match self.send_pack(key, producer, at.now) {
                PackSent::Yes => {}
                PackSent::TakenApart => return Offer::Wait,
                PackSent::No(Fed::Fatal(failure)) => return Offer::Fatal(failure),
                PackSent::No(_) => return Offer::Full,
            }
        }
        let prev = match self.lanes[place].tracker.admit(chain, seq) {
            Admit::Send { prev } => prev,
            Admit::Skip => return Offer::Skipped,
            Admit::Drain => return Offer::Wait,
        };
        if is_paced(LANES[place]) && !self.pace.admit_capped(at.now, Packer::cost(record)) {
            self.lanes[place].tracker.retract(chain, seq, prev);
            return Offer::Wait;
        }
        if let Some(packer) = &mut self.packer {
            packer.begin(key, at.segment, prev, (seq, record), at.now, at.kind == Kind::Backlog);
        }
        Offer::Sent(bytes)
    }

    /// Sends packs whose time has come, or all of them. `Some` says why it ended early.
    pub(super) fn send_due_packs(&mut self, producer: &Producer, now: Instant, all: bool) -> Option<Fed> {
        while let Some(key) = self.packer.as_mut().and_then(|packer| packer.due(now, all)) {
            if let PackSent::No(ended) = self.send_pack(key, producer, now) {
                return Some(ended);
            }
        }
        None
    }

    /// The window is full; packs being built are part of it.
    fn make_room(&mut self, producer: &Producer, now: Instant) -> Offer {
        match self.send_due_packs(producer, now, true) {
            Some(Fed::Fatal(failure)) => Offer::Fatal(failure),
            _ => Offer::Full,
        }
    }

    pub(super) fn packer_is_empty(&self) -> bool {
        self.packer.as_ref().is_none_or(Packer::is_empty)
    }

    /// Sends one pack.
    fn send_pack(&mut self, key: Key, producer: &Producer, now: Instant) -> PackSent {
        let (place, chain) = key;
        let Some(packer) = &mut self.packer else { return PackSent::Yes };
        let Some(open) = packer.get_mut(&key) else { return PackSent::Yes };
        let bytes = open.pack.bytes() + 2 * HEADER_BYTES_MAX;
        let (count, last, prev, capped) = (open.pack.count(), open.pack.last(), open.prev, open.capped);
        let kind = if open.old { Kind::Backlog } else { Kind::Live };
        if !self.pace.admit(now, kind, 1, bytes) {
            return PackSent::No(Fed::Full);
        }
        let flight = Flight { place, chain, last, count, received_ms: open.received_ms, bytes };
        let Some(slot) = self.window.enter(flight) else { return PackSent::No(Fed::Full) };
        let identity = Identity {
            gateway: self.gateway.clone(),
            log: open.log,
            epoch: open.epoch,
            lane: open.lane,
            seq: last,
            prev,
            stream: chain.stream,
        };
        self.headers.fill_packed(&identity, &open.pack);
        let (timestamp_ms, paced) = (open.received_ms, is_paced(open.lane));
        let mut went = 0;
        let sent = match open.pack.finish() {
            Ok(payload) => {
                went = payload.len() + HEADER_BYTES_MAX;
                producer.send(&Outgoing {
                    topic: self.routes.name(chain.target.topic),
                    partition: chain.target.partition,
                    key: self.gateway.as_str().as_bytes(),
                    payload,
                    headers: &self.headers,
                    timestamp_ms,
                    slot,
                })
            }
            Err(error) => {
                let reason = error.to_string();
                Err(Refused::Failure(Failure { disposition: Disposition::Record, reason }))
            }
        };
        let Err(refused) = sent else {
            packer.remove(&key);
            if paced {
                self.pace.settle_capped(capped, went);
            }
            self.metrics.packs.increment(1);
            return PackSent::Yes;
        };
        self.window.leave(slot);
        if matches!(refused, Refused::Failure(_)) {
            self.lanes[place].tracker.retract(chain, last, prev);
            packer.remove(&key);
            self.pace.settle_capped(capped, 0);
        }
        match self.refused(refused, key, (count, last), now) {
            Offer::Fatal(failure) => PackSent::No(Fed::Fatal(failure)),
            Offer::Full => PackSent::No(Fed::Full),
            _ => PackSent::TakenApart,
        }
    }

    // --- what the service never takes ---

    /// Moves an entry to lane `dead`.
    fn bury(&mut self, at: &At<'_>, key: Key, seq: Seq, record: &Record<'_>) -> Offer {
        let (place, chain) = key;
        let topic = chain.target.topic;
        let status = self.outbox.status();
        let dead = status.lanes[Lane::Dead.index()].backlog_bytes;
        // Letters count in the outbox's quota and may not use up more than a quarter of it.
        if dead >= self.dead_letter_bytes_max.min(status.bytes_max / 4) {
            let reason = format!("lane dead is full ({dead} bytes)");
            self.topics.fail(topic, &Failure { disposition: Disposition::Hold, reason }, at.now);
            return Offer::Wait;
        }
        let reason = self.caution.condemned(key, seq).unwrap_or_default().to_owned();
        let origin = dead_letter::Origin {
            gateway: &self.gateway,
            log: at.segment.log(),
            epoch: at.segment.epoch(),
            lane: at.segment.lane(),
            seq,
            target: &format!("{}/{}", self.routes.name(topic), chain.target.partition),
            reason: &reason,
            dead_ms: clock::unix_ms(),
        };
        let mut outputs = Encoded::default();
        dead_letter::bury(record, &origin, &mut outputs);
        if self.lanes[place].commit_durably(&outputs, Some((chain, seq))) {
            tracing::warn!(
                device_id = record.device, lane = %at.segment.lane(), seq = seq.0, reason,
                "an entry that the service does not take goes to the dead letters"
            );
            self.caution.buried(key, seq);
        }
        Offer::Wait
    }
}

/// Whether a cap or a pause may hold a lane back.
fn is_paced(lane: Lane) -> bool {
    PACED.contains(&lane)
}

fn traits<'a>(lane: Lane, record: &Record<'a>) -> Traits<'a> {
    let properties = &record.properties;
    Traits { lane, stream: properties.stream, class: properties.class, tenant: properties.tenant }
}
