//! The stored form of a lane's progress; see `docs/formats/uplink-progress-v1.md`.
//!
//! Bytes from disk are not trusted: every count is bounded before memory is taken for it, and a value has
//! one spelling only.

use penstock_proto::Seq;

use super::{PARTITIONS_MAX, TOPICS_MAX};

const VERSION: u8 = 1;
/// Longest topic name that Kafka allows.
pub(crate) const TOPIC_LENGTH_MAX: usize = 249;

/// What a lane's tracker remembers besides its `low`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Fingerprint of the routes it was recorded under.
    pub(crate) routes: u64,
    pub(crate) topics: Vec<SavedTopic>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SavedTopic {
    pub(crate) name: String,
    pub(crate) partitions: u32,
    /// The count that holds up to `until`, 0 for none.
    pub(crate) previous: u32,
    pub(crate) until: Seq,
    /// In ascending order of partition; targets that confirmed nothing are left out.
    pub(crate) targets: Vec<SavedTarget>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SavedTarget {
    pub(crate) partition: u32,
    pub(crate) acked: Seq,
    pub(crate) offset: i64,
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
        let mut out = Vec::with_capacity(10 + self.topics.len() * (TOPIC_LENGTH_MAX + 21) + targets * 28);
        out.push(VERSION);
        out.extend_from_slice(&self.routes.to_le_bytes());
        out.push(byte(self.topics.len()));
        for topic in &self.topics {
            out.push(byte(topic.name.len()));
            out.extend_from_slice(topic.name.as_bytes());
            out.extend_from_slice(&topic.partitions.to_le_bytes());
            out.extend_from_slice(&topic.previous.to_le_bytes());
            out.extend_from_slice(&topic.until.0.to_le_bytes());
            out.extend_from_slice(&u32::try_from(topic.targets.len()).unwrap_or(u32::MAX).to_le_bytes());
            for target in &topic.targets {
                out.extend_from_slice(&target.partition.to_le_bytes());
                out.extend_from_slice(&target.acked.0.to_le_bytes());
                out.extend_from_slice(&target.offset.to_le_bytes());
                out.extend_from_slice(&target.basis.0.to_le_bytes());
            }
        }
        out
    }

    /// The state for going on from `low` although more is confirmed: what a target confirmed at or above
    /// `low` is no reason to skip any more, and stays where its chain goes on for what it never held.
    pub(crate) fn forget_from(&mut self, low: Seq) {
        for target in self.topics.iter_mut().flat_map(|topic| &mut topic.targets) {
            if target.acked >= low {
                target.basis = target.basis.max(target.acked);
                target.acked = Seq::ZERO;
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
        match input.byte("version")? {
            VERSION => {}
            other => return Err(StateError::Version(other)),
        }
        let routes = u64::from_le_bytes(input.array("routes")?);
        let count = usize::from(input.byte("topics")?);
        if count > TOPICS_MAX {
            return Err(StateError::Bad("topic count"));
        }
        let mut topics: Vec<SavedTopic> = Vec::with_capacity(count);
        for _ in 0..count {
            let topic = SavedTopic::decode(&mut input)?;
            if topics.iter().any(|known| known.name == topic.name) {
                return Err(StateError::Bad("repeated topic"));
            }
            topics.push(topic);
        }
        if input.0.is_empty() { Ok(Self { routes, topics }) } else { Err(StateError::Bad("length")) }
    }
}

impl SavedTopic {
    fn decode(input: &mut Input<'_>) -> Result<Self, StateError> {
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
        let until = Seq(u64::from_le_bytes(input.array("until")?));
        if (previous == 0) && until > Seq::ZERO {
            return Err(StateError::Bad("until"));
        }
        let count = u32::from_le_bytes(input.array("targets")?);
        if count > partitions {
            return Err(StateError::Bad("target count"));
        }
        let mut targets: Vec<SavedTarget> = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let target = SavedTarget::decode(input)?;
            let ascending = targets.last().is_none_or(|last| last.partition < target.partition);
            if !ascending || target.partition >= partitions {
                return Err(StateError::Bad("partition"));
            }
            targets.push(target);
        }
        Ok(Self { name: name.to_owned(), partitions, previous, until, targets })
    }
}

impl SavedTarget {
    fn decode(input: &mut Input<'_>) -> Result<Self, StateError> {
        Ok(Self {
            partition: u32::from_le_bytes(input.array("partition")?),
            acked: Seq(u64::from_le_bytes(input.array("acked")?)),
            offset: i64::from_le_bytes(input.array("offset")?),
            basis: Seq(u64::from_le_bytes(input.array("basis")?)),
        })
    }
}

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

    fn byte(&mut self, what: &'static str) -> Result<u8, StateError> {
        self.array::<1>(what).map(|[byte]| byte)
    }
}

/// A length that the types above keep below 256.
fn byte(length: usize) -> u8 {
    debug_assert!(length < 256, "bounded by the tracker and the configuration");
    u8::try_from(length).unwrap_or(u8::MAX)
}
