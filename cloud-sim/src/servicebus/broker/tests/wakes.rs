//! Receivers of a plain queue that come, go, and get and lose credit at random: no message waits while somebody
//! with credit waits too. The seed is printed; `PENSTOCK_BROKER_SEED` runs one again.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{ABANDON, Client, LinkId, Lock, Notice, Outcome, Rig};
use crate::servicebus::broker::Fault;
use crate::servicebus::config::QueueSpec;

const RUNS: u64 = 60;
const STEPS: usize = 1_000;

/// A receiver.
#[derive(Debug, Default)]
struct Receiver {
    credit: u32,
    in_hand: Vec<Lock>,
    /// It had credit and was given nothing.
    starved: bool,
}

struct Wire<'a> {
    client: Client<'a>,
    receivers: BTreeMap<LinkId, Receiver>,
    random: StdRng,
    /// Sent, and neither completed nor in somebody's hands.
    ready: usize,
}

impl Wire<'_> {
    fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..5 if self.receivers.len() < 6 => {
                let link = self.client.plain("q");
                self.receivers.insert(link, Receiver::default());
            }
            0..10 => self.detach(),
            10..22 => {
                let count = self.random.random_range(1..3usize);
                self.client.rig.send_plain(&["m"].repeat(count));
                self.ready += count;
            }
            22..50 => self.credit(),
            50..62 => self.drain(),
            62..65 => self.expire(),
            _ => self.settle(),
        }
        self.follow();
        let starved: Vec<_> = self.receivers.iter().filter(|(_, receiver)| receiver.starved).collect();
        assert!(self.ready == 0 || starved.is_empty(), "{} messages wait for {starved:?}", self.ready);
    }

    fn any(&mut self) -> Option<LinkId> {
        let all: Vec<LinkId> = self.receivers.keys().copied().collect();
        if all.is_empty() { None } else { Some(all[self.random.random_range(0..all.len())]) }
    }

    /// What the wire does with a link that has credit.
    fn pump(&mut self, link: LinkId) {
        let receiver = self.receivers.get_mut(&link).unwrap();
        receiver.starved = false;
        while receiver.credit > 0 {
            let Some(delivery) = self.client.rig.broker.next(link) else {
                receiver.starved = true;
                return;
            };
            receiver.credit -= 1;
            receiver.in_hand.push(delivery.lock);
            self.ready -= 1;
        }
    }

    fn credit(&mut self) {
        let Some(link) = self.any() else { return };
        self.receivers.get_mut(&link).unwrap().credit += self.random.random_range(1..3u32);
        self.pump(link);
    }

    /// The client takes its credit back.
    fn drain(&mut self) {
        let Some(link) = self.any() else { return };
        let receiver = self.receivers.get_mut(&link).unwrap();
        (receiver.credit, receiver.starved) = (0, false);
        // Only the wire knows; a notice may be on its way.
        if self.random.random_bool(0.5) {
            self.client.rig.broker.pass(link);
        }
    }

    fn detach(&mut self) {
        let Some(link) = self.any() else { return };
        let receiver = self.receivers.remove(&link).unwrap();
        self.ready += receiver.in_hand.len();
        self.client.rig.broker.detach(link);
    }

    fn settle(&mut self) {
        let Some(link) = self.any() else { return };
        let receiver = self.receivers.get_mut(&link).unwrap();
        let Some(lock) = receiver.in_hand.pop() else { return };
        let completed = self.random.random_bool(0.7);
        let outcome = if completed { Outcome::Accepted } else { ABANDON };
        self.client.rig.broker.settle(link, lock, &outcome).unwrap();
        self.ready += usize::from(!completed);
    }

    /// All locks expire.
    fn expire(&mut self) {
        self.client.rig.seconds(60);
        for receiver in self.receivers.values_mut() {
            self.ready += receiver.in_hand.len();
            receiver.in_hand.clear();
        }
    }

    fn follow(&mut self) {
        while let Ok(notice) = self.client.notices.try_recv() {
            let Notice::Ready { link } = notice else { panic!("{notice:?}") };
            match self.receivers.get(&link).map(|receiver| receiver.credit) {
                None => {}
                Some(0) => self.client.rig.broker.pass(link),
                Some(_) => self.pump(link),
            }
        }
    }
}

fn run(seed: u64) {
    println!("PENSTOCK_BROKER_SEED={seed}");
    let rig = Rig::with(QueueSpec { max_delivery_count: 2_000, ..QueueSpec::new("q") });
    rig.broker.order(Fault::IdleDetach { ms: 1 << 40 }).unwrap();
    let random = StdRng::seed_from_u64(seed);
    let mut wire = Wire { client: rig.connect(), receivers: BTreeMap::new(), random, ready: 0 };
    for _ in 0..STEPS {
        wire.step();
    }
    let view = rig.broker.view("q").unwrap();
    assert_eq!(view.active - view.locked, wire.ready);
}

#[test]
fn no_message_waits_while_a_receiver_with_credit_waits() {
    if let Ok(seed) = std::env::var("PENSTOCK_BROKER_SEED") {
        run(seed.parse().unwrap());
        return;
    }
    let first: u64 = rand::random();
    for run_number in 0..RUNS {
        run(first.wrapping_add(run_number));
    }
}
