//! Which devices take commands now.
//!
//! One table for all: it changes when a device connects, subscribes or goes, and is asked once per
//! command.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::mqtt::session::Session;

/// The devices that are present, and the news about them.
#[derive(Debug)]
pub(in crate::mqtt) struct Presence {
    table: Mutex<Table>,
    /// Most devices in the news that need not be present any more.
    news_max: usize,
    told: Notify,
}

#[derive(Debug, Default)]
struct Table {
    devices: HashMap<Arc<str>, Sessions>,
    /// Whose presence may have changed since somebody asked.
    news: HashSet<Arc<str>>,
}

/// The sessions of a device that take its commands: nearly always one.
#[derive(Debug)]
struct Sessions {
    /// The one that gets them.
    first: Arc<Session>,
    others: Vec<Arc<Session>>,
}

// === impl Presence ===

impl Presence {
    /// `connections_max` bounds how many devices are present at once.
    pub(in crate::mqtt) fn new(connections_max: usize) -> Self {
        Self { table: Mutex::default(), news_max: connections_max.saturating_mul(2), told: Notify::new() }
    }

    /// Notes whether a session takes commands. Calls about one session come one after the other.
    pub(in crate::mqtt) fn set(&self, session: &Arc<Session>, takes: bool) {
        let changed = {
            let mut table = self.table.lock();
            let changed = if takes { table.add(session) } else { table.remove(session) };
            if changed {
                table.news.insert(Arc::clone(session.device()));
                table.bound_news(self.news_max);
            }
            changed
        };
        if changed {
            self.told.notify_one();
        }
    }

    /// The session that gets the commands of a device.
    pub(super) fn session(&self, device: &str) -> Option<Arc<Session>> {
        self.table.lock().devices.get(device).map(|sessions| Arc::clone(&sessions.first))
    }

    pub(super) fn contains(&self, device: &str) -> bool {
        self.table.lock().devices.contains_key(device)
    }

    pub(super) fn len(&self) -> usize {
        self.table.lock().devices.len()
    }

    /// Devices whose presence may have changed since the last call; waits until there is one.
    pub(super) async fn changed(&self) -> Vec<Box<str>> {
        loop {
            let news = std::mem::take(&mut self.table.lock().news);
            if !news.is_empty() {
                return news.iter().map(|device| Box::from(&**device)).collect();
            }
            // One that is raised in between is kept.
            self.told.notified().await;
        }
    }
}

impl Table {
    fn add(&mut self, session: &Arc<Session>) -> bool {
        let Some(known) = self.devices.get_mut(session.device()) else {
            let sessions = Sessions { first: Arc::clone(session), others: Vec::new() };
            self.devices.insert(Arc::clone(session.device()), sessions);
            return true;
        };
        if known.contains(session) {
            return false;
        }
        let mut other = Arc::clone(session);
        // The device itself comes before whoever else has its name, and the newest before the rest.
        if session.client() == session.device() || known.first.client() != known.first.device() {
            std::mem::swap(&mut known.first, &mut other);
        }
        known.others.push(other);
        true
    }

    fn remove(&mut self, session: &Arc<Session>) -> bool {
        let Some(known) = self.devices.get_mut(session.device()) else { return false };
        if !known.contains(session) {
            return false;
        }
        if !Arc::ptr_eq(&known.first, session) {
            known.others.retain(|other| !Arc::ptr_eq(other, session));
        } else if let Some(other) = known.others.pop() {
            known.first = other;
        } else {
            self.devices.remove(session.device());
        }
        true
    }

    /// Forgets that devices are gone if nobody asks: whoever sends them something hears of it then.
    fn bound_news(&mut self, most: usize) {
        let Self { devices, news } = self;
        if news.len() > most {
            news.retain(|device| devices.contains_key(device));
        }
    }
}

impl Sessions {
    fn contains(&self, session: &Arc<Session>) -> bool {
        Arc::ptr_eq(&self.first, session) || self.others.iter().any(|other| Arc::ptr_eq(other, session))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::mqtt::session::Client;

    fn session(client: &str, device: &str) -> Arc<Session> {
        let client = Client { id: client.into(), device: device.into(), user: None };
        Arc::new(Session::new(1, client))
    }

    /// The news, if there are any.
    fn news(presence: &Presence) -> Option<Vec<Box<str>>> {
        let mut cx = Context::from_waker(Waker::noop());
        match pin!(presence.changed()).poll(&mut cx) {
            Poll::Ready(mut news) => {
                news.sort_unstable();
                Some(news)
            }
            Poll::Pending => None,
        }
    }

    #[test]
    fn news_are_told_once_and_nothing_is_no_news() {
        let presence = Presence::new(10);
        let (one, two) = (session("a", "a"), session("b", "b"));
        assert_eq!(news(&presence), None);
        presence.set(&one, true);
        presence.set(&two, true);
        presence.set(&two, true);
        assert_eq!(news(&presence), Some(vec!["a".into(), "b".into()]));
        presence.set(&two, true);
        presence.set(&session("c", "c"), false);
        assert_eq!(news(&presence), None);
        presence.set(&two, false);
        presence.set(&two, true);
        assert_eq!(news(&presence), Some(vec!["b".into()]), "it was away");
        assert!(presence.contains("b") && presence.len() == 2);
    }

    #[tokio::test]
    async fn who_waits_for_news_is_woken() {
        let presence = Arc::new(Presence::new(10));
        let one = session("a", "a");
        let mut waiting = pin!(presence.changed());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        presence.set(&one, true);
        assert_eq!(waiting.await, [Box::from("a")]);
    }

    #[test]
    fn the_device_itself_gets_its_commands_and_else_the_newest() {
        let presence = Presence::new(10);
        let [panel, own, tool] = ["panel", "d", "tool"].map(|client| session(client, "d"));
        let check = |expected: Option<&Arc<Session>>| {
            let first = presence.session("d");
            assert_eq!(first.as_ref().map(|one| one.client()), expected.map(|one| one.client()));
        };
        presence.set(&panel, true);
        check(Some(&panel));
        presence.set(&tool, true);
        check(Some(&tool));
        presence.set(&own, true);
        check(Some(&own));
        presence.set(&panel, false);
        presence.set(&own, false);
        check(Some(&tool));
        assert_eq!(presence.len(), 1);
        presence.set(&tool, false);
        check(None);
        assert_eq!(presence.len(), 0);
    }

    #[test]
    fn news_that_nobody_asks_for_do_not_fill_the_memory() {
        let presence = Presence::new(5);
        let stays = session("stays", "stays");
        presence.set(&stays, true);
        for number in 0..1000 {
            let passing = session("passing", &format!("d{number}"));
            presence.set(&passing, true);
            presence.set(&passing, false);
        }
        let told = news(&presence).expect("some news");
        assert!(told.len() <= 11 && told.contains(&"stays".into()), "{}", told.len());
    }
}
