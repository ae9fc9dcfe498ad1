//! PUBLISH from a device to the answer topic of a command.

use penstock_proto::Lane;

use super::publish::routed;
use super::{Batch, Place, Protocol, Stored};
use crate::mqtt::codec::{Publish, Reason, Version};
use crate::mqtt::devices::{Answer, AnswerTo, Taken};
use crate::mqtt::routing::route;
use crate::mqtt::template::Matched;

/// Where an answer goes that belongs to no command.
const STATUS: Matched<'_> =
    Matched { lane: Lane::Status, tenant: None, site: None, class: None, stream: None };

impl Protocol {
    /// Takes an answer for which there is room: what follows from it is in the batch of this read.
    #[cold]
    pub(super) fn command_answer(
        &mut self,
        place: Place<'_>,
        batch: &mut Batch,
        publish: &Publish<'_>,
        to: AnswerTo<'_>,
    ) {
        let Publish { topic, qos, retain, payload, properties, .. } = *publish;
        let device = &**place.session.device();
        let answer = Answer {
            device,
            id: to.id,
            name: to.name,
            topic,
            payload,
            content_type: properties.content_type,
            correlation: properties.correlation_data,
            received_ms: batch.received_ms,
            properties,
        };
        let taken = match place.shared.answers.get() {
            Some(taker) => taker.take(answer, &mut batch.encoded, &mut batch.state),
            None => Taken::Unknown,
        };
        batch.tally.answer(&taken);
        match taken {
            Taken::Here(None) => {}
            Taken::Here(Some(waits)) if batch.owes() => batch.answered.push(waits),
            Taken::Here(Some(waits)) => waits.settled(true),
            Taken::Unknown => {
                batch.store(Stored { device, topic, qos, retain, properties: &properties, payload }, &STATUS);
                batch.count(qos);
            }
            Taken::Malformed if self.version == Version::V5 => {
                self.answer(batch, publish, Reason::PayloadFormatInvalid);
                return;
            }
            Taken::Malformed => {
                self.accept(place, batch, publish, Reason::Success);
                return;
            }
        }
        if retain {
            self.keep(place, batch, publish);
        }
        if !place.shared.router.is_quiet(&mut self.quiet, topic) {
            route(place.shared, batch, &routed(place, publish));
        }
        self.accept(place, batch, publish, Reason::Success);
    }
}
