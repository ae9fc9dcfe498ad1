//! What a connection knows between packets, and what each packet does.
//!
//! No socket and no waiting: [`Protocol::take`] turns the bytes of one read into entries for the
//! outbox, changes of state, packets to send at once and replies that wait for the commit. The
//! connection around it does the I/O.

mod answer;
mod batch;
mod publish;
mod subscribe;

use std::sync::Arc;

use penstock_proto::Lane;

pub(super) use self::batch::{Batch, Stored};
use super::acks::{Acks, Reply};
use super::codec::{
    Ack, AckKind, Disconnect, Frame, Malformed, PacketType, Reason, Split, Version, auth, ping, pingresp,
    pubcomp, publish_topic, pubrel, split,
};
use super::config::OnFull;
use super::durable::StateKey;
use super::end::End;
use super::intake::{Intake, has_reserve};
use super::router::Quiet;
use super::session::{Answer, Session};
use super::shared::Shared;
use super::template::Verdict;
use crate::supervise::clock;

/// QoS 2 exchanges that a 3.1.1 client may leave open, as a multiple of `inflight_max`. It is not told
/// a limit, and waiting would not help: the PUBREL that frees one comes on the same socket.
const OPEN_EXCHANGES: usize = 8;
/// Replies and submissions that may wait, as a multiple of `inflight_max`.
const REPLIES: usize = 4;
/// Deliveries after which other connections get their turn, though publishes have been read and wait.
const FAN_OUT_MAX: usize = 4096;
/// Most bytes of an entry that do not come from its packet: the device and the fixed fields.
const ENTRY_OVERHEAD: usize = 256;
/// Smallest limit on packets of a client that is told why it is refused or cut off, in bytes.
pub(super) const EXPLAINED_BYTES: usize = 128;
/// Bytes read at once while publishes are withheld, and the most that a client may need to name the
/// topic of one that should not be.
pub(super) const PEEK_BYTES: usize = 1 << 10;

/// The state of one connection after its CONNECT.
#[derive(Debug)]
pub(super) struct Protocol {
    version: Version,
    on_full: OnFull,
    /// The largest packet that the client takes.
    packet_bytes_max: usize,
    /// The CONNECT asked for no session beyond the connection, so that DISCONNECT may not either.
    expires_at_once: bool,
    /// The session outlives the connection.
    lasting: bool,
    /// Replies that wait for the commit.
    pub(super) acks: Acks,
    /// Packet ids of QoS 2 publishes that were taken and not released, sorted.
    received: Vec<u16>,
    /// Topics that the client's aliases stand for, by alias; empty if it has none.
    aliases: Vec<Option<Arc<str>>>,
    quiet: Quiet,
}

/// What CONNECT came to, as far as packets depend on it.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) version: Version,
    pub(super) on_full: OnFull,
    /// Seconds that the session outlives the connection.
    pub(super) expiry_seconds: u32,
    /// Packet ids of QoS 2 that an earlier connection left open, sorted.
    pub(super) received: Vec<u16>,
    /// The largest packet that the client takes.
    pub(super) packet_bytes_max: usize,
}

/// What became of the bytes of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes that are done with.
    pub(super) used: usize,
    pub(super) rest: Rest,
}

/// What is left of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Nothing, or the front of a packet; its size if it is known.
    Incomplete(Option<usize>),
    /// A packet of this size, and perhaps more: a limit was reached.
    Full(usize),
    /// A publish of this size, whole or not, that there is no room for; what has to have some first.
    Held { lane: Lane, bytes: usize },
    /// The connection ends.
    End(End),
}

/// Where a connection stands while it takes packets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) shared: &'a Shared,
    pub(super) session: &'a Arc<Session>,
}

// === impl Protocol ===

impl Protocol {
    pub(super) fn new(terms: Terms) -> Self {
        let Terms { version, on_full, expiry_seconds, received, packet_bytes_max } = terms;
        Self {
            version,
            on_full,
            packet_bytes_max,
            expires_at_once: expiry_seconds == 0,
            lasting: expiry_seconds > 0,
            acks: Acks::default(),
            received,
            aliases: Vec::new(),
            quiet: Quiet::default(),
        }
    }

    pub(super) const fn version(&self) -> Version {
        self.version
    }

    /// Whether the client has room for a sentence in a DISCONNECT.
    pub(super) const fn explains(&self) -> bool {
        self.packet_bytes_max >= EXPLAINED_BYTES
    }

    /// Whether the session outlives the connection.
    pub(super) const fn is_lasting(&self) -> bool {
        self.lasting
    }

    /// The open QoS 2 exchanges, for the next connection.
    pub(super) fn take_received(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.received)
    }

    /// Whether the client is told of a publish that a used-up quota leaves no room for. MQTT 3.1.1 has no
    /// word for it.
    pub(super) fn refuses(&self) -> bool {
        self.on_full == OnFull::Refuse && self.version == Version::V5
    }

    /// Whether it may take more packets; `batch_bytes` are encoded already.
    pub(super) fn has_room(&self, shared: &Shared, batch_bytes: usize) -> bool {
        let limits = &shared.limits;
        let inflight_max = usize::from(limits.inflight_max);
        self.acks.bytes() + batch_bytes < limits.inflight_bytes_max
            && self.acks.len() < REPLIES * inflight_max
            && (self.version == Version::V5 || self.acks.open() < inflight_max)
    }

    /// Takes packets from `input` as far as `intake` and the limits allow.
    pub(super) fn take(
        &mut self,
        place: Place<'_>,
        batch: &mut Batch,
        intake: &mut Intake,
        input: &[u8],
    ) -> Taken {
        #[cfg(test)]
        assert!(
            !place.shared.panics.swap(false, std::sync::atomic::Ordering::Relaxed),
            "asked for by a test"
        );
        batch.received_ms = clock::unix_ms();
        batch.fanned_out = 0;
        let bytes_max = intake.bytes_max();
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            let rest = match split(rest, place.shared.limits.packet_bytes_max) {
                Ok(Split::Incomplete { bytes: Some(bytes) }) if intake.withholds() => {
                    judge_front(place, rest, bytes)
                }
                Ok(Split::Incomplete { bytes }) => Rest::Incomplete(bytes),
                Err(malformed) => Rest::End(End::Malformed(malformed)),
                Ok(Split::Frame(frame)) => {
                    let bytes = batch.bytes();
                    if bytes.saturating_add(entry_bytes_max(frame.bytes)) > bytes_max
                        || !self.has_room(place.shared, bytes)
                        || batch.fanned_out > FAN_OUT_MAX
                    {
                        Rest::Full(frame.bytes)
                    } else if let Err(rest) = self.packet(place, batch, intake, &frame) {
                        rest
                    } else {
                        used += frame.bytes;
                        continue;
                    }
                }
            };
            return Taken { used, rest };
        }
    }

    #[inline]
    fn packet(
        &mut self,
        place: Place<'_>,
        batch: &mut Batch,
        intake: &mut Intake,
        frame: &Frame<'_>,
    ) -> Result<(), Rest> {
        if frame.kind == PacketType::Publish {
            return self.publish(place, batch, intake, frame);
        }
        self.control(place, batch, frame).map_err(Rest::End)
    }

    fn control(&mut self, place: Place<'_>, batch: &mut Batch, frame: &Frame<'_>) -> Result<(), End> {
        match frame.kind {
            PacketType::Pubrel => self.pubrel(place, batch, frame.body),
            PacketType::Pingreq => {
                ping(frame.body)?;
                pingresp(&mut batch.out);
                Ok(())
            }
            PacketType::Subscribe => self.subscribe(place, batch, frame.body),
            PacketType::Unsubscribe => self.unsubscribe(place, batch, frame.body),
            PacketType::Disconnect => Err(self.disconnect(place, frame.body)),
            PacketType::Puback => self.puback(place, batch, frame.body),
            PacketType::Pubrec => self.pubrec(place, batch, frame.body),
            PacketType::Pubcomp => self.pubcomp(place, batch, frame.body),
            PacketType::Auth => {
                auth(frame.body, self.version)?;
                Err(End::Malformed(Malformed::Unexpected))
            }
            // A second CONNECT ([MQTT-3.1.0-2]). Publishes do not come here.
            PacketType::Connect | PacketType::Publish => Err(End::Malformed(Malformed::Unexpected)),
        }
    }

    /// The client releases a publish of QoS 2: its packet id is free again, and PUBCOMP says so when
    /// the store has forgotten it.
    fn pubrel(&mut self, place: Place<'_>, batch: &mut Batch, body: &[u8]) -> Result<(), End> {
        let Ack { id, .. } = Ack::decode(body, AckKind::Pubrel, self.version)?;
        let known = self.received.binary_search(&id).map(|slot| self.received.remove(slot));
        if self.received.is_empty() {
            self.received = Vec::new();
        }
        if known.is_ok() && self.lasting {
            batch.state.delete(&StateKey::Received(place.session.number(), id).encode());
        }
        let reason = match (known, self.version) {
            (Err(_), Version::V5) => Reason::PacketIdNotFound,
            // 3.1.1: the exchange may be one of an earlier connection, and has to come to its end.
            _ => Reason::Success,
        };
        self.acks.push(Reply::Pubcomp(reason), id, batch.owes());
        Ok(())
    }

    // --- acknowledgements of what is delivered ---

    fn puback(&self, place: Place<'_>, batch: &mut Batch, body: &[u8]) -> Result<(), End> {
        let Ack { id, reason } = Ack::decode(body, AckKind::Puback, self.version)?;
        // One that nothing is on its way for does no harm; firmware sends such things.
        if place.session.acknowledged(id, reason, &mut batch.relaxed) {
            batch.tally.acknowledged += 1;
            batch.deliveries = true;
        }
        Ok(())
    }

    fn pubrec(&mut self, place: Place<'_>, batch: &mut Batch, body: &[u8]) -> Result<(), End> {
        let Ack { id, reason } = Ack::decode(body, AckKind::Pubrec, self.version)?;
        let accepted = reason < 0x80;
        // What changes in the store for PUBREL has to be durable before it goes out.
        let answer = if accepted {
            place.session.received(id, true, &mut batch.state)
        } else {
            place.session.received(id, false, &mut batch.relaxed)
        };
        match answer {
            Answer::Release { stored } => self.acks.push(Reply::Pubrel, id, stored),
            Answer::None => {
                batch.tally.acknowledged += 1;
                batch.deliveries = true;
            }
            Answer::Unknown if !accepted => {}
            Answer::Unknown => {
                let version = self.version;
                let reason = if version == Version::V5 { Reason::PacketIdNotFound } else { Reason::Success };
                pubrel(&mut batch.out, id, reason);
            }
        }
        Ok(())
    }

    fn pubcomp(&self, place: Place<'_>, batch: &mut Batch, body: &[u8]) -> Result<(), End> {
        let Ack { id, .. } = Ack::decode(body, AckKind::Pubcomp, self.version)?;
        if place.session.completed(id, &mut batch.relaxed) {
            batch.tally.acknowledged += 1;
            batch.deliveries = true;
        }
        Ok(())
    }

    fn disconnect(&mut self, place: Place<'_>, body: &[u8]) -> End {
        let told = match Disconnect::decode(body, self.version) {
            Err(malformed) => return End::Malformed(malformed),
            Ok(told) => told,
        };
        match told.session_expiry {
            Some(1..) if self.expires_at_once => return End::Malformed(Malformed::PropertyValue),
            Some(seconds) => {
                let seconds = seconds.min(place.shared.limits.session_expiry_seconds_max);
                place.session.set_expiry(seconds);
            }
            None => {}
        }
        if told.with_will {
            return End::ClientWithWill;
        }
        drop(place.session.take_will());
        End::Client
    }
}

/// Writes one reply and counts it.
#[inline]
pub(super) fn write(reply: Reply, id: u16, packet: &[u8], batch: &mut Batch) {
    use super::codec::{puback, pubrec};
    let Batch { out, tally, .. } = batch;
    match reply {
        Reply::Puback(reason) => {
            puback(out, id, reason);
            tally.pubacks += u64::from(reason.code() < 0x80);
        }
        Reply::Pubrec(reason) => {
            pubrec(out, id, reason);
            tally.pubrecs += u64::from(reason.code() < 0x80);
        }
        Reply::Pubcomp(reason) => {
            pubcomp(out, id, reason);
            tally.pubcomps += u64::from(reason == Reason::Success);
        }
        Reply::Pubrel => pubrel(out, id, Reason::Success),
        Reply::Packet => out.extend_from_slice(packet),
        Reply::Submitted => {}
    }
}

/// Decides on the front of a packet while publishes are withheld: one that will find no room is not
/// worth reading to its end.
fn judge_front(place: Place<'_>, front: &[u8], bytes: usize) -> Rest {
    if front.first().is_none_or(|first| first >> 4 != 3) {
        return Rest::Incomplete(Some(bytes));
    }
    let lane = match publish_topic(front) {
        None if front.len() < PEEK_BYTES => return Rest::Incomplete(Some(bytes)),
        None => place.shared.lane,
        Some(topic) => match place.shared.templates.verdict(topic, place.session.device()) {
            Verdict::Own(matched) => matched.lane,
            Verdict::Answer(_) => Lane::Status,
            // It is refused or local, and needs no room in the outbox for that.
            Verdict::Foreign | Verdict::Unknown => return Rest::Incomplete(Some(bytes)),
        },
    };
    if has_reserve(lane) { Rest::Incomplete(Some(bytes)) } else { Rest::Held { lane, bytes } }
}

/// Most bytes that the entry of a packet can take: captured levels stand in it twice.
pub(super) const fn entry_bytes_max(packet_bytes: usize) -> usize {
    2 * packet_bytes + ENTRY_OVERHEAD
}

// === impl Rest ===

impl From<End> for Rest {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}
