//! The stored form of a lane's progress; see `docs/formats/uplink-progress-v2.md`.
//!
//! Bytes from disk are not trusted: every count is bounded before memory is taken for it, and a value has
//! one spelling only.

use penstock_proto::Seq;

use super::spans::SPANS_MAX;
use super::{PARTITIONS_MAX, TOPICS_MAX};

const VERSION: u8 = 2;
/// Knew one stream and no spans; read, never written.
const VERSION_1: u8 = 1;
/// Bytes of a target at most.
const TARGET_BYTES: usize = 44;
/// Longest topic name that Kafka allows.
pub(crate) const TOPIC_LENGTH_MAX: usize = 249;

/// What a lane's tracker remembers besides its `low`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Fingerprint of the routes it was recorded under.
    pub(crate) routes: u64,
    /// Every live entry below it is confirmed.
    pub(crate) live_low: Seq,
    /// Ranges whose entries go as backlog, end excluded.
    pub(crate) spans: Vec<(Seq, Seq)>,
    pub(crate) topics: Vec<SavedTopic>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SavedTopic {
    pub(crate) name: String,
    pub(crate) partitions: u32,
    /// The count that holds up to `until`, 0 for none.
    pub(crate) previous: u32,
    pub(crate) until: Seq,
    /// Whether records of it may have been sent of which nobody heard.
    pub(crate) open: bool,
    /// In ascending order of partition; targets that confirmed nothing are left out.
    pub(crate) targets: Vec<SavedTarget>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SavedTarget {
    pub(crate) partition: u32,
    /// The last offset that is accounted for.
    pub(crate) offset: Option<i64>,
    /// Live and backlog.
    pub(crate) chains: [SavedChain; 2],
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SavedChain {
    pub(crate) acked: Seq,
    pub(crate) basis: Seq,
}

/// Why stored progress was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StateError {
    /// Written by a later version.
    #[error("unknown version {0}")]
    Version(u8),
    /// It ends too early.
    #[error("it ends within {0}")]
    Short(&'static str),
    /// A value out of its range.
    #[error("bad {0}")]
    Bad(&'static str),
}

impl State {
    /// The stored form.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let targets: usize = self.topics.iter().map(|topic| topic.targets.len()).sum();
        let fixed = 19 + self.spans.len() * 16;
        let mut out =
            Vec::with_capacity(fixed + self.topics.len() * (TOPIC_LENGTH_MAX + 22) + targets * TARGET_BYTES);
        out.push(VERSION);
        out.extend_from_slice(&self.routes.to_le_bytes());
        out.extend_from_slice(&self.live_low.0.to_le_bytes());
        out.push(byte(self.spans.len()));
        for (from, end) in &self.spans {
            out.extend_from_slice(&from.0.to_le_bytes());
            out.extend_from_slice(&end.0.to_le_bytes());
        }
        out.push(byte(self.topics.len()));
        for topic in &self.topics {
            topic.encode(&mut out);
        }
        out
    }

    /// The state for going on from `low` although more is confirmed: what a target confirmed at or above
    /// `low` is no reason to skip any more, and stays where its chain goes on for what it never held.
    pub(crate) fn forget_from(&mut self, low: Seq) {
        self.live_low = self.live_low.min(low);
        for topic in &mut self.topics {
            // Nothing that is found there is a reason to skip either.
            topic.open = false;
            for chain in topic.targets.iter_mut().flat_map(|target| &mut target.chains) {
                if chain.acked >= low {
                    chain.basis = chain.basis.max(chain.acked);
                    chain.acked = Seq::ZERO;
                }
            }
        }
    }

    /// Parses the stored form; nothing stored is the empty state.
    ///
    /// # Errors
    ///
    /// [`StateError`] for anything that [`Self::encode`] does not write.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut input = Input(bytes);
        let version = input.byte("version")?;
        if !matches!(version, VERSION | VERSION_1) {
            return Err(StateError::Version(version));
        }
        let mut state = Self { routes: input.u64("routes")?, ..Self::default() };
        if version == VERSION {
            state.live_low = Seq(input.u64("live position")?);
            state.spans = decode_spans(&mut input)?;
        }
        let count = usize::from(input.byte("topics")?);
        if count > TOPICS_MAX {
            return Err(StateError::Bad("topic count"));
        }
        for _ in 0..count {
            let topic = SavedTopic::decode(&mut input, version)?;
            if state.topics.iter().any(|known| known.name == topic.name) {
                return Err(StateError::Bad("repeated topic"));
            }
            state.topics.push(topic);
        }
        if input.0.is_empty() { Ok(state) } else { Err(StateError::Bad("length")) }
    }
}

fn decode_spans(input: &mut Input<'_>) -> Result<Vec<(Seq, Seq)>, StateError> {
    let count = usize::from(input.byte("spans")?);
    if count > SPANS_MAX {
        return Err(StateError::Bad("span count"));
    }
    let mut spans: Vec<(Seq, Seq)> = Vec::with_capacity(count);
    for _ in 0..count {
        let (from, end) = (Seq(input.u64("span")?), Seq(input.u64("span")?));
        // Neighbours are one span.
        if from >= end || spans.last().is_some_and(|(_, last)| *last >= from) {
            return Err(StateError::Bad("span"));
        }
        spans.push((from, end));
    }
    Ok(spans)
}

impl SavedTopic {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(byte(self.name.len()));
        out.extend_from_slice(self.name.as_bytes());
        out.extend_from_slice(&self.partitions.to_le_bytes());
        out.extend_from_slice(&self.previous.to_le_bytes());
        out.extend_from_slice(&self.until.0.to_le_bytes());
        out.push(u8::from(self.open));
        out.extend_from_slice(&u32::try_from(self.targets.len()).unwrap_or(u32::MAX).to_le_bytes());
        for SavedTarget { partition, offset, chains } in &self.targets {
            out.extend_from_slice(&partition.to_le_bytes());
            out.extend_from_slice(&offset.unwrap_or(UNKNOWN).to_le_bytes());
            for chain in chains {
                out.extend_from_slice(&chain.acked.0.to_le_bytes());
                out.extend_from_slice(&chain.basis.0.to_le_bytes());
            }
        }
    }

    fn decode(input: &mut Input<'_>, version: u8) -> Result<Self, StateError> {
        let length = usize::from(input.byte("topic")?);
        if !(1..=TOPIC_LENGTH_MAX).contains(&length) {
            return Err(StateError::Bad("topic length"));
        }
        let name = std::str::from_utf8(input.take(length, "topic")?).map_err(|_| StateError::Bad("topic"))?;
        let partitions = u32::from_le_bytes(input.array("partitions")?);
        let previous = u32::from_le_bytes(input.array("previous partitions")?);
        if !(1..=PARTITIONS_MAX).contains(&partitions) || previous >= partitions {
            return Err(StateError::Bad("partition count"));
        }
        let until = Seq(input.u64("until")?);
        if (previous == 0) && until > Seq::ZERO {
            return Err(StateError::Bad("until"));
        }
        let open = match version {
            // What it had in flight nobody knows.
            VERSION_1 => 1,
            _ => input.byte("open")?,
        };
        if open > 1 {
            return Err(StateError::Bad("open"));
        }
        let count = u32::from_le_bytes(input.array("targets")?);
        if count > partitions {
            return Err(StateError::Bad("target count"));
        }
        let mut targets: Vec<SavedTarget> = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let target = SavedTarget::decode(input, version)?;
            let ascending = targets.last().is_none_or(|last| last.partition < target.partition);
            if !ascending || target.partition >= partitions {
                return Err(StateError::Bad("partition"));
            }
            targets.push(target);
        }
        Ok(Self { name: name.to_owned(), partitions, previous, until, open: open == 1, targets })
    }
}

impl SavedTarget {
    fn decode(input: &mut Input<'_>, version: u8) -> Result<Self, StateError> {
        let partition = u32::from_le_bytes(input.array("partition")?);
        if version == VERSION_1 {
            let acked = Seq(input.u64("acked")?);
            let offset = i64::from_le_bytes(input.array("offset")?);
            let live = SavedChain { acked, basis: Seq(input.u64("basis")?) };
            let offset = Some(offset).filter(|offset| *offset >= 0);
            return Ok(Self { partition, offset, chains: [live, SavedChain::default()] });
        }
        let offset = match i64::from_le_bytes(input.array("offset")?) {
            UNKNOWN => None,
            offset if offset >= -1 => Some(offset),
            _ => return Err(StateError::Bad("offset")),
        };
        let mut chains = [SavedChain::default(); 2];
        for chain in &mut chains {
            *chain = SavedChain { acked: Seq(input.u64("acked")?), basis: Seq(input.u64("basis")?) };
        }
        Ok(Self { partition, offset, chains })
    }
}

/// An offset that is not known; -1 is the one before the first record.
const UNKNOWN: i64 = i64::MIN;

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], StateError> {
        let (head, rest) = self.0.split_at_checked(length).ok_or(StateError::Short(what))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], StateError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(StateError::Short(what))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u64(&mut self, what: &'static str) -> Result<u64, StateError> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, StateError> {
        self.array::<1>(what).map(|[byte]| byte)
    }
}

/// A length that the types above keep below 256.
fn byte(length: usize) -> u8 {
    debug_assert!(length < 256, "bounded by the tracker and the configuration");
    u8::try_from(length).unwrap_or(u8::MAX)
}
