//! What operators may ask of the uplink while it runs: a cap on what it uses, and topics to pause.
//!
//! Both are about lanes `telemetry` and `bulk` only. A **cap** is one more limit of the pacing. A **pause** holds a topic
//! by an operator's word: its entries are passed over and read again when the pause ends, exactly as those of a topic
//! that the service refuses (`topics.rs`). So devices are acknowledged as ever, their order stays, and each record
//! still names the one before it in its partition.
//!
//! **Why a topic and not any stream:** entries of all streams that go to one partition form one chain, whose progress
//! is a single position (`tracker/`). Holding one stream of a topic back and letting the others pass would either lose
//! track of what was sent or break the chain that proves that nothing is missing. A stream can be paused if it has topics
//! of its own ([`Routes::select`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use penstock_proto::Lane;

use super::route::{Route, Routes};
use super::service::{LANES, Worker};
use super::tracker::TopicId;

/// The lanes that operators may hold back.
pub(super) const PACED: [Lane; 2] = [Lane::Telemetry, Lane::Bulk];

/// What operators ask for at one moment; nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Most bytes of lanes `telemetry` and `bulk` per second, as they are before the client library compresses and
    /// encrypts them; packed records count as they are packed.
    pub cap_bytes_per_second: Option<u64>,
    /// Topics that get nothing of these lanes.
    pub paused_topics: Vec<String>,
}

/// What a pause is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection<'a> {
    /// What topic templates capture as `{stream}`.
    Stream(&'a str),
    /// An event hub by its name.
    Topic(&'a str),
}

/// Why a selection cannot be paused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unselectable {
    /// No route leads there.
    #[error("no route of this gateway sends telemetry to the event hub {0:?}")]
    UnknownTopic(String),
    /// Its entries share a topic, and so a chain, with others.
    #[error(
        "stream {stream:?} shares the event hub {topic:?} with other messages: give it an event hub of its own in [[uplink.route]], or pause the event hub"
    )]
    Shared {
        /// The stream asked for.
        stream: String,
        /// The topic that others use too.
        topic: String,
    },
}

/// The wishes as the uplink's thread finds them.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Grows with every change.
    changes: AtomicU64,
    wishes: Mutex<Wishes>,
}

// === impl Shared ===

impl Shared {
    pub(super) fn get(&self) -> Wishes {
        self.wishes.lock().clone()
    }

    pub(super) fn set(&self, wishes: Wishes) {
        let mut known = self.wishes.lock();
        if *known != wishes {
            *known = wishes;
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    pub(super) fn news(&self, seen: &mut u64) -> Option<Wishes> {
        let changes = self.changes.load(Ordering::Acquire);
        (std::mem::replace(seen, changes) != changes).then(|| self.get())
    }
}

// === impl Worker ===

impl Worker {
    /// Does as operators ask, if that has changed.
    #[expect(clippy::cast_precision_loss, reason = "gauges are floats; exact up to 2^53")]
    pub(super) fn look_at_wishes(&mut self, now: Instant) {
        let Some(wishes) = self.handle.news(&mut self.wishes_seen) else { return };
        self.pace.set_cap(now, wishes.cap_bytes_per_second);
        let is_paused = |topic: &String| wishes.paused_topics.contains(topic);
        let paused: Vec<bool> = self.routes.topics().iter().map(is_paused).collect();
        let before = std::mem::replace(&mut self.paused, paused);
        for (place, was_paused) in before.into_iter().enumerate() {
            if was_paused && !self.paused[place] {
                self.resume(place);
            }
        }
        let count = self.paused.iter().filter(|paused| **paused).count();
        tracing::info!(
            cap_bytes_per_second = wishes.cap_bytes_per_second,
            paused = ?wishes.paused_topics,
            "the uplink does as operators ask"
        );
        self.metrics.cap.set(wishes.cap_bytes_per_second.unwrap_or(0) as f64);
        self.metrics.paused.set(count as f64);
    }

    /// Goes back to what was passed over. A topic that the service holds as well stays so.
    fn resume(&mut self, place: usize) {
        let Ok(topic) = u16::try_from(place).map(TopicId) else { return };
        for (lane, feed) in LANES.iter().zip(&mut self.lanes) {
            if PACED.contains(lane) {
                feed.tracker.release(topic);
            }
        }
    }
}

// === impl Routes ===

/// Whose entries are followed through the routes.
#[derive(Clone, Copy)]
enum Whose<'a> {
    Of(&'a str),
    AllBut(&'a str),
    All,
}

impl Whose<'_> {
    /// Whether some of them may match a route's stream.
    fn may_match(self, wanted: Option<&str>) -> bool {
        match (self, wanted) {
            (Self::Of(stream), Some(wanted)) => stream == wanted,
            (Self::AllBut(stream), Some(wanted)) => stream != wanted,
            (_, None) | (Self::All, _) => true,
        }
    }

    /// Whether all of them do.
    fn all_match(self, wanted: Option<&str>) -> bool {
        wanted.is_none() || matches!((self, wanted), (Self::Of(stream), Some(wanted)) if stream == wanted)
    }
}

impl Routes {
    /// The topics that a pause of `selection` stops.
    pub(super) fn select(&self, selection: Selection<'_>) -> Result<Vec<String>, Unselectable> {
        match selection {
            Selection::Topic(name) => {
                let used = self.reached(Whose::All).iter().any(|topic| topic == name);
                let unknown = || Unselectable::UnknownTopic(name.to_owned());
                if used { Ok(vec![name.to_owned()]) } else { Err(unknown()) }
            }
            Selection::Stream(stream) => {
                let (topics, others) = (self.reached(Whose::Of(stream)), self.reached(Whose::AllBut(stream)));
                match topics.iter().find(|topic| others.contains(topic)) {
                    None => Ok(topics),
                    Some(topic) => {
                        Err(Unselectable::Shared { stream: stream.to_owned(), topic: topic.clone() })
                    }
                }
            }
        }
    }

    /// The topics that entries of the lanes that can be held back may go to, each once.
    fn reached(&self, whose: Whose<'_>) -> Vec<String> {
        let mut topics: Vec<String> = Vec::new();
        let mut add = |topic: TopicId| {
            let name = self.name(topic);
            if !topics.iter().any(|known| known == name) {
                topics.push(name.to_owned());
            }
        };
        for lane in PACED {
            let matching = |route: &Route| {
                route.lane.is_none_or(|wanted| wanted == lane) && whose.may_match(route.stream.as_deref())
            };
            let mut default = true;
            for (route, topic) in self.routes().iter().filter(|(route, _)| matching(route)) {
                add(*topic);
                if route.class.is_none() && route.tenant.is_none() && whose.all_match(route.stream.as_deref())
                {
                    default = false;
                    break;
                }
            }
            if default {
                add(TopicId(0));
            }
        }
        topics
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(stream: Option<&str>, class: Option<&str>, lane: Option<Lane>, topic: &str) -> Route {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Route { lane, stream: text(stream), class: text(class), tenant: None, topic: topic.to_owned() }
    }

    fn check(routes: &[Route], selection: Selection<'_>, expected: Result<&[&str], &str>) {
        let found = Routes::new("telemetry", routes).select(selection);
        match (&found, expected) {
            (Ok(topics), Ok(wanted)) => assert_eq!(topics, wanted, "{selection:?}"),
            (Err(Unselectable::Shared { topic, .. } | Unselectable::UnknownTopic(topic)), Err(wanted)) => {
                assert_eq!(topic, wanted, "{selection:?}");
            }
            _ => panic!("{selection:?} of {routes:?}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_stream_with_an_event_hub_of_its_own_can_be_paused() {
        let own = [route(Some("vibration"), None, None, "vib")];
        check(&own, Selection::Stream("vibration"), Ok(&["vib"]));
        check(&own, Selection::Stream("sound"), Err("telemetry"));
        check(&[], Selection::Stream("vibration"), Err("telemetry"));
        let by_class = [
            route(Some("vibration"), Some("pump"), None, "pumps"),
            route(Some("vibration"), None, None, "vib"),
        ];
        check(&by_class, Selection::Stream("vibration"), Ok(&["pumps", "vib"]));
    }

    #[test]
    fn a_stream_that_shares_an_event_hub_cannot() {
        let rest = [route(Some("vibration"), Some("pump"), None, "pumps")];
        check(&rest, Selection::Stream("vibration"), Err("telemetry"));
        let two = [route(Some("vibration"), None, None, "fast"), route(Some("sound"), None, None, "fast")];
        check(&two, Selection::Stream("vibration"), Err("fast"));
        let telemetry_only = [route(Some("vibration"), None, Some(Lane::Telemetry), "vib")];
        check(&telemetry_only, Selection::Stream("vibration"), Err("telemetry"));
        let class_first =
            [route(None, Some("pump"), None, "pumps"), route(Some("vibration"), None, None, "vib")];
        check(&class_first, Selection::Stream("vibration"), Err("pumps"));
    }

    #[test]
    fn an_event_hub_can_be_paused_if_telemetry_goes_there() {
        let routes = [route(None, None, Some(Lane::Alerts), "alerts"), route(None, None, None, "all")];
        check(&routes, Selection::Topic("all"), Ok(&["all"]));
        check(&routes, Selection::Topic("alerts"), Err("alerts"));
        check(&routes, Selection::Topic("telemetry"), Err("telemetry"));
        check(&[], Selection::Topic("telemetry"), Ok(&["telemetry"]));
        check(&[], Selection::Topic("elsewhere"), Err("elsewhere"));
    }

    #[test]
    fn wishes_are_news_once() {
        let (shared, mut seen) = (Shared::default(), 0);
        assert_eq!(shared.news(&mut seen), None);
        let cap = Wishes { cap_bytes_per_second: Some(7), ..Wishes::default() };
        shared.set(cap.clone());
        shared.set(cap.clone());
        assert_eq!((shared.news(&mut seen), shared.news(&mut seen)), (Some(cap), None));
    }
}
