//! What a connection knows between packets, and what each packet does.
//!
//! No socket and no waiting: [`Session::take`] turns the bytes of one read into entries for the
//! outbox, packets to send at once and replies that wait for the commit. The connection around it
//! does the I/O.

use penstock_proto::Lane;

use crate::outbox::{Encoded, Entry, Properties, UserProperties};
use crate::supervise::clock;

use super::acks::{Acks, Reply};
use super::codec::{
    Ack, AckKind, Disconnect, Frame, Malformed, PacketType, Publish, PublishProperties, Qos, Reason, Split,
    Subscribe, Unsubscribe, Version, Will, auth, ping, pingresp, publish_topic, split, suback, unsuback,
};
use super::config::OnFull;
use super::end::End;
use super::intake::{Admission, Intake, has_reserve};
use super::metrics::Tally;
use super::registry::{Delivered, Link, Registry, SubscriptionOptions};
use super::shared::Shared;
use super::template::{Matched, Verdict};

/// QoS 2 exchanges that a 3.1.1 client may leave open, as a multiple of `inflight_max`. It is not told
/// a limit, and waiting would not help: the PUBREL that frees one comes on the same socket.
const OPEN_EXCHANGES: usize = 8;
/// Replies and submissions that may wait, as a multiple of `inflight_max`.
const REPLIES: usize = 4;
/// Most bytes of an entry that do not come from its packet: the device and the fixed fields.
const ENTRY_OVERHEAD: usize = 256;
/// Bytes read at once while publishes are withheld, and the most that a client may need to name the
/// topic of one that should not be.
pub(super) const PEEK_BYTES: usize = 1 << 10;

/// The state of one connection after its CONNECT.
#[derive(Debug)]
pub(super) struct Session {
    version: Version,
    /// Replies that wait for the commit.
    pub(super) acks: Acks,
    /// Packet ids of QoS 2 publishes that were taken and not released, sorted.
    received: Vec<u16>,
    will: Option<Box<KeptWill>>,
    /// The CONNECT asked for no session beyond the connection, so that DISCONNECT may not either.
    expires_at_once: bool,
    on_full: OnFull,
}

/// A will, kept until the connection ends.
#[derive(Debug)]
struct KeptWill {
    qos: Qos,
    retain: bool,
    topic: Box<str>,
    payload: Box<[u8]>,
    properties: Box<[u8]>,
}

/// Buffers that one pass over a connection fills; kept per thread.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Entries for the next submission.
    pub(super) encoded: Encoded,
    /// Packets to send at once.
    pub(super) out: Vec<u8>,
    pub(super) tally: Tally,
    user: Vec<u8>,
    received_ms: u64,
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
    pub(super) link: &'a std::sync::Arc<Link>,
}

// === impl Session ===

impl Session {
    pub(super) fn new(
        version: Version,
        expires_at_once: bool,
        will: Option<&Will<'_>>,
        on_full: OnFull,
    ) -> Self {
        let will = will.map(|will| Box::new(KeptWill::new(will)));
        Self { version, acks: Acks::default(), received: Vec::new(), will, expires_at_once, on_full }
    }

    pub(super) const fn version(&self) -> Version {
        self.version
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
        batch.received_ms = clock::unix_ms();
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
                    let bytes = batch.encoded.bytes();
                    if bytes.saturating_add(entry_bytes_max(frame.bytes)) > bytes_max
                        || !self.has_room(place.shared, bytes)
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
            PacketType::Pubrel => self.pubrel(batch, frame.body),
            PacketType::Pingreq => {
                ping(frame.body)?;
                pingresp(&mut batch.out);
                Ok(())
            }
            PacketType::Subscribe => self.subscribe(place, batch, frame.body),
            PacketType::Unsubscribe => self.unsubscribe(place, batch, frame.body),
            PacketType::Disconnect => Err(self.disconnect(frame.body)),
            // Nothing is delivered above QoS 0, so that these acknowledge nothing.
            PacketType::Puback => Err(self.unasked(frame.body, AckKind::Puback)),
            PacketType::Pubrec => Err(self.unasked(frame.body, AckKind::Pubrec)),
            PacketType::Pubcomp => Err(self.unasked(frame.body, AckKind::Pubcomp)),
            PacketType::Auth => {
                auth(frame.body, self.version)?;
                Err(End::Malformed(Malformed::Unexpected))
            }
            // A second CONNECT ([MQTT-3.1.0-2]). Publishes do not come here.
            PacketType::Connect | PacketType::Publish => Err(End::Malformed(Malformed::Unexpected)),
        }
    }

    #[inline]
    fn publish(
        &mut self,
        place: Place<'_>,
        batch: &mut Batch,
        intake: &mut Intake,
        frame: &Frame<'_>,
    ) -> Result<(), Rest> {
        let publish = Publish::decode(frame, self.version).map_err(End::from)?;
        if publish.alias.is_some() {
            return Err(Rest::End(End::Malformed(Malformed::TopicAlias)));
        }
        if publish.retain && self.version == Version::V5 {
            return Err(Rest::End(End::Retain));
        }
        let slot = self.received.binary_search(&publish.id);
        if publish.qos == Qos::ExactlyOnce && slot.is_ok() {
            // The publish is there; PUBREC is owed once more ([MQTT-4.3.3-10]).
            batch.tally.repeats += 1;
            self.acks.push(Reply::Pubrec(Reason::Success), publish.id, !batch.encoded.is_empty());
            return Ok(());
        }
        self.check_window(place, publish.qos)?;
        let matched = match place.shared.templates.verdict(publish.topic, place.link.device().id()) {
            Verdict::Own(matched) => matched,
            Verdict::Foreign => {
                batch.tally.foreign += 1;
                return Ok(self.refuse(batch, &publish, Reason::NotAuthorized, End::Foreign)?);
            }
            Verdict::Unknown => {
                batch.tally.unknown_topic += 1;
                return Ok(self.refuse(batch, &publish, Reason::TopicNameInvalid, End::UnknownTopic)?);
            }
        };
        let (lane, bytes) = (matched.lane, frame.bytes);
        match intake.admit(place.shared, lane, batch.encoded.bytes(), entry_bytes_max(bytes)) {
            Admission::Take => {}
            Admission::Later => return Err(Rest::Full(bytes)),
            Admission::Hold => return Err(Rest::Held { lane, bytes }),
            Admission::Closed => return Err(Rest::End(End::Stopping)),
            Admission::Refuse(shortage) => {
                batch.tally.short(shortage, publish.qos);
                self.answer(batch, &publish, Reason::QuotaExceeded);
                return Ok(());
            }
        }
        batch.store(place, &publish, &matched);
        if place.link.device().is_subscribed() {
            deliver(place, &publish);
        }
        match publish.qos {
            Qos::AtMostOnce => {}
            Qos::AtLeastOnce => self.acks.push(Reply::Puback(Reason::Success), publish.id, true),
            Qos::ExactlyOnce => {
                if let Err(slot) = slot {
                    self.received.insert(slot, publish.id);
                }
                self.acks.push(Reply::Pubrec(Reason::Success), publish.id, true);
            }
        }
        Ok(())
    }

    /// Refuses a publish in its turn. MQTT 3.1.1 has no word for it but closing; QoS 0 has none at all.
    fn refuse(&mut self, batch: &Batch, publish: &Publish<'_>, reason: Reason, end: End) -> Result<(), End> {
        if self.version == Version::V3 && publish.qos != Qos::AtMostOnce {
            return Err(end);
        }
        self.answer(batch, publish, reason);
        Ok(())
    }

    /// Queues the answer to a publish that is not stored.
    fn answer(&mut self, batch: &Batch, publish: &Publish<'_>, reason: Reason) {
        let reply = match publish.qos {
            Qos::AtMostOnce => return,
            Qos::AtLeastOnce => Reply::Puback(reason),
            Qos::ExactlyOnce => Reply::Pubrec(reason),
        };
        self.acks.push(reply, publish.id, !batch.encoded.is_empty());
    }

    /// Refuses a publish above the window that the client was told.
    #[inline]
    fn check_window(&self, place: Place<'_>, qos: Qos) -> Result<(), End> {
        let inflight_max = usize::from(place.shared.limits.inflight_max);
        let open = self.acks.open() + self.received.len();
        let above = match self.version {
            Version::V5 => qos != Qos::AtMostOnce && open >= inflight_max,
            Version::V3 => qos == Qos::ExactlyOnce && self.received.len() >= OPEN_EXCHANGES * inflight_max,
        };
        if above { Err(End::ReceiveMaximum) } else { Ok(()) }
    }

    fn pubrel(&mut self, batch: &Batch, body: &[u8]) -> Result<(), End> {
        let Ack { id, .. } = Ack::decode(body, AckKind::Pubrel, self.version)?;
        let known = self.received.binary_search(&id).map(|slot| self.received.remove(slot));
        if self.received.is_empty() {
            self.received = Vec::new();
        }
        let reason = match (known, self.version) {
            (Err(_), Version::V5) => Reason::PacketIdNotFound,
            // 3.1.1: the exchange may be one of an earlier connection, and has to come to its end.
            _ => Reason::Success,
        };
        self.acks.push(Reply::Pubcomp(reason), id, !batch.encoded.is_empty());
        Ok(())
    }

    fn unasked(&self, body: &[u8], kind: AckKind) -> End {
        match Ack::decode(body, kind, self.version) {
            Ok(_) => End::Malformed(Malformed::Unexpected),
            Err(malformed) => End::Malformed(malformed),
        }
    }

    fn disconnect(&mut self, body: &[u8]) -> End {
        match Disconnect::decode(body, self.version) {
            Err(malformed) => End::Malformed(malformed),
            Ok(Disconnect { session_expiry: Some(1..), .. }) if self.expires_at_once => {
                End::Malformed(Malformed::PropertyValue)
            }
            Ok(Disconnect { with_will: true, .. }) => End::ClientWithWill,
            Ok(_) => {
                self.will = None;
                End::Client
            }
        }
    }

    fn subscribe(&self, place: Place<'_>, batch: &mut Batch, body: &[u8]) -> Result<(), End> {
        let subscribe = Subscribe::decode(body, self.version)?;
        let mut codes = Vec::new();
        for request in subscribe.requests() {
            let options = SubscriptionOptions {
                no_local: request.no_local,
                retain_as_published: request.retain_as_published,
            };
            let reason = if subscribe.subscription_id.is_some() {
                Some(Reason::SubscriptionIdentifiersNotSupported)
            } else {
                refuse_filter(place, request.filter).or_else(|| {
                    let most = place.shared.limits.subscriptions_max;
                    let granted = Registry::subscribe(place.link, request.filter, options, most);
                    (!granted).then_some(Reason::QuotaExceeded)
                })
            };
            // Granted is QoS 0, whatever was asked for.
            codes.push(match (reason, self.version) {
                (None, _) => 0,
                (Some(_), Version::V3) => 0x80,
                (Some(reason), Version::V5) => reason.code(),
            });
        }
        suback(&mut batch.out, self.version, subscribe.id, &codes);
        Ok(())
    }

    fn unsubscribe(&self, place: Place<'_>, batch: &mut Batch, body: &[u8]) -> Result<(), End> {
        let unsubscribe = Unsubscribe::decode(body, self.version)?;
        let code = |filter| {
            let ended = Registry::unsubscribe(place.link, filter);
            if ended { Reason::Success } else { Reason::NoSubscriptionExisted }.code()
        };
        let codes: Vec<u8> = unsubscribe.filters().map(code).collect();
        unsuback(&mut batch.out, self.version, unsubscribe.id, &codes);
        Ok(())
    }

    /// Encodes the will, if there is one; returns whether there was.
    pub(super) fn take_will(&mut self, place: Place<'_>, batch: &mut Batch) -> bool {
        let Some(will) = self.will.take() else { return false };
        let properties = PublishProperties::of_will(&will.properties);
        let publish = Publish {
            dup: false,
            qos: will.qos,
            retain: will.retain,
            topic: &will.topic,
            id: 0,
            alias: None,
            properties,
            payload: &will.payload,
        };
        batch.received_ms = clock::unix_ms();
        // CONNECT was refused unless the topic is the device's own.
        if let Verdict::Own(matched) = place.shared.templates.verdict(&will.topic, place.link.device().id()) {
            batch.store(place, &publish, &matched);
            // Its block holds a delay, which a publish may not have.
            deliver(place, &Publish { properties: PublishProperties::default(), ..publish });
        }
        true
    }

    /// The room that the will takes in the outbox, and in which lane; nothing if there is none that the
    /// end of the connection makes due.
    pub(super) fn will_room(&self, place: Place<'_>) -> Option<(Lane, usize)> {
        let will = self.will.as_deref()?;
        let lane = match place.shared.templates.verdict(&will.topic, place.link.device().id()) {
            Verdict::Own(matched) => matched.lane,
            Verdict::Foreign | Verdict::Unknown => return None,
        };
        Some((lane, entry_bytes_max(will.topic.len() + will.payload.len() + will.properties.len())))
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
        Some(topic) => match place.shared.templates.verdict(topic, place.link.device().id()) {
            Verdict::Own(matched) => matched.lane,
            // It is refused, and needs no room for that.
            Verdict::Foreign | Verdict::Unknown => return Rest::Incomplete(Some(bytes)),
        },
    };
    if has_reserve(lane) { Rest::Incomplete(Some(bytes)) } else { Rest::Held { lane, bytes } }
}

/// Why a filter is not granted.
fn refuse_filter(place: Place<'_>, filter: &str) -> Option<Reason> {
    if filter.starts_with("$share/") {
        Some(Reason::SharedSubscriptionsNotSupported)
    } else if filter.split('/').count() > place.shared.limits.topic_levels_max {
        Some(Reason::TopicFilterInvalid)
    } else if place.shared.templates.owns_filter(filter, place.link.device().id()) {
        None
    } else {
        Some(Reason::NotAuthorized)
    }
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

// === impl KeptWill ===

impl KeptWill {
    fn new(will: &Will<'_>) -> Self {
        Self {
            qos: will.qos,
            retain: will.retain,
            topic: will.topic.into(),
            payload: will.payload.into(),
            properties: will.properties.block.into(),
        }
    }
}

// === impl Batch ===

impl Batch {
    /// Encodes one publish.
    #[inline]
    fn store(&mut self, place: Place<'_>, publish: &Publish<'_>, matched: &Matched<'_>) {
        let device = place.link.device();
        let told = &publish.properties;
        let mut properties = Properties {
            tenant: matched.tenant,
            site: matched.site,
            class: matched.class,
            stream: matched.stream,
            content_type: told.content_type,
            response_topic: told.response_topic,
            correlation_data: told.correlation_data,
            expiry_seconds: told.expiry_seconds,
            ..Properties::default()
        };
        if told.has_user {
            keep_user(told, &mut properties, &mut self.user);
        }
        properties.user = UserProperties::new(&self.user).unwrap_or_default();
        self.encoded.push(&Entry {
            lane: matched.lane,
            device: device.id(),
            topic: publish.topic,
            received_ms: self.received_ms,
            qos: publish.qos.number(),
            retain: publish.retain,
            clock_synced: clock::plausible(self.received_ms),
            properties,
            payload: publish.payload,
        });
        self.user.clear();
        if let Some(count) = self.tally.publishes.get_mut(usize::from(publish.qos.number())) {
            *count += 1;
        }
    }

    /// Empties it; what a pass before it left behind, by a panic, must not be submitted.
    pub(super) fn clear(&mut self) {
        if !self.encoded.is_empty() {
            self.encoded.clear();
        }
        self.out.clear();
        self.user.clear();
        self.tally = Tally::default();
    }
}

/// Encodes user properties; the trace context has fields of its own.
fn keep_user<'a>(told: &PublishProperties<'a>, properties: &mut Properties<'a>, user: &mut Vec<u8>) {
    for (name, value) in told.user() {
        match name {
            "traceparent" if properties.traceparent.is_none() => properties.traceparent = Some(value),
            "tracestate" if properties.tracestate.is_none() => properties.tracestate = Some(value),
            _ => UserProperties::push(user, name, value),
        }
    }
}

/// Hands a publish to the subscribers of its device.
#[cold]
fn deliver(place: Place<'_>, publish: &Publish<'_>) {
    let Delivered { queued, dropped } = place.shared.registry.deliver(
        place.link,
        publish.topic,
        publish.retain,
        &publish.properties,
        publish.payload,
    );
    place.shared.metrics.delivered.increment(queued);
    place.shared.metrics.deliveries_dropped.increment(dropped);
}
