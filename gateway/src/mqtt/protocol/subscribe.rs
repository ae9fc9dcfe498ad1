//! SUBSCRIBE and UNSUBSCRIBE from a client.

use std::sync::Arc;

use super::{Batch, Place, Protocol};
use crate::mqtt::codec::{
    Reason, Request, RetainHandling, Subscribe, Unsubscribe, Version, suback, unsuback,
};
use crate::mqtt::end::End;
use crate::mqtt::message::Message;
use crate::mqtt::outgoing::{Grant, Ids};
use crate::mqtt::router::Options;
use crate::mqtt::session::split_shared;

impl Protocol {
    pub(super) fn subscribe(&mut self, place: Place<'_>, batch: &mut Batch, body: &[u8]) -> Result<(), End> {
        let subscribe = Subscribe::decode(body, self.version)?;
        let id = subscribe.subscription_id.unwrap_or(0);
        let mut codes = Vec::new();
        let mut granted = false;
        self.check_answer(subscribe.requests().count())?;
        for request in subscribe.requests() {
            let result = subscribe_one(place, self.version, &request, id);
            granted |= result.is_ok();
            codes.push(match (result, self.version) {
                (Ok(()), _) => request.qos.number(),
                (Err(_), Version::V3) => 0x80,
                (Err(reason), Version::V5) => reason.code(),
            });
        }
        let mut packet = Vec::new();
        suback(&mut packet, self.version, subscribe.id, &codes);
        if granted {
            place.shared.note_presence(place.session);
        }
        self.answer_durably(place, batch, packet, granted);
        Ok(())
    }

    pub(super) fn unsubscribe(
        &mut self,
        place: Place<'_>,
        batch: &mut Batch,
        body: &[u8],
    ) -> Result<(), End> {
        let unsubscribe = Unsubscribe::decode(body, self.version)?;
        self.check_answer(unsubscribe.filters().count())?;
        let mut changed = false;
        let code = |filter| {
            let ended = place.session.unsubscribe(&place.shared.router, filter);
            changed |= ended;
            if ended { Reason::Success } else { Reason::NoSubscriptionExisted }.code()
        };
        let codes: Vec<u8> = unsubscribe.filters().map(code).collect();
        let mut packet = Vec::new();
        unsuback(&mut packet, self.version, unsubscribe.id, &codes);
        if changed {
            place.shared.note_presence(place.session);
        }
        self.answer_durably(place, batch, packet, changed);
        Ok(())
    }

    /// Ends the connection if an answer with so many codes would be larger than its client takes
    /// ([MQTT-3.1.2-24]): without the answer the client would wait for ever.
    fn check_answer(&self, codes: usize) -> Result<(), End> {
        // Packet id and no properties; the header has a length of one byte or two.
        let body = 3 + codes;
        let header = if body < 128 { 2 } else { 3 };
        if header + body > self.packet_bytes_max { Err(End::AnswerTooLarge) } else { Ok(()) }
    }

    /// Sends an answer, but not before what a lasting session has to remember is durable.
    fn answer_durably(&mut self, place: Place<'_>, batch: &mut Batch, packet: Vec<u8>, changed: bool) {
        batch.deliveries = true;
        if self.lasting && changed {
            place.session.record(&mut batch.state);
            self.acks.push_packet(packet.into(), true);
        } else {
            batch.out.extend_from_slice(&packet);
        }
    }
}

fn subscribe_one(place: Place<'_>, version: Version, request: &Request<'_>, id: u32) -> Result<(), Reason> {
    let Place { shared, session, .. } = place;
    let (group, filter) = split_shared(request.filter);
    if group.is_some() && version == Version::V3 {
        // 3.1.1 does not know them: to its client this is a filter of topics that begin with `$share`.
        return Err(Reason::TopicFilterInvalid);
    }
    if filter.split('/').count() > shared.limits.topic_levels_max {
        return Err(Reason::TopicFilterInvalid);
    }
    let guarded = if shared.templates.owns_filter(filter, session.device()) {
        false
    } else {
        shared.may_subscribe(session, filter)?
    };
    let options = Options {
        id,
        qos: request.qos.number(),
        no_local: request.no_local,
        retain_as_published: request.retain_as_published,
        guarded,
    };
    // Who subscribes over and over and takes nothing does not fill the memory.
    if session.replays() >= shared.limits.queue_messages_max {
        return Err(Reason::QuotaExceeded);
    }
    let most = shared.limits.subscriptions_max;
    let Some(new) = session.subscribe(&shared.router, request.filter, options, most) else {
        return Err(Reason::QuotaExceeded);
    };
    let wants_retained = match request.retain_handling {
        RetainHandling::Send => true,
        RetainHandling::SendIfNew => new,
        RetainHandling::Never => false,
    };
    // A shared subscription gets none (MQTT 5, section 4.8.2).
    if group.is_none() && wants_retained {
        replay(place, filter, request, options);
    }
    Ok(())
}

/// Lines up the retained messages that a filter matches ([MQTT-3.3.1-8]).
fn replay(place: Place<'_>, filter: &str, request: &Request<'_>, options: Options) {
    let Place { shared, session, .. } = place;
    let wanted = |message: &Arc<Message>| {
        let echo = options.no_local && *message.publisher() == **session.client();
        !echo && shared.may_receive(session, &options, message.topic())
    };
    let grant = |message: Arc<Message>| {
        let mut ids = Ids::None;
        ids.push(options.id);
        let qos = message.qos().min(request.qos);
        (message, Grant { qos, retain: true, ids })
    };
    session.replay(|| {
        let messages = shared.retained.matching(filter, shared.now_ms());
        messages.into_iter().filter(wanted).map(grant)
    });
}
