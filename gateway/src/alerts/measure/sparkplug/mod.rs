//! Sparkplug B (version 3.0 of the specification): values by name or alias, with what the births of an edge node told.
//!
//! The state is one table of edge nodes, bounded by [`Limits`]. It follows from the messages alone, so that reading the
//! log again makes the same.

mod node;
mod payload;
mod request;
mod scope;
mod snapshot;
mod topic;

use std::collections::HashMap;

use self::node::{Hearing, Node, Standing};
use self::scope::Wanted;
use self::topic::{Told, Topic};
use super::counts::{Counts, Form};
use super::wire::Malformed;
use super::{Message, Reading, Refused, SAMPLES_MAX, Untouched};
use crate::alerts::nouns::Sample;

pub(crate) use self::snapshot::Junk;
pub(super) use self::topic::NAMESPACE;

/// Longest queue of wishes for a rebirth.
pub(super) const REBIRTHS_MAX: usize = 1_000;
/// How long after a wish the next one for the same edge node waits, in milliseconds.
pub(super) const REBIRTH_EVERY_MS: u64 = 60_000;

/// What is kept, at most.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Edge nodes.
    pub(super) nodes: usize,
    /// Metrics and devices of one edge node.
    pub(super) metrics: usize,
    /// Bytes of the name of a metric, of a device, and of group and edge node together.
    pub(super) name_bytes: usize,
    /// Bytes of all edge nodes together, roughly.
    pub(super) bytes: usize,
}

const LIMITS: Limits = Limits { nodes: 10_000, metrics: 100_000, name_bytes: 1_024, bytes: 64 << 20 };

/// An edge node whose births have to be told again: a command `Node Control/Rebirth` to
/// `spBv1.0/GROUP/NCMD/EDGE_NODE` asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rebirth {
    pub(crate) group: Box<str>,
    pub(crate) edge_node: Box<str>,
    /// The device key of the message that showed it.
    pub(crate) device: Box<str>,
}

/// The edge nodes.
#[derive(Debug)]
pub(super) struct Sparkplug {
    limits: Limits,
    /// By `GROUP/EDGE_NODE`.
    nodes: HashMap<Box<str>, Node>,
    /// Of all of `nodes`, roughly.
    bytes: usize,
    /// When the table was last searched for nodes to forget.
    swept_ms: Option<u64>,
    wanted: Wanted,
    rebirths: Vec<Rebirth>,
    /// Used again and again for the key of the node at hand.
    key: String,
}

impl Sparkplug {
    pub(super) fn new(metrics: &[Box<str>]) -> Self {
        Self::with_limits(metrics, LIMITS)
    }

    pub(super) fn with_limits(metrics: &[Box<str>], limits: Limits) -> Self {
        Self {
            limits,
            nodes: HashMap::new(),
            bytes: 0,
            swept_ms: None,
            wanted: Wanted::new(metrics),
            rebirths: Vec::new(),
            key: String::new(),
        }
    }

    /// Other metrics are wanted from now on.
    pub(super) fn want(&mut self, metrics: &[Box<str>]) {
        self.wanted = Wanted::new(metrics);
        self.nodes.values_mut().for_each(|node| node.want(&self.wanted));
    }

    /// Takes the wishes out.
    pub(super) fn take_rebirths(&mut self) -> Vec<Rebirth> {
        std::mem::take(&mut self.rebirths)
    }

    /// Takes a message in, and appends its samples; leaves some behind where it is refused.
    pub(super) fn read(
        &mut self,
        message: &Message<'_>,
        now_ms: u64,
        counts: &mut Counts,
        samples: &mut Vec<Sample>,
    ) -> Reading {
        let Some(topic) = Topic::read(message.topic) else {
            return Reading::Untouched(Untouched::SparkplugTopic);
        };
        match self.hear(&topic, message, now_ms, counts, samples) {
            Ok(()) => Reading::Read(Form::Sparkplug),
            Err(why) => Reading::Refused(why),
        }
    }

    fn hear(
        &mut self,
        topic: &Topic<'_>,
        message: &Message<'_>,
        now_ms: u64,
        counts: &mut Counts,
        samples: &mut Vec<Sample>,
    ) -> Result<(), Refused> {
        if message.payload.is_empty() {
            return Err(Refused::Empty);
        }
        let head = payload::check(message.payload).map_err(|Malformed| Refused::Protobuf)?;
        self.key.clear();
        self.key.extend([topic.group, "/", topic.node]);
        if !self.nodes.contains_key(self.key.as_str()) {
            if topic.told == Told::NodeDeath {
                return Ok(());
            }
            self.admit(now_ms)?;
        }
        let Some(node) = self.nodes.get_mut(self.key.as_str()) else { return Err(Refused::NodesFull) };
        let mut hearing = Hearing {
            head,
            payload: message.payload,
            times: message.times,
            wanted: &self.wanted,
            limits: &self.limits,
            bytes: &mut self.bytes,
            counts,
            samples,
            wants_rebirth: false,
        };
        let heard = node.hear(topic.told, &mut hearing);
        if hearing.wants_rebirth {
            if node.wished_ms.is_some_and(|wished_ms| now_ms < wished_ms.saturating_add(REBIRTH_EVERY_MS)) {
                counts.rebirths_held += 1;
            } else {
                node.wished_ms = Some(now_ms);
                self.wish(topic, message.device, counts);
            }
        }
        heard
    }

    /// Makes an edge node known, where there is room.
    fn admit(&mut self, now_ms: u64) -> Result<(), Refused> {
        if self.key.len() > self.limits.name_bytes {
            return Err(Refused::NodeTooLarge);
        }
        let swept = self.swept_ms.is_some_and(|swept_ms| now_ms < swept_ms.saturating_add(REBIRTH_EVERY_MS));
        if self.nodes.len() >= self.limits.nodes && !swept {
            self.swept_ms = Some(now_ms);
            // Of those that were not born only the time of the last wish is known; nothing is lost once it has passed.
            self.nodes.retain(|_, node| {
                let wished_ms = node.wished_ms.unwrap_or(0);
                node.standing != Standing::Unborn || now_ms < wished_ms.saturating_add(REBIRTH_EVERY_MS)
            });
        }
        if self.nodes.len() >= self.limits.nodes {
            return Err(Refused::NodesFull);
        }
        self.nodes.insert(self.key.as_str().into(), Node::default());
        Ok(())
    }

    fn wish(&mut self, topic: &Topic<'_>, device: &str, counts: &mut Counts) {
        if self.rebirths.len() >= REBIRTHS_MAX {
            counts.rebirths_lost += 1;
            return;
        }
        counts.rebirths_wanted += 1;
        self.rebirths.push(Rebirth {
            group: topic.group.into(),
            edge_node: topic.node.into(),
            device: device.into(),
        });
    }
}
