//! The end of a command whose message is in the dead-letter queue: nobody will go on with it but who finds it there.

use super::{Batch, Execution, Record};
use crate::commands::contract::{Identity, Letter, Outcome, Phase, StatusEvent, record_key};
use crate::commands::message::Disposition;

/// What is known here of a command whose message is in the dead-letter queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing.
    Unknown,
    /// It comes to its end by itself, or may: it is in flight, or its answer is waited for.
    Open,
    /// It had begun, and nobody goes on with it.
    Left,
    /// Its end is told.
    Ended,
}

impl Execution {
    /// How a command stands. `known` is the record of its device, and `in_doubt` whether the store may have another.
    pub(super) fn standing(
        &self,
        identity: &Identity,
        known: Option<&Record>,
        in_doubt: bool,
        now_ms: u64,
    ) -> Standing {
        let current = self.current.iter().map(|current| &current.content);
        let next = self.next.iter().map(|next| &next.content);
        if current.chain(next).any(|content| content.about().identity == *identity) {
            return Standing::Open;
        }
        if in_doubt || self.in_doubt || self.is_writing() {
            return Standing::Open;
        }
        match known.filter(|record| record.identity == *identity).map(|record| &record.phase) {
            None => Standing::Unknown,
            Some(Phase::Done(_)) => Standing::Ended,
            Some(Phase::Delivered { deadline_ms }) if now_ms < *deadline_ms => Standing::Open,
            Some(Phase::Started | Phase::Delivered { .. } | Phase::Answered(_)) => Standing::Left,
        }
    }

    /// Puts down the end of a command that is [`Standing::Left`]: what its device said, if that is known, else what the
    /// letter says. [`super::Event::Committed`] is due then.
    pub(super) fn bury(
        &mut self,
        letter: &Letter,
        known: &Record,
        batch: &mut Batch<'_>,
        now_ms: u64,
    ) -> Outcome {
        let outcome = match &known.phase {
            Phase::Answered(answer) => answer.outcome(),
            Phase::Delivered { .. } => Outcome::no_answer(),
            Phase::Started | Phase::Done(_) => letter.outcome(),
        };
        let about = &letter.about;
        let event = StatusEvent { about, outcome: &outcome, is_final: true, redelivered: false, now_ms };
        event.push(batch.voice, batch.entries);
        let record = Record { phase: Phase::Done(Disposition::Complete), at_ms: now_ms, ..known.clone() };
        batch.state.put(&record_key(&about.device), &record.encode());
        self.writing = Some(record);
        outcome
    }
}
