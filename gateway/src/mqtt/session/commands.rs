//! What a session has to do with commands of its device.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Session;
use crate::mqtt::codec::{Version, filter_matches};
use crate::mqtt::devices::{CommandTopic, Fate, NotDelivered};
use crate::mqtt::link::{Link, Signal};
use crate::mqtt::message::Message;
use crate::mqtt::outgoing::Ids;

impl Session {
    /// Whether it gets the commands of its device: it has a connection, and a subscription of its own that
    /// matches all of them at a quality of service that acknowledges.
    pub(in crate::mqtt) fn takes_commands(&self, topic: &CommandTopic) -> bool {
        let state = self.state.lock();
        let mut asked = state.subscriptions.iter().filter(|one| one.options.qos > 0);
        state.link.is_some()
            && !state.ended
            && asked.any(|one| topic.is_heard_through(&one.filter, &self.device))
    }

    /// Its connection, and the version that it speaks.
    pub(in crate::mqtt) fn line(&self) -> Option<(Arc<Link>, Version)> {
        let state = self.state.lock();
        Some((state.link.clone()?, state.outgoing.version()))
    }

    /// Takes a command in for the connection `link`, if that is still there; its packet may have `bytes_max`
    /// bytes. Returns its place in the queue, and where is told what becomes of it.
    pub(in crate::mqtt) fn command(
        &self,
        link: &Arc<Link>,
        message: Arc<Message>,
        bytes_max: usize,
        now_ms: u64,
    ) -> Result<(u64, oneshot::Receiver<Fate>), NotDelivered> {
        let taken = {
            let mut state = self.state.lock();
            let state = &mut *state;
            if state.ended || !state.link.as_ref().is_some_and(|known| Arc::ptr_eq(known, link)) {
                return Err(NotDelivered::Absent);
            }
            let mut ids = Ids::None;
            let mut granted = false;
            for one in state.subscriptions.iter().filter(|one| filter_matches(&one.filter, message.topic())) {
                ids.push(one.options.id);
                granted |= one.options.qos > 0;
            }
            if !granted {
                return Err(NotDelivered::Absent);
            }
            let (bytes, told) = state.outgoing.command_bytes(&message, &ids, now_ms);
            let most = told.min(bytes_max);
            if bytes > most {
                return Err(NotDelivered::TooLarge { bytes, most });
            }
            state.outgoing.command(message, ids).map_err(|_| NotDelivered::Full)?
        };
        link.raise(Signal::Delivery);
        Ok(taken)
    }

    /// Nobody waits for the command at this place any more.
    pub(in crate::mqtt) fn withdraw(&self, order: u64) {
        let fates = {
            let mut state = self.state.lock();
            state.outgoing.withdraw(order);
            state.outgoing.take_fates()
        };
        fates.tell();
    }
}
