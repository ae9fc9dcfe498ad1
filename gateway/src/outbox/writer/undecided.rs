//! Commits with outputs whose write failed.
//!
//! After a failed write nobody knows whether the group is on the disk. Devices are told that it is
//! not, and send again. A consumer that did so would store its outputs twice; and its progress in
//! memory would be behind the outputs that are there. So its commits stay undecided until the store
//! is open again, and the store is asked.

use std::ops::ControlFlow;
use std::sync::Arc;

use penstock_proto::{Epoch, Lane, Seq};

use super::Writer;
use crate::outbox::arena::Bound;
use crate::outbox::completion::{Completion, Ticket};
use crate::outbox::keys::Progress;
use crate::outbox::segment::{Header, Segment};
use crate::outbox::store::Store;
use crate::supervise::clock;

/// Commits that wait for the store to be open again.
#[derive(Debug, Default)]
pub(super) struct Undecided {
    /// Those of the group that was being written.
    written: Vec<Bound>,
    /// Those behind it, which never were.
    waiting: Vec<Bound>,
    /// A segment of the group, if it has any.
    evidence: Option<Evidence>,
}

/// A segment that is in the store only if its group is: at its position and of its epoch there can be
/// no other, since a store that is opened again begins a new epoch.
#[derive(Debug, Clone, Copy)]
struct Evidence {
    lane: Lane,
    first: Seq,
    epoch: Epoch,
}

/// What became of a commit.
#[derive(Debug)]
pub(super) struct Decided {
    done: Arc<Completion>,
    ticket: Ticket,
    durable: bool,
}

impl Undecided {
    /// A group is about to be written.
    pub(super) fn begin(&mut self, segments: &[Arc<Segment>]) {
        let evidence = |segment: &Arc<Segment>| Evidence {
            lane: segment.lane(),
            first: segment.first(),
            epoch: segment.epoch(),
        };
        self.evidence = segments.first().map(evidence);
    }

    /// The write of the group with these commits failed.
    pub(super) fn written(&mut self, bound: Vec<Bound>) {
        self.written.extend(bound);
    }

    /// These will not be written.
    pub(super) fn waiting(&mut self, bound: Vec<Bound>) {
        self.waiting.extend(bound);
    }
}

impl Evidence {
    fn is_in(&self, store: &dyn Store) -> bool {
        let mut found = false;
        let scanned = store.scan(self.lane, self.first, self.first.next(), &mut |_, stored| {
            found = Header::read(stored).is_ok_and(|(header, ..)| header.epoch == self.epoch);
            ControlFlow::Break(())
        });
        // What cannot be read is not there: then the consumer tries again, and has it twice at worst.
        scanned.is_ok() && found
    }
}

impl Decided {
    /// Tells whoever waits.
    pub(super) fn tell(self) {
        if self.durable {
            self.done.complete(self.ticket);
        } else {
            self.done.fail();
        }
    }
}

impl Writer {
    /// Asks the store that was just opened, which has these progresses. Consumers stand accordingly
    /// when it returns.
    pub(super) fn decide(&mut self, stored: &[Progress]) -> Vec<Decided> {
        let Undecided { written, waiting, evidence } = std::mem::take(&mut self.undecided);
        let is_there = {
            let store = self.shared.store.read();
            evidence.zip(store.as_deref()).map(|(evidence, store)| evidence.is_in(store))
        };
        // Without a segment progress is all there is to the group.
        let is_durable = |bound: &Bound| {
            let last = written.iter().rev().find(|last| last.place == bound.place);
            is_there.unwrap_or_else(|| stored.get(bound.place) == last.map(|last| &last.progress))
        };
        let fates: Vec<bool> = written.iter().map(is_durable).collect();
        let fates = fates.into_iter().chain(waiting.iter().map(|_| false)).collect::<Vec<_>>();
        let now = clock::now();
        let mut decided = Vec::with_capacity(fates.len());
        for (bound, durable) in written.into_iter().chain(waiting).zip(fates) {
            let Bound { place, progress, done, ticket } = bound;
            if let Some(slot) = self.shared.slots.get(place) {
                match durable {
                    true if slot.bound_written(&progress, 1, now) => self.shared.write_soon(),
                    true => {}
                    false => slot.bound_failed(&done),
                }
            }
            decided.push(Decided { done, ticket, durable });
        }
        decided
    }

    /// The store will not be opened again: they fail.
    pub(super) fn give_up_undecided(&mut self) {
        let Undecided { written, waiting, .. } = std::mem::take(&mut self.undecided);
        for Bound { place, done, .. } in written.into_iter().chain(waiting) {
            if let Some(slot) = self.shared.slots.get(place) {
                slot.bound_failed(&done);
            }
            done.fail();
        }
    }
}
