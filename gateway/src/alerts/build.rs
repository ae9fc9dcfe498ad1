//! Building the engine from what is on the disk: snapshot, table, and from where the log has to be read again.

use std::ops::ControlFlow;
use std::sync::Arc;

use penstock_proto::Seq;

use super::clock::Moment;
use super::engine::Engine;
use super::lifecycle::{Lifecycle, TABLE, Voice};
use super::mark::Mark;
use super::measure::Reader;
use super::rule::{Evaluator, Limits};
use super::rules::Rules;
use super::snapshot::{Folder, Snapshot};
use crate::outbox::{self, StateOps};

/// What an engine is built with.
#[derive(Debug)]
pub(super) struct Builder {
    pub(super) outbox: outbox::Handle,
    pub(super) folder: Folder,
    pub(super) voice: Voice,
    pub(super) time: Option<String>,
    pub(super) limits: Limits,
}

/// An engine, and what was wrong with what it was built from.
#[derive(Debug)]
pub(super) struct Built {
    pub(super) engine: Engine,
    /// The snapshot it was built from.
    pub(super) snapshot: Option<Seq>,
    /// Whether there should have been a snapshot that cannot be used.
    pub(super) lost: bool,
    /// Rows that are to be deleted.
    pub(super) stale: StateOps,
}

impl Builder {
    /// Builds the engine for a consumer that stands at `low` with `state`. What is read from `low` on is told from the
    /// position in `state` on. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// When the table of alerts cannot be read.
    pub(super) fn build(&self, rules: &Rules, low: Seq, state: &[u8]) -> Result<Built, outbox::Error> {
        let mark = Mark::decode(state);
        let told = mark.map_or(low, |mark| mark.emitted).max(low);
        let mut reader =
            Reader::new(rules.set.metrics()).with_time_path(self.time.as_deref(), rules.set.metrics());
        let mut evaluator = Evaluator::new(Arc::clone(&rules.set), self.limits);
        let wanted = mark.and_then(|mark| mark.snapshot);
        let snapshot = wanted.and_then(|at| self.snapshot(at));
        let at = snapshot.as_ref().map(|snapshot| snapshot.at);
        let good = snapshot.as_ref().is_some_and(|snapshot| decode(snapshot, &mut reader, &mut evaluator));
        let from = snapshot.filter(|_| good).map_or_else(Moment::default, |snapshot| snapshot.moment);
        let mut lifecycle =
            Lifecycle::new(self.voice.clone(), Arc::clone(&rules.policy), Arc::clone(&rules.book));
        let stale = self.load(&mut lifecycle, mark.is_some())?;
        let lost = wanted.is_some() && !good;
        let engine = Engine::new((reader, evaluator, lifecycle), from, (low, told), !good).rebuilt();
        Ok(Built { engine, snapshot: at, lost, stale })
    }

    fn snapshot(&self, at: Seq) -> Option<Snapshot> {
        self.folder
            .read(at, self.outbox.log())
            .inspect_err(|error| {
                let error = crate::supervise::chain(error);
                tracing::warn!(error, "the snapshot of the rules cannot be used; they learn again");
            })
            .ok()
    }

    /// Loads the table of alerts. That of an earlier life, before the section was left out of the configuration for a
    /// while, is deleted instead.
    fn load(&self, lifecycle: &mut Lifecycle, known: bool) -> Result<StateOps, outbox::Error> {
        let (mut bad, mut stale) = (0_u64, StateOps::default());
        self.outbox.appender().state().scan(&[TABLE], &mut |key, value| {
            if known {
                bad += u64::from(lifecycle.load(key, value).is_err());
            } else {
                stale.delete(key);
            }
            ControlFlow::Continue(())
        })?;
        if bad > 0 {
            tracing::warn!(rows = bad, "rows of the table of alerts cannot be read and are left out");
        }
        Ok(stale)
    }
}

/// Takes over what the snapshot holds; of a part that cannot be read, nothing.
fn decode(snapshot: &Snapshot, reader: &mut Reader, evaluator: &mut Evaluator) -> bool {
    let read = reader.decode(&snapshot.reader).map_err(|error| error.to_string());
    let evaluated = evaluator.decode(&snapshot.evaluator).map_err(|error| error.to_string());
    let damaged = evaluator.counts().damaged;
    if damaged > 0 {
        tracing::warn!(series = damaged, "learned series of the snapshot are damaged; they are learned anew");
    }
    let results = [("measurements", read), ("rules", evaluated)];
    let mut good = true;
    for (part, result) in results {
        if let Err(error) = result {
            tracing::warn!(part, error, "a part of the snapshot cannot be used; it begins anew");
            good = false;
        }
    }
    good
}
