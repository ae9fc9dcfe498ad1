//! The edge nodes as bytes: `docs/formats/measurements.md` has the layout.

use std::collections::{BTreeMap, HashMap};

use super::node::{Born, Node, Standing};
use super::scope::{Known, Scope, Wanted};
use super::{Limits, Sparkplug};
use crate::alerts::measure::Refused;
use crate::outbox::{Input, put_sized};

/// The layout that this version writes.
const VERSION: u8 = 1;

const UNBORN: u8 = 0;
const BORN: u8 = 1;
const COMPRESSED: u8 = 2;
const TOO_LARGE: u8 = 3;

/// Bytes that are no snapshot. What was known before is forgotten, as if no birth had been seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Junk {
    /// Written by a version that this one cannot read.
    #[error("version {0} of the measurements' state is not known")]
    Version(u8),
    /// Cut short, out of order, beyond a bound, or with something behind it.
    #[error("not the state of measurements")]
    Broken,
}

impl Sparkplug {
    /// Appends the edge nodes. The same nodes always make the same bytes.
    pub(in crate::alerts::measure) fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_option(out, self.swept_ms);
        put_len(out, self.nodes.len());
        let sorted: BTreeMap<&str, &Node> = self.nodes.iter().map(|(key, node)| (&**key, node)).collect();
        for (key, node) in sorted {
            put_sized(out, key.as_bytes());
            put_option(out, node.wished_ms);
            match &node.standing {
                Standing::Unborn => out.push(UNBORN),
                Standing::Mute(Refused::Compressed) => out.push(COMPRESSED),
                Standing::Mute(_) => out.push(TOO_LARGE),
                Standing::Born(born) => {
                    out.push(BORN);
                    put_born(out, born);
                }
            }
        }
    }

    /// Takes the edge nodes from bytes in place of those that are known. If they are junk, none is known.
    pub(in crate::alerts::measure) fn decode(&mut self, bytes: &[u8]) -> Result<(), Junk> {
        let read = read(bytes, &self.wanted, &self.limits);
        let (nodes, swept_ms, junk) = match read {
            Ok((nodes, swept_ms)) => (nodes, swept_ms, Ok(())),
            Err(junk) => (HashMap::new(), None, Err(junk)),
        };
        self.bytes = nodes.values().map(Node::bytes).sum();
        (self.nodes, self.swept_ms) = (nodes, swept_ms);
        junk
    }
}

fn put_born(out: &mut Vec<u8>, born: &Born) {
    put_option(out, born.seq.map(u64::from));
    put_option(out, born.bd_seq);
    put_scope(out, born.own());
    put_len(out, born.devices().len());
    for (device, scope) in born.devices() {
        put_sized(out, device.as_bytes());
        put_scope(out, scope);
    }
}

fn put_scope(out: &mut Vec<u8>, scope: &Scope) {
    out.push(u8::from(scope.is_shaken));
    put_len(out, scope.metrics().len());
    for known in scope.metrics() {
        put_sized(out, known.name.as_bytes());
        out.extend_from_slice(&known.datatype.to_le_bytes());
    }
    put_len(out, scope.aliases().len());
    for (alias, place) in scope.aliases() {
        out.extend_from_slice(&alias.to_le_bytes());
        out.extend_from_slice(&place.to_le_bytes());
    }
}

/// 0, or 1 and the number.
fn put_option(out: &mut Vec<u8>, number: Option<u64>) {
    out.push(u8::from(number.is_some()));
    if let Some(number) = number {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
}

type Nodes = HashMap<Box<str>, Node>;

fn read(bytes: &[u8], wanted: &Wanted, limits: &Limits) -> Result<(Nodes, Option<u64>), Junk> {
    let mut input = Input::new(bytes);
    match input.u8() {
        Some(VERSION) => {}
        Some(version) => return Err(Junk::Version(version)),
        None => return Err(Junk::Broken),
    }
    nodes(&mut input, wanted, limits).filter(|_| input.is_empty()).ok_or(Junk::Broken)
}

fn nodes(input: &mut Input<'_>, wanted: &Wanted, limits: &Limits) -> Option<(Nodes, Option<u64>)> {
    let swept_ms = option(input)?;
    let mut nodes = HashMap::new();
    let (mut before, mut bytes): (Option<&str>, usize) = (None, 0);
    for _ in 0..input.u32()? {
        let key = input.text().filter(|key| key.len() <= limits.name_bytes && key.contains('/'))?;
        // In order, so that one state has one spelling.
        if before.replace(key).is_some_and(|before| before >= key) || nodes.len() >= limits.nodes {
            return None;
        }
        let wished_ms = option(input)?;
        let standing = match input.u8()? {
            UNBORN => Standing::Unborn,
            BORN => Standing::Born(Box::new(born(input, wanted, limits)?)),
            COMPRESSED => Standing::Mute(Refused::Compressed),
            TOO_LARGE => Standing::Mute(Refused::NodeTooLarge),
            _ => return None,
        };
        let node = Node { standing, wished_ms };
        bytes += node.bytes();
        if bytes > limits.bytes {
            return None;
        }
        nodes.insert(key.into(), node);
    }
    Some((nodes, swept_ms))
}

fn born(input: &mut Input<'_>, wanted: &Wanted, limits: &Limits) -> Option<Born> {
    let seq = match option(input)? {
        None => None,
        Some(seq) => Some(u8::try_from(seq).ok()?),
    };
    let bd_seq = option(input)?;
    let mut born = Born::new(seq, bd_seq, scope(input, None, wanted, limits)?);
    let mut before: Option<&str> = None;
    for _ in 0..input.u32()? {
        let device = input.text().filter(|device| device.len() <= limits.name_bytes)?;
        if before.replace(device).is_some_and(|before| before >= device) {
            return None;
        }
        born.add(device, scope(input, Some(device), wanted, limits)?);
    }
    Some(born).filter(|born| born.len() <= limits.metrics)
}

fn scope(input: &mut Input<'_>, device: Option<&str>, wanted: &Wanted, limits: &Limits) -> Option<Scope> {
    let is_shaken = match input.u8()? {
        0 => false,
        1 => true,
        _ => return None,
    };
    let mut metrics = Vec::new();
    for _ in 0..input.u32()? {
        let name = input.text().filter(|name| !name.is_empty() && name.len() <= limits.name_bytes)?;
        metrics.push(Known {
            name: name.into(),
            datatype: input.u32()?,
            wanted: wanted.places(device, name),
        });
    }
    let mut aliases = Vec::new();
    for _ in 0..input.u32()? {
        aliases.push((input.u64()?, input.u32()?));
    }
    Scope::restore(metrics, aliases, is_shaken)
}

/// As [`put_option`] wrote it.
fn option(input: &mut Input<'_>) -> Option<Option<u64>> {
    match input.u8()? {
        0 => Some(None),
        1 => input.u64().map(Some),
        _ => None,
    }
}
