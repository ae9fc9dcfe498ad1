//! The verdict: what the fleet was promised against what arrived in the cloud.
//!
//! The judge compares two sources that share no code with the gateway's own accounting: the
//! [`Ledger`] of the devices, and the records as a consumer read them. Each record is judged by the
//! device's own numbering in the payload and by the identity in its header.
//!
//! | Word | Meaning | Allowed |
//! |---|---|---|
//! | lost | acknowledged and found nowhere | never |
//! | reordered | a first occurrence behind a later reading of the same device and stream, or in another partition | never, except that a device may move on to another partition once the run lets topics grow |
//! | unexpected | never sent, a wrong key, unreadable, two readings under one identity, or more identities than publishes | never |
//! | duplicated | the same identity once more | when the run allows it: a killed gateway may repeat what it had sent |
//! | resent | a QoS 1 reading under a further identity, because its device published it again | after a reconnect |
//! | QoS 2 repeats | the same for a QoS 2 reading: its session was lost before PUBREC | after a reconnect |
//! | QoS 0 missing | sent at QoS 0 and found nowhere | always, QoS 0 promises nothing |
//!
//! Records must be fed in the order of their partition; partitions may be interleaved freely.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use penstock_proto::{Epoch, GatewayId, Identity, Lane, LogId, Stream};

use crate::ledger::{Ledger, Qos, Totals};

/// Most examples kept of what went wrong.
pub const EXAMPLES_MAX: usize = 20;

/// One record as it was read from the cloud.
#[derive(Debug, Clone, Copy)]
pub struct Delivered<'a> {
    /// The device named in the payload.
    pub device: &'a str,
    /// The device's number for the reading.
    pub reading: u64,
    /// The key of the record; it must be the device.
    pub key: &'a [u8],
    /// The identity in the header.
    pub identity: &'a Identity,
    /// Where it was found.
    pub place: Place,
}

/// Where a record was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the topic in the run's list.
    pub topic: usize,
    /// The partition.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
}

/// What was found, in readings unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that were judged.
    pub records: u64,
    /// Different readings found.
    pub delivered: u64,
    /// Acknowledged readings found nowhere.
    pub lost: u64,
    /// Records whose identity was there before.
    pub duplicated: u64,
    /// Further identities of QoS 1 readings.
    pub resent: u64,
    /// Further identities of QoS 2 readings.
    pub qos2_repeats: u64,
    /// First occurrences out of order.
    pub reordered: u64,
    /// Records that nothing explains.
    pub unexpected: u64,
    /// QoS 0 readings found nowhere.
    pub qos0_missing: u64,
}

/// What happened during the run, and what it tolerates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Conditions {
    /// How often devices had to connect again.
    pub reconnects: u64,
    /// The run killed the gateway, so identities may repeat.
    pub allow_duplicated: bool,
    /// Readings may appear under further identities although no reconnect was seen.
    pub allow_resent: bool,
    /// Readings may stay without an answer.
    pub allow_unacked: bool,
    /// A topic got more partitions, so a device may move from one to another: all it has in the one then comes
    /// before all it has in the other.
    pub allow_moved: bool,
}

/// The outcome: counts, and the reasons when a promise was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The counts.
    pub counts: Counts,
    /// One sentence per broken promise, then examples; empty when every promise was kept.
    pub reasons: Vec<String>,
}

/// Collects records and compares them with the ledger.
#[derive(Debug)]
pub struct Judge<'l> {
    ledger: &'l Ledger,
    totals: Totals,
    sources: HashMap<Source, u32>,
    identities: SeqSet,
    seen: Vec<Seen>,
    counts: Counts,
    qos0_found: u64,
    acked_found: u64,
    examples: Vec<String>,
}

/// The part of an identity that many records share.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Source {
    gateway: GatewayId,
    log: LogId,
    epoch: Epoch,
    lane: Lane,
}

/// An identity in short: the number of its source, and its seq, which is never 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Name {
    source: u32,
    seq: u64,
}

/// What was found of one device.
#[derive(Debug, Clone, Default)]
struct Seen {
    /// The first identity of reading `index + 1`; seq 0 when it was not found yet.
    first: Vec<Name>,
    /// Further identities.
    more: BTreeMap<u64, Vec<Name>>,
    live: Vec<Progress>,
    backlog: Vec<Progress>,
}

/// How far the first occurrences of one stream have come in one partition.
#[derive(Debug, Clone, Copy)]
struct Progress {
    topic: usize,
    partition: i32,
    lowest: u64,
    highest: u64,
}

/// A set of names with one bit per seq.
#[derive(Debug, Clone, Default)]
struct SeqSet {
    chunks: HashMap<(u32, u64), Box<[u64; SeqSet::WORDS]>>,
}

// === impl SeqSet ===

impl SeqSet {
    const WORDS: usize = 64;
    const BITS: u64 = 64 * 64;

    /// Adds a name; returns false when it was there already.
    fn insert(&mut self, name: Name) -> bool {
        let chunk = self
            .chunks
            .entry((name.source, name.seq / Self::BITS))
            .or_insert_with(|| Box::new([0; Self::WORDS]));
        let bit = name.seq % Self::BITS;
        let word = usize::try_from(bit / 64).ok().and_then(|index| chunk.get_mut(index));
        let mask = 1_u64 << (bit % 64);
        word.is_some_and(|word| {
            let new = *word & mask == 0;
            *word |= mask;
            new
        })
    }
}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "topic {} partition {} offset {}", self.topic, self.partition, self.offset)
    }
}

// === impl Judge ===

impl<'l> Judge<'l> {
    /// A judge over a finished ledger.
    #[must_use]
    pub fn new(ledger: &'l Ledger) -> Self {
        Self {
            ledger,
            totals: ledger.totals(),
            sources: HashMap::new(),
            identities: SeqSet::default(),
            seen: vec![Seen::default(); ledger.len()],
            counts: Counts::default(),
            qos0_found: 0,
            acked_found: 0,
            examples: Vec::new(),
        }
    }

    /// Acknowledged readings that were not found yet.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.totals.acked.saturating_sub(self.acked_found)
    }

    /// Takes in a record that could not be read as a reading with an identity.
    pub fn unreadable(&mut self, place: Place, why: &str) {
        self.counts.records += 1;
        self.unexpected(format!("{place}: {why}"));
    }

    /// Takes in the next record of its partition.
    pub fn record(&mut self, record: Delivered<'_>) {
        self.counts.records += 1;
        let Delivered { device, reading, place, .. } = record;
        let ledger = self.ledger;
        let found =
            ledger.position(device).and_then(|position| Some((position, ledger.devices().get(position)?)));
        let Some((position, (_, account))) = found else {
            return self.unexpected(format!("{place}: unknown device {device:?}"));
        };
        if record.key != device.as_bytes() {
            self.unexpected(format!("{place}: {device} reading {reading} has another key"));
        }
        let publishes = account.publishes(reading);
        if publishes == 0 {
            return self.unexpected(format!("{place}: {device} never sent reading {reading}"));
        }
        let name = self.name(record.identity);
        let new_identity = self.identities.insert(name);
        let identities = self.seen.get_mut(position).map_or(0, |seen| seen.add(reading, name, new_identity));
        match (new_identity, identities) {
            (true, 1) => self.first(position, record),
            (true, n) if n > publishes => {
                let note =
                    format!("{place}: {device} reading {reading}, {n} identities of {publishes} publishes");
                self.unexpected(note);
            }
            (true, _) if account.qos() == Qos::ExactlyOnce => self.counts.qos2_repeats += 1,
            (true, _) => self.counts.resent += 1,
            (false, 0) => self.unexpected(format!("{place}: {} names two readings", record.identity)),
            (false, _) => {
                self.counts.duplicated += 1;
                self.example(format!("duplicated: {place}: {}", record.identity));
            }
        }
    }

    /// A reading was found for the first time.
    fn first(&mut self, position: usize, record: Delivered<'_>) {
        let Delivered { device, reading, place, identity, .. } = record;
        self.counts.delivered += 1;
        let Some((_, account)) = self.ledger.devices().get(position) else { return };
        self.acked_found += u64::from(account.is_acked(reading));
        self.qos0_found += u64::from(account.qos() == Qos::AtMostOnce);
        let Some(seen) = self.seen.get_mut(position) else { return };
        let progress = match identity.stream {
            Stream::Live => &mut seen.live,
            Stream::Backlog => &mut seen.backlog,
        };
        let Place { topic, partition, .. } = place;
        let known = progress.iter_mut().find(|known| (known.topic, known.partition) == (topic, partition));
        let Some(known) = known else {
            progress.push(Progress { topic, partition, lowest: reading, highest: reading });
            return;
        };
        let highest = known.highest;
        known.lowest = known.lowest.min(reading);
        known.highest = highest.max(reading);
        if reading < highest {
            self.counts.reordered += 1;
            self.example(format!("reordered: {place}: {device} reading {reading} after {highest}"));
        }
    }

    /// The verdict over everything taken in so far.
    #[must_use]
    pub fn verdict(&self, conditions: Conditions) -> Verdict {
        let totals = self.totals;
        let counts = Counts {
            lost: self.missing(),
            reordered: self.counts.reordered + self.moved(conditions.allow_moved).count() as u64,
            qos0_missing: totals.qos0_sent.saturating_sub(self.qos0_found),
            ..self.counts
        };
        let reconnected = conditions.reconnects > 0 || conditions.allow_resent;
        let rules = [
            (counts.lost, false, "acknowledged readings are lost"),
            (counts.reordered, false, "readings are out of order"),
            (counts.unexpected, false, "records are unexpected"),
            (counts.duplicated, conditions.allow_duplicated, "records are duplicated"),
            (counts.resent, reconnected, "readings are resent although no device reconnected"),
            (counts.qos2_repeats, reconnected, "QoS 2 readings are repeated although no session was lost"),
            (totals.unacked, conditions.allow_unacked, "readings were never acknowledged"),
        ];
        let broken = rules.iter().filter(|(count, allowed, _)| *count > 0 && !allowed);
        let mut reasons: Vec<String> = broken.map(|(count, _, what)| format!("{count} {what}")).collect();
        if !reasons.is_empty() {
            let examples = self.lost_examples().chain(self.examples.iter().cloned());
            let moved = self.moved(conditions.allow_moved).take(EXAMPLES_MAX / 2);
            reasons.extend(examples.chain(moved).take(EXAMPLES_MAX));
        }
        Verdict { counts, reasons }
    }

    /// Devices that have one stream in several partitions; if they may move, only those that did not do so in order.
    fn moved(&self, may_move: bool) -> impl Iterator<Item = String> + '_ {
        let devices = self.ledger.devices().iter().zip(&self.seen);
        devices.flat_map(move |((device, _), seen)| {
            let streams = [&seen.live, &seen.backlog].into_iter();
            streams.flat_map(move |stream| out_of_place(stream, may_move)).map(move |(partition, lowest)| {
                format!("reordered: {device} reading {lowest} is in another partition, {partition}")
            })
        })
    }

    fn lost_examples(&self) -> impl Iterator<Item = String> + '_ {
        let devices = self.ledger.devices().iter().zip(&self.seen);
        let lost = devices.flat_map(|((device, account), seen)| {
            let missing = account.acked_readings().filter(|&reading| !seen.found(reading));
            missing.map(move |reading| format!("lost: {device} reading {reading}"))
        });
        lost.take(EXAMPLES_MAX / 2)
    }

    fn name(&mut self, identity: &Identity) -> Name {
        let Identity { gateway, log, epoch, lane, seq, .. } = identity;
        let source = Source { gateway: gateway.clone(), log: *log, epoch: *epoch, lane: *lane };
        let next = u32::try_from(self.sources.len()).unwrap_or(u32::MAX);
        Name { source: *self.sources.entry(source).or_insert(next), seq: seq.0 }
    }

    fn unexpected(&mut self, what: String) {
        self.counts.unexpected += 1;
        self.example(format!("unexpected: {what}"));
    }

    fn example(&mut self, what: String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(what);
        }
    }
}

/// The partitions of a stream, and the lowest reading in each, that do not follow on the one before.
fn out_of_place(stream: &[Progress], may_move: bool) -> Vec<(i32, u64)> {
    let mut ordered = stream.to_vec();
    ordered.sort_unstable_by_key(|progress| progress.lowest);
    let pairs = ordered.iter().zip(ordered.iter().skip(1));
    let wrong = pairs.filter(|(before, after)| !may_move || before.highest > after.lowest);
    wrong.map(|(_, after)| (after.partition, after.lowest)).collect()
}

// === impl Seen ===

impl Seen {
    /// Notes an occurrence. Returns how many identities the reading has, and 0 for an identity that is
    /// known but belongs to another reading.
    fn add(&mut self, reading: u64, name: Name, new_identity: bool) -> u32 {
        let Some(index) = reading.checked_sub(1).and_then(|index| usize::try_from(index).ok()) else {
            return 0;
        };
        if !new_identity {
            let more = self.more.get(&reading);
            let known = self.first.get(index) == Some(&name) || more.is_some_and(|more| more.contains(&name));
            return u32::from(known);
        }
        if self.first.len() <= index {
            self.first.resize(index + 1, Name::default());
        }
        match self.first.get_mut(index) {
            Some(first) if first.seq == 0 => {
                *first = name;
                1
            }
            _ => {
                let more = self.more.entry(reading).or_default();
                more.push(name);
                u32::try_from(more.len()).unwrap_or(u32::MAX).saturating_add(1)
            }
        }
    }

    fn found(&self, reading: u64) -> bool {
        let index = reading.checked_sub(1).and_then(|index| usize::try_from(index).ok());
        index.and_then(|index| self.first.get(index)).is_some_and(|first| first.seq != 0)
    }
}

// === impl Verdict ===

impl Verdict {
    /// Whether every promise was kept.
    #[must_use]
    pub fn pass(&self) -> bool {
        self.reasons.is_empty()
    }
}

#[cfg(test)]
mod tests;
