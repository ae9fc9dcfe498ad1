//! PUBLISH from a client.

use std::sync::Arc;

use penstock_proto::Lane;

use super::{Batch, OPEN_EXCHANGES, Place, Protocol, Rest, Stored, entry_bytes_max};
use crate::mqtt::acks::Reply;
use crate::mqtt::codec::{Frame, Malformed, Publish, Qos, Reason, Version};
use crate::mqtt::durable::{RECEIVED_VALUE, StateKey};
use crate::mqtt::end::End;
use crate::mqtt::intake::{Admission, Intake};
use crate::mqtt::routing::{Routed, retain, route};
use crate::mqtt::template::{Matched, Verdict};

/// What follows from the answer to a command may take so much beside the answer itself, in bytes.
const OUTCOME_BYTES: usize = 4 << 10;

impl Protocol {
    #[inline]
    pub(super) fn publish(
        &mut self,
        place: Place<'_>,
        batch: &mut Batch,
        intake: &mut Intake,
        frame: &Frame<'_>,
    ) -> Result<(), Rest> {
        let publish = Publish::decode(frame, self.version).map_err(End::from)?;
        if publish.alias.is_none() {
            return self.named(place, batch, intake, (&publish, frame.bytes));
        }
        let topic = self.resolve(place, &publish)?;
        let publish = Publish { topic: topic.as_deref().unwrap_or(publish.topic), ..publish };
        self.named(place, batch, intake, (&publish, frame.bytes))
    }

    /// The topic that an alias stands for, if the publish does not name it; notes a new alias.
    fn resolve(&mut self, place: Place<'_>, publish: &Publish<'_>) -> Result<Option<Arc<str>>, End> {
        let most = place.shared.limits.topic_aliases_max;
        let unknown = End::Malformed(Malformed::TopicAlias);
        let Some(alias) = publish.alias.filter(|alias| *alias <= most) else { return Err(unknown) };
        let alias = usize::from(alias);
        if publish.topic.is_empty() {
            let known = self.aliases.get(alias).cloned().flatten();
            return known.map(Some).ok_or(unknown);
        }
        if self.aliases.len() <= alias {
            self.aliases.resize(alias + 1, None);
        }
        if let Some(known) = self.aliases.get_mut(alias)
            && known.as_deref() != Some(publish.topic)
        {
            *known = Some(publish.topic.into());
        }
        Ok(None)
    }

    /// Takes a publish whose topic is known.
    #[inline]
    fn named(
        &mut self,
        place: Place<'_>,
        batch: &mut Batch,
        intake: &mut Intake,
        (publish, bytes): (&Publish<'_>, usize),
    ) -> Result<(), Rest> {
        let slot = self.received.binary_search(&publish.id);
        if publish.qos == Qos::ExactlyOnce && slot.is_ok() {
            // The publish is there; PUBREC is owed once more ([MQTT-4.3.3-10]).
            batch.tally.repeats += 1;
            self.acks.push(Reply::Pubrec(Reason::Success), publish.id, batch.owes());
            return Ok(());
        }
        self.check_window(place, publish.qos)?;
        let matched = match place.shared.templates.verdict(publish.topic, place.session.device()) {
            Verdict::Own(matched) => matched,
            Verdict::Foreign => {
                batch.tally.foreign += 1;
                return Ok(self.refuse(batch, publish, Reason::NotAuthorized, End::Foreign)?);
            }
            Verdict::Unknown => return Ok(self.local(place, batch, publish)?),
            Verdict::Answer(to) => {
                let needs = (Lane::Status, entry_bytes_max(bytes) + OUTCOME_BYTES);
                if self.admits(place, batch, intake, (publish, bytes), needs)? {
                    self.command_answer(place, batch, publish, to);
                }
                return Ok(());
            }
        };
        let needs = (matched.lane, entry_bytes_max(bytes));
        if self.admits(place, batch, intake, (publish, bytes), needs)? {
            self.store(place, batch, publish, &matched);
        }
        Ok(())
    }

    /// Whether there is room in a lane for what a publish needs; answers it if there is not, and will not be
    /// soon.
    #[inline]
    fn admits(
        &mut self,
        place: Place<'_>,
        batch: &mut Batch,
        intake: &mut Intake,
        (publish, bytes): (&Publish<'_>, usize),
        (lane, needed): (Lane, usize),
    ) -> Result<bool, Rest> {
        match intake.admit(place.shared, lane, batch.bytes(), needed) {
            Admission::Take => Ok(true),
            Admission::Later => Err(Rest::Full(bytes)),
            Admission::Hold => Err(Rest::Held { lane, bytes }),
            Admission::Closed => Err(Rest::End(End::Stopping)),
            Admission::Refuse(shortage) => {
                batch.tally.short(shortage, publish.qos);
                self.answer(batch, publish, Reason::QuotaExceeded);
                Ok(false)
            }
        }
    }

    /// Stores a publish of the device's own, and hands it on.
    #[inline]
    fn store(&mut self, place: Place<'_>, batch: &mut Batch, publish: &Publish<'_>, matched: &Matched<'_>) {
        let Publish { topic, qos, payload, properties, .. } = publish;
        let retain = publish.retain;
        let device = place.session.device();
        batch.store(Stored { device, topic, qos: *qos, retain, properties, payload }, matched);
        batch.count(*qos);
        if retain {
            self.keep(place, batch, publish);
        }
        if !place.shared.router.is_quiet(&mut self.quiet, topic) {
            route(place.shared, batch, &routed(place, publish));
        }
        self.accept(place, batch, publish, Reason::Success);
    }

    /// Takes a publish that is no telemetry: only subscribers get it, if the access rules allow it.
    fn local(&mut self, place: Place<'_>, batch: &mut Batch, publish: &Publish<'_>) -> Result<(), End> {
        if let Err(reason) = place.shared.may_publish(place.session, publish.topic) {
            batch.tally.unknown_topic += 1;
            return self.refuse(batch, publish, reason, End::UnknownTopic);
        }
        batch.tally.local += 1;
        let kept = !publish.retain || self.keep(place, batch, publish);
        // QoS 0 has no answer: who subscribes gets it, though it is not kept.
        if !kept && self.version == Version::V5 && publish.qos != Qos::AtMostOnce {
            self.answer(batch, publish, Reason::QuotaExceeded);
            return Ok(());
        }
        let heard = !place.shared.router.is_quiet(&mut self.quiet, publish.topic)
            && route(place.shared, batch, &routed(place, publish));
        let reason = if heard || self.version == Version::V3 {
            Reason::Success
        } else {
            Reason::NoMatchingSubscribers
        };
        self.accept(place, batch, publish, reason);
        Ok(())
    }

    /// Keeps a publish as its topic's retained message; false if there is no room for it.
    pub(super) fn keep(&self, place: Place<'_>, batch: &mut Batch, publish: &Publish<'_>) -> bool {
        let kept = retain(place.shared, batch, &routed(place, publish));
        batch.tally.not_retained += u64::from(!kept);
        kept
    }

    /// Queues the acknowledgement of a publish that is taken.
    #[inline]
    pub(super) fn accept(
        &mut self,
        place: Place<'_>,
        batch: &mut Batch,
        publish: &Publish<'_>,
        reason: Reason,
    ) {
        match publish.qos {
            Qos::AtMostOnce => {}
            Qos::AtLeastOnce => self.acks.push(Reply::Puback(reason), publish.id, batch.owes()),
            Qos::ExactlyOnce => {
                if let Err(slot) = self.received.binary_search(&publish.id) {
                    self.received.insert(slot, publish.id);
                }
                if self.lasting {
                    let key = StateKey::Received(place.session.number(), publish.id);
                    batch.state.put(&key.encode(), RECEIVED_VALUE);
                }
                self.acks.push(Reply::Pubrec(reason), publish.id, batch.owes());
            }
        }
    }

    /// Refuses a publish in its turn. MQTT 3.1.1 has no word for it but closing; QoS 0 has none at all.
    fn refuse(&mut self, batch: &Batch, publish: &Publish<'_>, reason: Reason, end: End) -> Result<(), End> {
        if self.version == Version::V3 && publish.qos != Qos::AtMostOnce {
            return Err(end);
        }
        self.answer(batch, publish, reason);
        Ok(())
    }

    /// Queues the answer to a publish that is not taken.
    pub(super) fn answer(&mut self, batch: &Batch, publish: &Publish<'_>, reason: Reason) {
        let reply = match publish.qos {
            Qos::AtMostOnce => return,
            Qos::AtLeastOnce => Reply::Puback(reason),
            Qos::ExactlyOnce => Reply::Pubrec(reason),
        };
        self.acks.push(reply, publish.id, batch.owes());
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
}

pub(super) fn routed<'a>(place: Place<'a>, publish: &'a Publish<'_>) -> Routed<'a> {
    Routed {
        topic: publish.topic,
        publisher: place.session.client(),
        qos: publish.qos,
        retain: publish.retain,
        properties: &publish.properties,
        payload: publish.payload,
    }
}
