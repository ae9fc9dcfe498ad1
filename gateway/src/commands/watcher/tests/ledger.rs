//! The ledger by itself: whatever comes, goes and fails, each letter is told of once.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use crate::commands::watcher::ledger::{Found, Ledger, Seen, Turn};
use crate::commands::watcher::mark::Mark;

/// A dead-letter queue, the store, and what was told.
#[derive(Debug, Default)]
struct World {
    /// By sequence number; own letters are those of gateways.
    queue: BTreeMap<i64, Seen>,
    /// Letters are told apart by when they were enqueued.
    enqueued: u64,
    stored: BTreeSet<Mark>,
    told: Vec<Mark>,
    ledger: Ledger,
}

#[derive(Debug, Clone, Copy)]
enum Commit {
    Done,
    /// It failed, and nothing of it is there.
    Lost,
    /// It failed, and is there all the same.
    Kept,
}

#[derive(Debug, Clone)]
enum Action {
    /// A message is dead-lettered, below or above those that are there.
    Bury {
        sequence: i64,
        own: bool,
    },
    /// Somebody takes a letter out.
    Take(usize),
    /// A page comes, with at most so many letters.
    Page(usize, Commit),
    Restart,
    /// The queue is deleted and made again: sequence numbers begin again.
    Remake,
}

impl World {
    fn bury(&mut self, sequence: i64, own: bool) {
        self.enqueued += 1;
        let mark = Mark::new(sequence, self.enqueued);
        self.queue.entry(sequence).or_insert(Seen { mark, sequence, own });
    }

    fn restart(&mut self) {
        self.ledger = Ledger::new(self.stored.iter().copied());
    }

    /// Takes a page and says what came of a look, if it is over.
    fn page(&mut self, most: usize, commit: Commit) -> Option<Found> {
        let (from, count) = self.ledger.due();
        let most = most.min(usize::try_from(count).unwrap());
        let page: Vec<Seen> = self.queue.range(from..).map(|(_, seen)| *seen).take(most).collect();
        match self.ledger.page(&page, 0, 100) {
            Turn::Page(new) => {
                let marks: Vec<Mark> = new.iter().map(|place| page[*place].mark).collect();
                if !matches!(commit, Commit::Lost) {
                    self.stored.extend(&marks);
                    self.told.extend(&marks);
                }
                match commit {
                    Commit::Done => marks.iter().for_each(|mark| self.ledger.told(*mark)),
                    Commit::Lost | Commit::Kept => self.restart(),
                }
                None
            }
            Turn::Over { whole, found, gone } => {
                assert!(whole);
                gone.iter().for_each(|mark| assert!(self.stored.remove(mark)));
                Some(found)
            }
        }
    }

    fn look(&mut self) -> Found {
        loop {
            if let Some(found) = self.page(3, Commit::Done) {
                return found;
            }
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Bury { sequence, own } => self.bury(*sequence, *own),
            Action::Take(place) => {
                let sequence = self.queue.keys().nth(*place).copied();
                sequence.and_then(|sequence| self.queue.remove(&sequence));
            }
            Action::Page(most, commit) => drop(self.page(*most, *commit)),
            Action::Restart => self.restart(),
            Action::Remake => self.queue.clear(),
        }
        let once: BTreeSet<_> = self.told.iter().collect();
        assert_eq!(once.len(), self.told.len(), "told twice");
    }

    fn present(&self) -> BTreeSet<Mark> {
        self.queue.values().filter(|seen| !seen.own).map(|seen| seen.mark).collect()
    }
}

fn commit() -> impl Strategy<Value = Commit> {
    prop_oneof![4 => Just(Commit::Done), 1 => Just(Commit::Lost), 1 => Just(Commit::Kept)]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0_i64..30, prop::bool::weighted(0.2)).prop_map(|(sequence, own)| Action::Bury { sequence, own }),
        2 => (0_usize..10).prop_map(Action::Take),
        8 => (1_usize..5, commit()).prop_map(|(most, commit)| Action::Page(most, commit)),
        1 => Just(Action::Restart),
        1 => Just(Action::Remake),
    ]
}

proptest! {
    #[test]
    fn every_letter_that_stays_is_told_of_once_whatever_comes_between(
        actions in prop::collection::vec(action(), 0..80),
    ) {
        let mut world = World::default();
        actions.iter().for_each(|action| world.act(action));
        // From wherever that look stood, the one after it sees everything.
        world.look();
        let found = world.look();
        let present = world.present();
        let told: BTreeSet<_> = world.told.iter().copied().collect();
        prop_assert!(present.is_subset(&told));
        prop_assert_eq!(told.len(), world.told.len());
        let own = world.queue.len() - present.len();
        prop_assert_eq!((found.told, found.own), (present.len() as u64, own as u64));
        // What is gone is forgotten, in memory and in the store.
        for _ in 0..3 {
            world.look();
        }
        prop_assert_eq!(&world.stored, &present);
        prop_assert_eq!(world.ledger.len(), present.len());
    }
}

#[test]
fn an_old_message_below_newer_letters_is_found() {
    let mut world = World::default();
    world.bury(50, false);
    world.look();
    world.bury(7, false);
    world.look();
    assert_eq!(world.told, [Mark::new(50, 1), Mark::new(7, 2)]);
}

#[test]
fn a_letter_that_two_looks_leave_out_is_not_told_again() {
    let mut world = World::default();
    world.bury(1, false);
    world.look();
    let letter = world.queue.remove(&1).unwrap();
    world.look();
    world.look();
    world.queue.insert(1, letter);
    world.look();
    assert_eq!(world.told.len(), 1);
    world.queue.clear();
    for _ in 0..3 {
        world.look();
    }
    assert_eq!(world.ledger.len(), 0, "three looks later nobody will ask");
}

#[test]
fn a_queue_made_again_has_other_letters_under_the_same_numbers() {
    let mut world = World::default();
    world.bury(1, false);
    world.look();
    world.queue.clear();
    world.bury(1, false);
    world.look();
    assert_eq!(world.told, [Mark::new(1, 1), Mark::new(1, 2)]);
}

#[test]
fn what_does_not_say_where_to_go_on_ends_the_look_and_nothing_is_forgotten() {
    let mut ledger = Ledger::new([Mark::new(1, 1)]);
    for _ in 0..5 {
        let turn = ledger.page(&[], 3, 0);
        let Turn::Over { whole: false, found, gone } = turn else { panic!("{turn:?}") };
        assert_eq!((found.unreadable, gone.len()), (3, 0));
    }
    // A number below the one that was asked for, again and again.
    let seen = Seen { mark: Mark::new(-5, 1), sequence: -5, own: false };
    assert_eq!(ledger.page(&[seen], 0, 0), Turn::Page(vec![0]));
    ledger.told(seen.mark);
    let turn = ledger.page(&[seen], 0, 0);
    assert!(matches!(turn, Turn::Over { whole: false, .. }), "{turn:?}");
}

#[test]
fn a_letter_that_is_twice_on_a_page_is_told_of_once() {
    let seen = Seen { mark: Mark::new(1, 1), sequence: 1, own: false };
    assert_eq!(Ledger::default().page(&[seen, seen], 0, 0), Turn::Page(vec![0]));
}

#[test]
fn pages_are_small_where_messages_are_large() {
    let mut ledger = Ledger::default();
    let page = |ledger: &mut Ledger, bytes| {
        ledger.page(&[], 0, bytes);
        ledger.due().1
    };
    let grown: Vec<_> = (0..5).map(|_| page(&mut ledger, 1000)).collect();
    assert_eq!(grown, [16, 32, 64, 100, 100]);
    let shrunk: Vec<_> = (0..5).map(|_| page(&mut ledger, 5 << 20)).collect();
    assert_eq!(shrunk, [50, 25, 12, 8, 8]);
    assert_eq!(page(&mut ledger, 2 << 20), 8, "as it should be");
}
