//! Sets a consumer's progress back, so that it reads entries again.
//!
//! What a consumer keeps with its position may say that it has dealt with later entries already, so
//! it is rewritten by a function that knows it; a state that nobody knows is dropped.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use penstock_proto::{Lane, Seq};

use super::super::directory::{DATABASE, Directory};
use super::super::keys::{MetaKey, Progress};
use super::super::store::{Change, Engine as _, Open, RocksEngine};
use super::Error;
use super::snapshot::{Snapshot, check_outbox};
use super::walk::{Found, Walk};

/// Where a consumer is set back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The oldest entry there is.
    Oldest,
    /// A position.
    At(Seq),
}

/// A directory taken for a replay; given back when dropped.
#[derive(Debug)]
pub struct Replay {
    directory: Directory,
    progress: Progress,
    plan: Plan,
}

/// What a replay reads again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The consumer.
    pub consumer: String,
    /// The lane.
    pub lane: Lane,
    /// The first position read again.
    pub first: Seq,
    /// The consumer's present position: the first one not read again.
    pub end: Seq,
    /// Entries between them that are there.
    pub messages: u64,
    /// Bytes of the segments that hold them, uncompressed.
    pub bytes: u64,
    /// Positions between them that are known to be gone.
    pub in_holes: u64,
}

// === impl Replay ===

impl Replay {
    /// Takes `directory`, and finds out what setting `consumer` of `lane` back to `target` means.
    /// Nothing is changed.
    ///
    /// # Errors
    ///
    /// When the directory is in use or no outbox; when the consumer is not known or the target is not
    /// between the lane's head and its present position; when the log is damaged.
    pub fn prepare(directory: &Path, consumer: &str, lane: Lane, target: Target) -> Result<Self, Error> {
        check_outbox(directory)?;
        check_owner(directory)?;
        let claimed = Directory::claim(directory)?;
        let mut snapshot = Snapshot::open(directory)?;
        check_whole(&snapshot)?;
        let view = snapshot.lane(lane);
        let Some(known) = view.consumers.iter().find(|known| known.name == consumer) else {
            let names: Vec<&str> = view.consumers.iter().map(|known| known.name.as_str()).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(Error::Refused(format!(
                "consumer {consumer:?} has no progress in lane {lane}; known there: {names}"
            )));
        };
        let (head, present) = (view.head(), known.progress.clone());
        let first = match target {
            Target::Oldest => head,
            Target::At(seq) => seq,
        };
        if first < head || first > present.low {
            return Err(Error::Refused(format!(
                "position {first} is not between the lane's oldest entry {head} and the consumer's present position {}",
                present.low
            )));
        }
        let (plan, floor) = survey(&mut snapshot, consumer, lane, first, present.low)?;
        let progress = Progress { low: first, state: present.state, ..floor };
        Ok(Self { directory: claimed, progress, plan })
    }

    /// What it means.
    #[must_use]
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Does it: after this returns, also a power cut does not undo it. `forget` makes the state that is
    /// kept with the position from the present one and the new position.
    ///
    /// # Errors
    ///
    /// When the database does not open or the write fails.
    pub fn run(mut self, forget: &dyn Fn(&[u8], Seq) -> Vec<u8>) -> Result<Plan, Error> {
        let failed = |source| Error::Store { directory: self.directory.root().to_owned(), source };
        self.progress.state = forget(&self.progress.state, self.plan.first);
        let key = MetaKey::Progress(self.plan.lane, self.plan.consumer.clone());
        let store =
            RocksEngine.open(&self.directory.root().join(DATABASE), Open::Existing).map_err(failed)?;
        let change = Change::Meta { key, value: self.progress.encode() };
        store.write(&[change], true).map_err(failed)?;
        Ok(self.plan)
    }
}

/// Refuses a database of another user: an opening for writing creates files, and those would keep the
/// gateway out.
///
/// # Errors
///
/// [`Error::Refused`], with both users.
pub fn check_owner(directory: &Path) -> Result<(), Error> {
    let owner = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.uid());
    // Where there is no such file, there is no way to know.
    let (Ok(ours), Ok(theirs)) = (owner(Path::new("/proc/self")), owner(&directory.join(DATABASE))) else {
        return Ok(());
    };
    refuse_other(ours, theirs)
}

fn refuse_other(ours: u32, theirs: u32) -> Result<(), Error> {
    if ours == theirs {
        return Ok(());
    }
    Err(Error::Refused(format!(
        "the database belongs to user {theirs} and this is user {ours}: run it as the gateway's user"
    )))
}

/// An opening for writing gives up what a damaged log holds behind the damage; only the gateway's own
/// start knows how to keep it.
fn check_whole(snapshot: &Snapshot) -> Result<(), Error> {
    let short = |what: String| {
        Err(Error::Refused(format!(
            "{what}; let the gateway start on the directory first, which recovers it"
        )))
    };
    let (log, _, next) = match snapshot.mark() {
        Ok(mark) => mark,
        Err(reason) => return short(format!("the high-water mark cannot be used: {reason}")),
    };
    if log != snapshot.log() {
        return short("the high-water mark is of another log".to_owned());
    }
    for (lane, marked) in Lane::ALL.into_iter().zip(next) {
        if snapshot.lane(lane).next < marked {
            return short(format!("lane {lane} ends before its high-water mark {marked}"));
        }
    }
    Ok(())
}

/// Counts what lies between the positions; also where the segment of the first one begins.
fn survey(
    snapshot: &mut Snapshot,
    consumer: &str,
    lane: Lane,
    first: Seq,
    end: Seq,
) -> Result<(Plan, Progress), Error> {
    let (consumer, present) = (consumer.to_owned(), end);
    let mut plan = Plan { consumer, lane, first, end: present, messages: 0, bytes: 0, in_holes: 0 };
    let mut floor = None;
    let mut walk = Walk::new(snapshot, lane, Some(first));
    while let Some(found) = walk.step()? {
        match found {
            Found::Segment(stored) => {
                let segment = &stored.segment;
                if segment.end() <= first {
                    continue;
                }
                floor.get_or_insert((segment.first(), stored.bytes_before()));
                if segment.first() >= end {
                    break;
                }
                let (from, to) = (segment.first().max(first), segment.end().min(end));
                if from < to {
                    plan.messages += to.0 - from.0;
                    plan.bytes += u64::from(segment.bytes());
                }
            }
            Found::Hole { first: from, end: to, .. } => {
                if from >= end {
                    break;
                }
                plan.in_holes += to.min(end).0.saturating_sub(from.max(first).0);
            }
            Found::Bad { first: from, end: to, reason } => {
                return Err(Error::Refused(format!(
                    "positions {from} to {} of lane {lane}: {reason}; see `penstock outbox verify`",
                    to.0.saturating_sub(1)
                )));
            }
        }
    }
    let head = snapshot.lane(lane).head;
    let bytes = snapshot.lane(lane).bytes;
    let (floor, bytes_before) = floor.unwrap_or((end, bytes));
    // In a hole there is no segment to begin with; what follows it begins above.
    let (low, floor) = if floor > first { (first, first.max(head.first)) } else { (first, floor) };
    Ok((plan, Progress { low, floor, bytes_before, state: Vec::new() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_user_than_the_owner_is_refused() {
        assert!(refuse_other(7, 7).is_ok());
        let error = refuse_other(0, 7).expect_err("its files would keep the gateway out");
        assert!(error.is_usage() && error.to_string().contains("belongs to user 7"), "{error}");
    }
}
