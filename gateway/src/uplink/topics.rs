//! Which topics take records now.
//!
//! A topic is *unknown* until its partition count was read in this session, *known* until what may have
//! arrived unheard is looked up, and *held* while the service refuses it. Entries of a held topic are passed
//! over, and sent in their order when it takes records again; a lane waits at an entry whose topic is unknown.

use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::failure::{Disposition, Failure};
use super::status::Held;
use super::tracker::TopicId;

/// How soon an unreachable service is asked for a topic again.
const ASK_INTERVAL: Duration = Duration::from_millis(500);
/// How often a topic that takes records is asked how many partitions it has.
const REFRESH_INTERVAL: Duration = Duration::from_secs(180);

/// The topics of the routes, in the order of their numbers.
#[derive(Debug)]
pub(crate) struct Topics(Vec<Topic>);

#[derive(Debug)]
struct Topic {
    name: String,
    state: State,
    backoff: Backoff,
}

#[derive(Debug)]
enum State {
    /// The partition count must be read before anything is sent.
    Unknown { ask_at: Option<Instant>, reason: String },
    /// Refused; asked again at that time.
    Held { until: Instant, reason: String },
    /// The partition count is there; whether something of it arrived unheard is not.
    Known,
    /// Takes records. Its partitions are counted again at that time.
    Ready { ask_at: Instant },
}

/// Whether a topic takes records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    /// Not for a while: others need not wait.
    Held,
    /// That will be known soon.
    Unknown,
}

impl Topics {
    pub(crate) fn new(names: &[String]) -> Self {
        let topic = |name: &String| {
            let state = State::Unknown { ask_at: None, reason: String::new() };
            Topic { name: name.clone(), state, backoff: Backoff::default() }
        };
        Self(names.iter().map(topic).collect())
    }

    /// A new session: what was ready is asked again, what is held stays held.
    pub(crate) fn restart(&mut self) {
        for topic in &mut self.0 {
            if !matches!(topic.state, State::Held { .. }) {
                topic.state = State::Unknown { ask_at: None, reason: String::new() };
            }
        }
    }

    pub(crate) fn readiness(&self, id: TopicId) -> Readiness {
        match self.get(id).map(|topic| &topic.state) {
            Some(State::Ready { .. }) => Readiness::Ready,
            Some(State::Held { .. }) => Readiness::Held,
            _ => Readiness::Unknown,
        }
    }

    /// Topics of which is known how many partitions they have, and not more.
    pub(crate) fn known(&self) -> Vec<TopicId> {
        let known = self.0.iter().enumerate().filter(|(_, topic)| matches!(topic.state, State::Known));
        known.filter_map(|(place, _)| u16::try_from(place).ok()).map(TopicId).collect()
    }

    /// A topic whose partition count should be read now.
    pub(crate) fn due(&self, now: Instant) -> Option<TopicId> {
        let due = |topic: &Topic| match &topic.state {
            State::Unknown { ask_at, .. } => ask_at.is_none_or(|at| at <= now),
            State::Held { until, .. } => *until <= now,
            State::Ready { ask_at } => *ask_at <= now,
            State::Known => false,
        };
        let place = self.0.iter().position(due)?;
        u16::try_from(place).ok().map(TopicId)
    }

    /// The topic's partitions are known. One that takes records already goes on.
    pub(crate) fn set_known(&mut self, id: TopicId, now: Instant) {
        if let Some(topic) = self.get_mut(id) {
            topic.state = match topic.state {
                State::Ready { .. } => State::Ready { ask_at: now + REFRESH_INTERVAL },
                _ => State::Known,
            };
        }
    }

    /// The topic's partitions could not be counted. One that takes records goes on: if something is wrong with
    /// it, its records will tell.
    pub(crate) fn refused(&mut self, id: TopicId, failure: &Failure, now: Instant) {
        match self.get_mut(id).map(|topic| &mut topic.state) {
            Some(State::Ready { ask_at }) => *ask_at = now + REFRESH_INTERVAL,
            _ => self.fail(id, failure, now),
        }
    }

    /// Nothing is unknown about the topic. What was held is tried; only a confirmation ends its pauses.
    pub(crate) fn ready(&mut self, id: TopicId, now: Instant) {
        if let Some(topic) = self.get_mut(id) {
            topic.state = State::Ready { ask_at: now + REFRESH_INTERVAL };
        }
    }

    /// The topic or a record of it was refused, or its partitions could not be read.
    pub(crate) fn fail(&mut self, id: TopicId, failure: &Failure, now: Instant) {
        let Some(topic) = self.get_mut(id) else { return };
        let reason = failure.reason.clone();
        topic.state = if failure.disposition >= Disposition::Hold {
            tracing::warn!(topic = topic.name, reason, "topic is held");
            State::Held { until: topic.backoff.fail(now), reason }
        } else {
            State::Unknown { ask_at: Some(now + ASK_INTERVAL), reason }
        };
    }

    /// A record of the topic was confirmed.
    pub(crate) fn confirmed(&mut self, id: TopicId) {
        if let Some(topic) = self.get_mut(id) {
            topic.backoff.succeed();
        }
    }

    /// Topics that the service refuses.
    pub(crate) fn held(&self) -> Vec<Held> {
        let held = self.0.iter().filter_map(|topic| match &topic.state {
            State::Held { reason, .. } => Some(Held { topic: topic.name.clone(), reason: reason.clone() }),
            _ => None,
        });
        held.collect()
    }

    /// How many topics could not be asked for their partitions yet.
    pub(crate) fn unreachable(&self) -> usize {
        let waiting =
            |topic: &&Topic| matches!(&topic.state, State::Unknown { reason, .. } if !reason.is_empty());
        self.0.iter().filter(waiting).count()
    }

    fn get(&self, id: TopicId) -> Option<&Topic> {
        self.0.get(usize::from(id.0))
    }

    fn get_mut(&mut self, id: TopicId) -> Option<&mut Topic> {
        self.0.get_mut(usize::from(id.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervise::clock;

    fn refused() -> Failure {
        Failure { disposition: Disposition::Hold, reason: "TopicAuthorizationFailed".into() }
    }

    #[test]
    fn a_held_topic_is_asked_again_with_growing_pauses_and_others_flow() {
        let now = clock::now();
        let (bad, good) = (TopicId(0), TopicId(1));
        let mut topics = Topics::new(&["bad".into(), "good".into()]);
        assert_eq!(topics.due(now), Some(bad));
        topics.fail(bad, &refused(), now);
        assert_eq!(topics.due(now), Some(good));
        topics.ready(good, now);
        assert_eq!((topics.due(now), topics.readiness(good)), (None, Readiness::Ready));
        assert_eq!(topics.held(), [Held { topic: "bad".into(), reason: "TopicAuthorizationFailed".into() }]);

        let first = now + Duration::from_millis(100);
        assert_eq!(topics.due(first), Some(bad));
        topics.ready(bad, now);
        topics.fail(bad, &refused(), first);
        assert_eq!(topics.due(first + Duration::from_millis(199)), None, "no confirmation came in between");
        assert_eq!(topics.due(first + Duration::from_millis(200)), Some(bad));

        topics.ready(bad, now);
        topics.confirmed(bad);
        topics.fail(bad, &refused(), first);
        assert_eq!(topics.due(first + Duration::from_millis(100)), Some(bad));
    }

    #[test]
    fn a_new_session_asks_again_but_not_before_a_hold_ends() {
        let now = clock::now();
        let mut topics = Topics::new(&["a".into(), "b".into()]);
        topics.ready(TopicId(0), now);
        topics.fail(TopicId(1), &refused(), now);
        topics.restart();
        assert_eq!(topics.readiness(TopicId(0)), Readiness::Unknown);
        assert_eq!(topics.readiness(TopicId(1)), Readiness::Held);
        assert_eq!(topics.due(now), Some(TopicId(0)));
        topics.set_known(TopicId(0), now);
        assert_eq!((topics.due(now), topics.known()), (None, vec![TopicId(0)]));
        assert_eq!(topics.readiness(TopicId(0)), Readiness::Unknown);
        topics.ready(TopicId(0), now);
        assert_eq!((topics.known(), topics.readiness(TopicId(0))), (Vec::new(), Readiness::Ready));
    }

    #[test]
    fn a_topic_that_takes_records_goes_on_whatever_the_count_brings() {
        let now = clock::now();
        let id = TopicId(0);
        let mut topics = Topics::new(&["a".into()]);
        topics.ready(id, now);
        let later = now + REFRESH_INTERVAL;
        assert_eq!((topics.due(later - Duration::from_secs(1)), topics.due(later)), (None, Some(id)));
        topics.refused(id, &refused(), later);
        assert_eq!((topics.readiness(id), topics.due(later)), (Readiness::Ready, None));
        topics.set_known(id, later);
        assert_eq!(topics.readiness(id), Readiness::Ready);
    }

    #[test]
    fn an_unreachable_service_is_no_refusal() {
        let now = clock::now();
        let mut topics = Topics::new(&["a".into()]);
        let failure = Failure { disposition: Disposition::Retry, reason: "OperationTimedOut".into() };
        topics.fail(TopicId(0), &failure, now);
        assert_eq!((topics.held().len(), topics.unreachable()), (0, 1));
        topics.ready(TopicId(0), now);
        assert_eq!(topics.unreachable(), 0);
    }
}
