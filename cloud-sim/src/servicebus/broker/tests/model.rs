//! Random sends, accepts, settlements, expiries and disconnects against a simple model of the rules.
//!
//! The model says what each call must answer and follows the notices; after each step nothing that is due may
//! be left. At the end no message is lost, each has the delivery count of the rules, and every session comes
//! in order. The seed is printed; `PENSTOCK_BROKER_SEED` runs one again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::mpsc;

use super::{
    ABANDON, Accept, ConnectionId, DEFER, LinkId, Lock, Notice, Outcome, Refusal, Rig, START_MS, Wish,
    condition, id, message,
};
use crate::servicebus::config::QueueSpec;

const RUNS: u64 = 60;
const STEPS: usize = 1_500;
const LOCK_MS: u64 = 10_000;
const DELIVERIES_MAX: u32 = 4;
const SESSIONS: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Debug, Default)]
struct Session {
    /// Ids and delivery counts of what is ready, by number.
    ready: BTreeMap<i64, (String, u32)>,
    held: Option<Held>,
}

#[derive(Debug)]
struct Held {
    link: LinkId,
    until_ms: u64,
    in_hand: BTreeMap<i64, (String, u32, Lock)>,
}

struct Model<'a> {
    rig: &'a Rig,
    random: StdRng,
    now_ms: u64,
    sender: mpsc::Sender<Notice>,
    notices: mpsc::Receiver<Notice>,
    connections: Vec<ConnectionId>,
    /// Which connection a link is of, for links that are attached or wait.
    links: BTreeMap<LinkId, ConnectionId>,
    next_link: LinkId,
    sessions: BTreeMap<&'static str, Session>,
    /// Links that wait, in their order, and until when.
    waiting: Vec<(LinkId, u64)>,
    lost: Vec<(LinkId, Lock)>,
    sent: u64,
    completed: BTreeSet<String>,
    dead: BTreeMap<String, u32>,
    deferred: BTreeMap<String, u32>,
}

impl<'a> Model<'a> {
    fn new(rig: &'a Rig, seed: u64) -> Self {
        let (sender, notices) = mpsc::channel(10_000);
        Self {
            rig,
            random: StdRng::seed_from_u64(seed),
            now_ms: START_MS,
            sender,
            notices,
            connections: Vec::new(),
            links: BTreeMap::new(),
            next_link: 1,
            sessions: SESSIONS.iter().map(|name| (*name, Session::default())).collect(),
            waiting: Vec::new(),
            lost: Vec::new(),
            sent: 0,
            completed: BTreeSet::new(),
            dead: BTreeMap::new(),
            deferred: BTreeMap::new(),
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            match self.random.random_range(0..100) {
                0..16 => self.send(),
                16..24 => self.accept(),
                24..30 => self.accept_next(),
                30..58 => self.receive(),
                58..80 => self.settle(),
                80..84 => self.renew(),
                84..88 => self.detach(),
                88..90 => self.disconnect(),
                90..92 => self.settle_what_is_lost(),
                _ => self.pass_time(),
            }
            self.follow();
            self.nothing_is_overdue();
        }
        self.finish();
    }

    fn any_session(&mut self) -> &'static str {
        SESSIONS[self.random.random_range(0..SESSIONS.len())]
    }

    fn connection(&mut self) -> ConnectionId {
        if self.connections.len() < 3 {
            self.connections.push(self.rig.broker.connect(self.sender.clone()));
        }
        self.connections[self.random.random_range(0..self.connections.len())]
    }

    /// A session that is held, and its holder.
    fn any_held(&mut self) -> Option<(&'static str, LinkId)> {
        let held: Vec<_> = self
            .sessions
            .iter()
            .filter_map(|(name, session)| Some((*name, session.held.as_ref()?.link)))
            .collect();
        if held.is_empty() { None } else { Some(held[self.random.random_range(0..held.len())]) }
    }

    fn send(&mut self) {
        let session = self.any_session();
        let ids: Vec<String> =
            (0..self.random.random_range(1..4u64)).map(|more| format!("{}", self.sent + more)).collect();
        let numbers = self.rig.broker.send("q", ids.iter().map(|id| message(session, id)).collect()).unwrap();
        self.sent += u64::try_from(ids.len()).unwrap();
        let ready = &mut self.sessions.get_mut(session).unwrap().ready;
        ready.extend(numbers.into_iter().zip(ids.into_iter().map(|id| (id, 0))));
    }

    fn attach(&mut self, wish: Wish) -> (LinkId, Result<Accept, Refusal>) {
        let (connection, link) = (self.connection(), self.next_link);
        self.next_link += 1;
        let accept = self.rig.broker.attach_receiver(connection, link, "q", wish);
        if accept.is_ok() {
            self.links.insert(link, connection);
        }
        (link, accept)
    }

    fn accept(&mut self) {
        let name = self.any_session();
        let (link, accept) = self.attach(Wish::Session(name.to_owned()));
        let session = self.sessions.get_mut(name).unwrap();
        if session.held.is_some() {
            assert_eq!(condition(accept), Refusal::SESSION_CANNOT_BE_LOCKED);
            return;
        }
        let until_ms = self.now_ms + LOCK_MS;
        let granted = Accept::Granted { session: Some(name.to_owned()), locked_until_ms: Some(until_ms) };
        assert_eq!(accept, Ok(granted));
        session.held = Some(Held { link, until_ms, in_hand: BTreeMap::new() });
    }

    fn accept_next(&mut self) {
        let wait_ms = 1_000 * self.random.random_range(1..8u64);
        let (link, accept) = self.attach(Wish::Next { wait: Duration::from_millis(wait_ms) });
        match accept.unwrap() {
            Accept::Granted { session, locked_until_ms } => {
                self.granted(link, &session.unwrap(), locked_until_ms.unwrap());
            }
            Accept::Waiting => {
                assert!(self.available().is_none(), "{link} waits though there is a session");
                self.waiting.push((link, self.now_ms + wait_ms));
            }
        }
    }

    fn available(&self) -> Option<&'static str> {
        let mut sessions = self.sessions.iter();
        sessions
            .find(|(_, session)| session.held.is_none() && !session.ready.is_empty())
            .map(|(name, _)| *name)
    }

    fn granted(&mut self, link: LinkId, name: &str, until_ms: u64) {
        assert!(until_ms <= self.now_ms + LOCK_MS);
        let session = self.sessions.get_mut(name).unwrap();
        assert!(session.held.is_none(), "{name} is given away twice");
        assert!(!session.ready.is_empty(), "{name} is given away without messages");
        session.held = Some(Held { link, until_ms, in_hand: BTreeMap::new() });
    }

    fn receive(&mut self) {
        let Some((name, link)) = self.any_held() else { return };
        let delivery = self.rig.broker.next(link);
        let session = self.sessions.get_mut(name).unwrap();
        let expected = session.ready.pop_first();
        let held = session.held.as_mut().unwrap();
        match (delivery, expected) {
            (None, None) => {}
            (Some(delivery), Some((number, (expected, count)))) => {
                assert_eq!((id(&delivery), delivery.delivery_count), (expected.as_str(), count));
                assert_eq!((delivery.sequence, delivery.locked_until_ms), (number, held.until_ms));
                held.in_hand.insert(number, (expected, count, delivery.lock));
            }
            (delivery, expected) => panic!("{delivery:?} instead of {expected:?}"),
        }
    }

    fn settle(&mut self) {
        let Some((name, link)) = self.any_held() else { return };
        let session = self.sessions.get_mut(name).unwrap();
        let held = session.held.as_mut().unwrap();
        if held.in_hand.is_empty() {
            return;
        }
        let at = self.random.random_range(0..held.in_hand.len());
        let number = *held.in_hand.keys().nth(at).unwrap();
        let (message, count, lock) = held.in_hand.remove(&number).unwrap();
        let outcome = match self.random.random_range(0..10) {
            0..5 => Outcome::Accepted,
            5 => Outcome::Released,
            6..8 => ABANDON,
            8 => DEFER,
            _ => Outcome::Rejected { reason: Some("r".to_owned()), description: None },
        };
        if self.random.random_bool(0.3) {
            self.rig.broker.update_disposition("q", &[lock], &outcome).unwrap();
        } else {
            self.rig.broker.settle(link, lock, &outcome).unwrap();
        }
        self.lost.push((link, lock));
        match outcome {
            Outcome::Accepted => assert!(self.completed.insert(message), "completed twice"),
            Outcome::Released => {
                session.ready.insert(number, (message, count));
            }
            Outcome::Rejected { .. } => {
                self.dead.insert(message, count);
            }
            Outcome::Modified { undeliverable: true, .. } => {
                self.deferred.insert(message, count);
            }
            Outcome::Modified { .. } => failed(session, &mut self.dead, number, message, count + 1),
        }
    }

    fn settle_what_is_lost(&mut self) {
        for (link, lock) in std::mem::take(&mut self.lost) {
            let refused = condition(self.rig.broker.settle(link, lock, &Outcome::Accepted));
            assert!([Refusal::MESSAGE_LOCK_LOST, Refusal::SESSION_LOCK_LOST].contains(&refused), "{refused}");
            let refused = self.rig.broker.update_disposition("q", &[lock], &Outcome::Accepted);
            assert_eq!(condition(refused), Refusal::MESSAGE_LOCK_LOST);
        }
    }

    fn renew(&mut self) {
        let Some((name, link)) = self.any_held() else { return };
        let until_ms = self.rig.broker.renew_session("q", name, Some(link)).unwrap();
        assert_eq!(until_ms, self.now_ms + LOCK_MS);
        self.sessions.get_mut(name).unwrap().held.as_mut().unwrap().until_ms = until_ms;
    }

    fn detach(&mut self) {
        let all: Vec<LinkId> = self.links.keys().copied().collect();
        if all.is_empty() {
            return;
        }
        let link = all[self.random.random_range(0..all.len())];
        self.gone(link);
        self.rig.broker.detach(link);
    }

    fn disconnect(&mut self) {
        if self.connections.is_empty() {
            return;
        }
        let at = self.random.random_range(0..self.connections.len());
        let connection = self.connections.swap_remove(at);
        let links: Vec<LinkId> =
            self.links.iter().filter(|(_, of)| **of == connection).map(|(link, _)| *link).collect();
        for link in links {
            self.gone(link);
        }
        self.rig.broker.disconnect(connection);
        // What its end gives to its own waiting links comes to nothing.
    }

    /// A link ends: what it holds goes back and does not count.
    fn gone(&mut self, link: LinkId) {
        self.links.remove(&link);
        self.waiting.retain(|(waiting, _)| *waiting != link);
        for session in self.sessions.values_mut() {
            if let Some(held) = session.held.take_if(|held| held.link == link) {
                for (number, (message, count, lock)) in held.in_hand {
                    session.ready.insert(number, (message, count));
                    self.lost.push((link, lock));
                }
            }
        }
    }

    fn pass_time(&mut self) {
        let by = Duration::from_millis(500 * self.random.random_range(1..9u64));
        self.now_ms += u64::try_from(by.as_millis()).unwrap();
        self.rig.broker.advance(by);
    }

    /// Follows what the broker said on its own account.
    fn follow(&mut self) {
        while let Ok(notice) = self.notices.try_recv() {
            match notice {
                Notice::Granted { link, session, locked_until_ms } => {
                    if !self.links.contains_key(&link) {
                        continue;
                    }
                    let (first, _deadline) = self.waiting.remove(0);
                    assert_eq!(link, first, "out of turn");
                    self.granted(link, &session, locked_until_ms);
                }
                Notice::Refused { link, error } => {
                    assert_eq!(error.condition, Refusal::TIMEOUT);
                    let at = self.waiting.iter().position(|(waiting, _)| *waiting == link).unwrap();
                    let (_link, deadline_ms) = self.waiting.remove(at);
                    assert!(deadline_ms <= self.now_ms);
                    self.links.remove(&link);
                }
                Notice::Detach { link, error } => {
                    assert_eq!(error.condition, Refusal::SESSION_LOCK_LOST);
                    self.expired(link);
                    self.rig.broker.detach(link);
                    self.links.remove(&link);
                }
                Notice::Ready { link } => {
                    let held =
                        |session: &Session| session.held.as_ref().is_some_and(|held| held.link == link);
                    assert!(
                        !self.links.contains_key(&link) || self.sessions.values().any(held),
                        "{link} holds nothing"
                    );
                }
                Notice::Disconnect { .. } | Notice::Freeze => panic!("{notice:?}"),
            }
        }
    }

    fn expired(&mut self, link: LinkId) {
        let mut sessions = self.sessions.values_mut();
        let session = sessions.find(|session| session.held.as_ref().is_some_and(|held| held.link == link));
        let Some(session) = session else { panic!("{link} holds nothing") };
        let held = session.held.take().unwrap();
        assert!(held.until_ms <= self.now_ms, "lost before its time");
        for (number, (message, count, lock)) in held.in_hand {
            failed(session, &mut self.dead, number, message, count + 1);
            self.lost.push((link, lock));
        }
    }

    fn nothing_is_overdue(&self) {
        for (name, session) in &self.sessions {
            let overdue = session.held.as_ref().is_some_and(|held| held.until_ms <= self.now_ms);
            assert!(!overdue, "{name} should be lost: {session:?}");
        }
        assert!(self.waiting.iter().all(|(_, deadline_ms)| *deadline_ms > self.now_ms), "{:?}", self.waiting);
        if !self.waiting.is_empty() {
            assert_eq!(self.available(), None, "{:?} wait in vain", self.waiting);
        }
    }

    /// Everything ends: what is left must be what the model has, session by session in order.
    fn finish(&mut self) {
        for connection in std::mem::take(&mut self.connections) {
            self.rig.broker.disconnect(connection);
        }
        let links: Vec<LinkId> = self.links.keys().copied().collect();
        for link in links {
            self.gone(link);
        }
        while self.notices.try_recv().is_ok() {}
        let mut left = 0;
        for name in SESSIONS {
            let (link, _accept) = self.attach(Wish::Session(name.to_owned()));
            let expected: Vec<(String, u32)> = self.sessions[name].ready.values().cloned().collect();
            let got = std::iter::from_fn(|| self.rig.broker.next(link));
            let got: Vec<(String, u32)> =
                got.map(|next| (id(&next).to_owned(), next.delivery_count)).collect();
            assert_eq!(got, expected, "session {name}");
            left += got.len();
        }
        let dead = self.rig.broker.peek("q/$deadletterqueue", 0, 1_000, None).unwrap();
        let dead: BTreeMap<String, u32> =
            dead.iter().map(|dead| (id(dead).to_owned(), dead.delivery_count)).collect();
        assert_eq!(dead, self.dead);
        let view = self.rig.broker.view("q").unwrap();
        assert_eq!(view.settled.completed, u64::try_from(self.completed.len()).unwrap());
        assert_eq!((view.deferred, view.active), (self.deferred.len(), left));
        let all = self.completed.len() + self.dead.len() + self.deferred.len() + left;
        assert_eq!(u64::try_from(all).unwrap(), self.sent, "no message is lost");
        let (messages, hands) = self.rig.broker.with(|state, _now| {
            (state.messages, state.links.values().map(|link| link.in_hand.len()).sum::<usize>())
        });
        assert_eq!((messages, hands), (left + self.dead.len() + self.deferred.len(), left));
    }
}

/// A delivery failed for the `count`th time.
fn failed(session: &mut Session, dead: &mut BTreeMap<String, u32>, number: i64, message: String, count: u32) {
    if count >= DELIVERIES_MAX {
        dead.insert(message, count);
    } else {
        session.ready.insert(number, (message, count));
    }
}

fn run(seed: u64) {
    println!("PENSTOCK_BROKER_SEED={seed}");
    let lock_seconds = Duration::from_millis(LOCK_MS).as_secs_f64();
    let spec =
        QueueSpec { lock_seconds, max_delivery_count: DELIVERIES_MAX, ..QueueSpec::with_sessions("q") };
    let rig = Rig::with(spec);
    Model::new(&rig, seed).run();
}

#[test]
fn no_message_is_lost_and_every_session_stays_in_order() {
    if let Ok(seed) = std::env::var("PENSTOCK_BROKER_SEED") {
        run(seed.parse().unwrap());
        return;
    }
    let first: u64 = rand::random();
    for run_number in 0..RUNS {
        run(first.wrapping_add(run_number));
    }
}
