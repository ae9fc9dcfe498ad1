//! The letter: an entry of lane `dead`, its making and its reading.
//!
//! It is the refused entry as it was, with six user properties behind its own. They stand last and
//! in this order, so that a device that sends properties of these names changes nothing.

use penstock_proto::{Epoch, GatewayId, Lane, LogId, Seq};

use super::event;
use crate::outbox::{Encoded, Entry, Properties, Record, UserProperties};

/// The lane it was in, by name.
const LANE: &str = "penstock-lane";
/// Its position there.
const SEQ: &str = "penstock-seq";
/// The opening of the outbox that appended it.
const EPOCH: &str = "penstock-epoch";
/// Where it was to go: `topic/partition`.
const TARGET: &str = "penstock-target";
/// Why it was refused, in the words of who refused it.
const REASON: &str = "penstock-reason";
/// When it was given up, in Unix milliseconds.
const DEAD_MS: &str = "penstock-dead-ms";
/// On a retried entry: who it was before, `gateway/log/epoch/lane/seq`.
pub(super) const RETRIED_FROM: &str = "penstock-retried-from";
/// A reason is cut to this many bytes.
const REASON_BYTES_MAX: usize = 1024;

/// Where a refused entry comes from, and why it was refused.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The gateway.
    pub gateway: &'a GatewayId,
    /// Its outbox directory.
    pub log: LogId,
    /// The opening that appended the entry.
    pub epoch: Epoch,
    /// Its lane.
    pub lane: Lane,
    /// Its position there.
    pub seq: Seq,
    /// Where it was to go: `topic/partition`.
    pub target: &'a str,
    /// Why it was refused; at most 1024 bytes of it are kept.
    pub reason: &'a str,
    /// When it was given up, in Unix milliseconds.
    pub dead_ms: u64,
}

/// What stands in a letter beside the refused entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Letter<'a> {
    /// The lane it was in.
    pub lane: Lane,
    /// Its position there.
    pub seq: Seq,
    /// The opening that appended it.
    pub epoch: Epoch,
    /// Where it was to go: `topic/partition`.
    pub target: &'a str,
    /// Why it was refused.
    pub reason: &'a str,
    /// When it was given up, in Unix milliseconds.
    pub dead_ms: u64,
}

/// Makes the outputs for a refused entry: the letter, the event that reports it, and the loss record.
/// They belong in one commit with the progress that passes the entry.
pub fn bury(record: &Record<'_>, origin: &Origin<'_>, outputs: &mut Encoded) {
    let mut scratch = Vec::new();
    outputs.push(&entry(record, origin, &mut scratch));
    event::refused(record, origin, outputs);
    event::lost(origin, outputs);
}

/// The letter for a refused entry. `scratch` holds its user properties.
pub fn entry<'a>(record: &Record<'a>, origin: &Origin<'_>, scratch: &'a mut Vec<u8>) -> Entry<'a> {
    scratch.clear();
    for (name, value) in record.properties.user.iter() {
        UserProperties::push(scratch, name, value);
    }
    UserProperties::push(scratch, LANE, origin.lane.name());
    UserProperties::push(scratch, SEQ, &origin.seq.to_string());
    UserProperties::push(scratch, EPOCH, &origin.epoch.to_string());
    UserProperties::push(scratch, TARGET, origin.target);
    UserProperties::push(scratch, REASON, beginning(origin.reason));
    UserProperties::push(scratch, DEAD_MS, &origin.dead_ms.to_string());
    with_user(record, Lane::Dead, scratch)
}

impl<'a> Letter<'a> {
    /// Reads what stands in a record of lane `dead`, and the user properties that the refused entry
    /// had; `None` if the record is no letter.
    #[must_use]
    pub fn read(record: &Record<'a>) -> Option<(Self, Vec<(&'a str, &'a str)>)> {
        let mut user: Vec<_> = record.properties.user.iter().collect();
        let [lane, seq, epoch, target, reason, dead_ms] = *user.last_chunk()?;
        let value = |(name, value): (&str, &'a str), expected| (name == expected).then_some(value);
        let lane = value(lane, LANE)?;
        let letter = Self {
            lane: Lane::ALL.into_iter().find(|known| known.name() == lane && *known != Lane::Dead)?,
            seq: Seq(value(seq, SEQ)?.parse().ok()?),
            epoch: Epoch(value(epoch, EPOCH)?.parse().ok()?),
            target: value(target, TARGET)?,
            reason: value(reason, REASON)?,
            dead_ms: value(dead_ms, DEAD_MS)?.parse().ok()?,
        };
        user.truncate(user.len() - 6);
        Some((letter, user))
    }

    /// The new entry that takes the refused one's place. `user` are the properties that it had,
    /// `scratch` holds those that it gets.
    pub(super) fn revived<'r>(
        &self,
        record: &Record<'r>,
        user: &[(&str, &str)],
        (gateway, log): (&GatewayId, LogId),
        scratch: &'r mut Vec<u8>,
    ) -> Entry<'r> {
        scratch.clear();
        // What died again says where it was last.
        let kept = match user {
            [before @ .., (RETRIED_FROM, _)] => before,
            all => all,
        };
        for (name, value) in kept {
            UserProperties::push(scratch, name, value);
        }
        let Self { lane, seq, epoch, .. } = self;
        let identity = format!("{gateway}/{log}/{epoch}/{}/{seq}", lane.number());
        UserProperties::push(scratch, RETRIED_FROM, &identity);
        with_user(record, *lane, scratch)
    }
}

/// `record` as an entry of `lane` with other user properties.
fn with_user<'a>(record: &Record<'a>, lane: Lane, user: &'a [u8]) -> Entry<'a> {
    let user = UserProperties::new(user).unwrap_or_default();
    let Record { device, topic, received_ms, qos, retain, clock_synced, properties, payload } = *record;
    let properties = Properties { user, ..properties };
    Entry { lane, device, topic, received_ms, qos, retain, clock_synced, properties, payload }
}

/// As much of `reason` as is kept.
pub(super) fn beginning(reason: &str) -> &str {
    let end = reason.floor_char_boundary(REASON_BYTES_MAX);
    reason.get(..end).unwrap_or(reason)
}
