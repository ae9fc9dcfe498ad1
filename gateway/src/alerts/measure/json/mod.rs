//! Numbers of a JSON text by their paths.
//!
//! The text is walked once, beside the tree of the wanted paths; it is checked fully against RFC 8259 on the way, and
//! nothing of it is kept. A root that is an array holds one reading per element. Where a member repeats, the last one
//! counts, as with most parsers, and with it goes all that the earlier one held.

mod paths;
mod scanner;

use penstock_proto::json::unescape;

use self::paths::{Node, Paths};
use self::scanner::Scanner;
use super::counts::{Counts, LeftOut};
use super::times::{self, Times, UNREADABLE};
use super::{Refused, SAMPLES_MAX};
use crate::alerts::nouns::Sample;

/// How deep arrays and objects may nest, the outermost being 1.
pub(super) const DEPTH_MAX: u32 = 64;
/// How many wanted members of one message may repeat.
pub(super) const REPEATS_MAX: u32 = 64;

/// Reads JSON.
#[derive(Debug, Default)]
pub(super) struct Json {
    paths: Paths,
    /// In which object each node was last seen; what tells a member that repeats.
    seen: Vec<u64>,
    /// Which object is being read: counts readings since the start.
    object: u64,
}

/// What was noticed on the way; counted only if the text is whole.
#[derive(Debug, Default)]
struct Noticed {
    not_number: u64,
    null: u64,
    beyond: u64,
    times_wrong: u64,
}

/// One text on its way.
#[derive(Debug)]
struct Walk<'a> {
    paths: &'a Paths,
    seen: &'a mut [u64],
    object: u64,
    scanner: Scanner<'a>,
    samples: &'a mut Vec<Sample>,
    /// Where the samples of the present object begin.
    first: usize,
    /// The time that the present object told.
    told_ms: Option<u64>,
    repeats: u32,
    noticed: Noticed,
    times: Times,
}

// === impl Json ===

impl Json {
    pub(super) fn new(metrics: &[Box<str>], time: Option<&str>) -> Self {
        let paths = Paths::new(metrics, time);
        let seen = vec![0; paths.len()];
        Self { paths, seen, object: 0 }
    }

    /// Whether anything is wanted of JSON.
    pub(super) fn is_wanted(&self) -> bool {
        self.paths.root().is_some()
    }

    /// Whether the value at the root itself is wanted.
    pub(super) fn wants_root(&self) -> bool {
        self.paths.root().is_some_and(|root| !root.metrics.is_empty())
    }

    /// Appends the samples of a text; leaves some behind where it fails.
    pub(super) fn read(
        &mut self,
        payload: &[u8],
        times: Times,
        counts: &mut Counts,
        samples: &mut Vec<Sample>,
    ) -> Result<(), Refused> {
        let Ok(text) = std::str::from_utf8(payload) else { return Err(Refused::Utf8) };
        if text.starts_with('\u{feff}') {
            return Err(Refused::ByteOrderMark);
        }
        let Some(root) = self.paths.root() else { return Ok(()) };
        let mut walk = Walk {
            paths: &self.paths,
            seen: &mut self.seen,
            object: self.object,
            scanner: Scanner::new(text),
            first: samples.len(),
            samples,
            told_ms: None,
            repeats: 0,
            noticed: Noticed::default(),
            times,
        };
        let walked = walk.whole(root);
        self.object = walk.object;
        let noticed = walk.noticed;
        walked?;
        counts.leave_out(LeftOut::NotNumber, noticed.not_number);
        counts.leave_out(LeftOut::Null, noticed.null);
        counts.leave_out(LeftOut::Beyond, noticed.beyond);
        counts.times_wrong += noticed.times_wrong;
        Ok(())
    }
}

// === impl Walk ===

impl<'a> Walk<'a> {
    fn whole(&mut self, root: &'a Node) -> Result<(), Refused> {
        self.scanner.white_space();
        match self.scanner.peek() {
            None => return Err(Refused::Empty),
            Some(b'[') => self.array(|walk, _| walk.reading(root, 2))?,
            Some(_) => self.reading(root, 1)?,
        }
        self.scanner.white_space();
        if self.scanner.peek().is_some() { Err(Refused::Trailing) } else { Ok(()) }
    }

    /// One reading: the samples of one value, all with one time.
    fn reading(&mut self, root: &'a Node, depth: u32) -> Result<(), Refused> {
        self.object += 1;
        self.first = self.samples.len();
        self.told_ms = None;
        self.value(Some(root), depth)?;
        let at_ms = self.times.settle(self.told_ms, &mut self.noticed.times_wrong);
        for sample in self.samples.iter_mut().skip(self.first) {
            sample.at_ms = at_ms;
        }
        Ok(())
    }

    /// A value at `depth`, which would be its own if it were an array or an object.
    fn value(&mut self, node: Option<&'a Node>, depth: u32) -> Result<(), Refused> {
        match self.scanner.peek() {
            Some(b'"') => {
                let (text, _) = self.scanner.string()?;
                if let Some(node) = node {
                    self.text(node, text);
                }
            }
            Some(b'-' | b'0'..=b'9') => {
                let number = self.scanner.number()?;
                if let Some(node) = node {
                    self.number(node, number.value())?;
                }
            }
            Some(b'{') => {
                self.no_number(node);
                self.deepen(depth)?;
                self.members(node, depth)?;
            }
            Some(b'[') => {
                self.no_number(node);
                self.deepen(depth)?;
                let node = node.filter(|node| node.has_items());
                self.array(|walk, item| {
                    let below = node.and_then(|node| walk.paths.node(node.item(item)?));
                    walk.value(below, depth + 1)
                })?;
            }
            Some(b't') => self.name(node, "true", Some(1.0))?,
            Some(b'f') => self.name(node, "false", Some(0.0))?,
            Some(b'n') => self.name(node, "null", None)?,
            _ => return Err(self.scanner.no_value()),
        }
        Ok(())
    }

    fn deepen(&self, depth: u32) -> Result<(), Refused> {
        if depth > DEPTH_MAX { Err(Refused::TooDeep) } else { Ok(()) }
    }

    /// An object; the brace is at hand.
    fn members(&mut self, node: Option<&'a Node>, depth: u32) -> Result<(), Refused> {
        self.scanner.pass();
        self.scanner.white_space();
        if self.scanner.peek() == Some(b'}') {
            self.scanner.pass();
            return Ok(());
        }
        loop {
            let (key, escaped) = self.scanner.string()?;
            let below = node.and_then(|node| self.member(node, key, escaped));
            if let Some(below) = below {
                self.enter(below)?;
            }
            self.scanner.white_space();
            self.scanner.expect(b':')?;
            self.scanner.white_space();
            self.value(below, depth + 1)?;
            self.scanner.white_space();
            if self.scanner.peek() == Some(b'}') {
                self.scanner.pass();
                return Ok(());
            }
            self.scanner.expect(b',')?;
            self.scanner.white_space();
        }
    }

    /// The node of a member, by its key in quotation marks.
    fn member(&self, node: &Node, key: &str, escaped: bool) -> Option<&'a Node> {
        let id = if escaped {
            node.key(&unescape(key)?)
        } else {
            node.key(key.get(1..key.len().saturating_sub(1)).unwrap_or_default())
        };
        self.paths.node(id?)
    }

    /// An array; the bracket is at hand. The visitor reads one element.
    fn array(&mut self, mut visit: impl FnMut(&mut Self, u32) -> Result<(), Refused>) -> Result<(), Refused> {
        self.scanner.pass();
        self.scanner.white_space();
        if self.scanner.peek() == Some(b']') {
            self.scanner.pass();
            return Ok(());
        }
        let mut item = 0_u32;
        loop {
            visit(self, item)?;
            item = item.saturating_add(1);
            self.scanner.white_space();
            if self.scanner.peek() == Some(b']') {
                self.scanner.pass();
                return Ok(());
            }
            self.scanner.expect(b',')?;
            self.scanner.white_space();
        }
    }

    /// Notes that a member was seen; if it was seen before in this object, what it held then is forgotten.
    fn enter(&mut self, node: &Node) -> Result<(), Refused> {
        let Some(seen) = self.seen.get_mut(node.id) else { return Ok(()) };
        if *seen != self.object {
            *seen = self.object;
            return Ok(());
        }
        self.repeats += 1;
        if self.repeats > REPEATS_MAX {
            return Err(Refused::Repeats);
        }
        let mut place = 0;
        self.samples.retain(|sample| {
            place += 1;
            place <= self.first || !self.paths.is_below(sample.metric, node)
        });
        let below = (node.id..node.end).filter_map(|id| self.paths.node(id));
        if below.into_iter().any(|node| node.is_time) {
            self.told_ms = None;
        }
        Ok(())
    }

    fn number(&mut self, node: &Node, value: Option<f64>) -> Result<(), Refused> {
        if node.is_time {
            self.told_ms = Some(value.map_or(UNREADABLE, times::from_number));
        }
        let Some(value) = value else {
            self.noticed.beyond += node.metrics.len() as u64;
            return Ok(());
        };
        for metric in &node.metrics {
            if self.samples.len() >= SAMPLES_MAX {
                return Err(Refused::TooManySamples);
            }
            self.samples.push(Sample { metric: *metric, value, at_ms: 0 });
        }
        Ok(())
    }

    fn text(&mut self, node: &Node, text: &str) {
        if node.is_time {
            self.told_ms = Some(times::from_text(text.trim_matches('"')));
        }
        self.noticed.not_number += node.metrics.len() as u64;
    }

    fn name(&mut self, node: Option<&Node>, name: &'static str, value: Option<f64>) -> Result<(), Refused> {
        self.scanner.name(name)?;
        let Some(node) = node else { return Ok(()) };
        if value.is_none() {
            self.noticed.null += node.metrics.len() as u64;
            return Ok(());
        }
        self.number(node, value)
    }

    /// An array or object where a number may be wanted.
    fn no_number(&mut self, node: Option<&Node>) {
        if let Some(node) = node {
            self.noticed.not_number += node.metrics.len() as u64;
            if node.is_time {
                self.told_ms = Some(UNREADABLE);
            }
        }
    }
}
