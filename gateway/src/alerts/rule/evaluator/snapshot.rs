//! State as bytes: a file taken now and then, from which reading the log goes on.
//!
//! Version 1, all numbers with the highest byte first. Texts have their length before them in two bytes, lists their
//! count in four. Version (1 byte), clock, timers given out until (8 each), hold (a byte whether there is one, 8);
//! metrics (texts); fingerprints of rules (8 each); log, epoch and lane of entries (8, 4, 1); devices by key: key,
//! properties (count in a byte; tenant, site and class, each a byte whether there is one, then the text; clock, 8), last
//! entry, clock at it, series (metric 2,
//! time 8), states (metric 2, rule 2, [`Entry`]), last values (metric 2, value 8, time 8), states of rules about the
//! device (rule 2, [`State`]). States that are as at the beginning are left out. Metrics and rules are places in the
//! lists before, so that a snapshot outlives a change of the rules file.
//!
//! What a rule has learned of a series has a checksum of its own: if it is wrong, that series is learned anew and all
//! others go on. Whether it is raised stands outside of it, so that it can end.

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_proto::{Epoch, Lane, LogId, Seq};

use super::super::error::Junk;
use super::course::{Active, LEVELS_MAX, Phase};
use super::device::{Angle, Device, Known, Parts, State, Whole};
use super::series::{Averages, Entry, VALUE_MAX};
use super::watched::{Watched, Window};
use super::{ANGLES_MAX, Evaluator, Wheel};
use crate::alerts::learned::Series;
use crate::alerts::nouns::{Position, Severity};

const VERSION: u8 = 1;
/// Bytes of a learned series: what the detector knows; window, its value, samples and entry; checksum.
const WATCHED_BYTES: usize = Series::ENCODED_BYTES + 8 + 8 + 4 + 12 + 4;

impl Evaluator {
    /// Writes everything that it remembers; the same state is the same bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut order: Vec<&Device> = self.devices.iter().collect();
        order.sort_unstable_by(|one, two| one.key.cmp(&two.key));
        let begin = out.len();
        let mut writer = Writer { out: std::mem::take(out), sources: BTreeMap::new(), known: &self.sources };
        for device in &order {
            writer.device(device, &self.rules);
        }
        let Writer { out: mut all, sources, .. } = writer;
        let head = self.head(sources, order.len());
        // What stands before the devices is known only now. They are moved, as a copy of them would take their room again.
        let end = all.len();
        all.resize(end + head.len(), 0);
        all.copy_within(begin..end, begin + head.len());
        if let Some(before) = all.get_mut(begin..begin + head.len()) {
            before.copy_from_slice(&head);
        }
        *out = all;
    }

    /// What stands before the devices.
    fn head(&self, sources: BTreeMap<Source, u32>, devices: usize) -> Vec<u8> {
        let mut head = Writer { out: Vec::new(), sources: BTreeMap::new(), known: &[] };
        head.byte(VERSION).long(self.now_ms).long(self.wheel.elapsed_ms());
        head.byte(u8::from(self.hold_ms.is_some())).long(self.hold_ms.unwrap_or_default());
        head.count(self.rules.metrics().len());
        for metric in self.rules.metrics() {
            head.text(metric);
        }
        head.count(self.rules.len());
        for (_, rule) in self.rules.places() {
            head.long(rule.fingerprint);
        }
        let mut places: Vec<_> = sources.into_iter().map(|(source, place)| (place, source)).collect();
        places.sort_unstable();
        head.count(places.len());
        for (_, (log, epoch, lane)) in places {
            head.long(log.0).number(epoch.0).byte(lane);
        }
        head.count(devices);
        head.out
    }

    /// Goes on from what [`Self::encode`] wrote, perhaps under other rules: states of rules that changed are left out and
    /// counted.
    ///
    /// # Errors
    ///
    /// The bytes are none of ours; nothing has changed.
    pub(crate) fn decode(&mut self, bytes: &[u8]) -> Result<(), Junk> {
        let mut reader = Reader { rest: bytes };
        let mut fresh = Self::new(Arc::clone(&self.rules), self.limits);
        fresh.counts = self.counts;
        match reader.byte()? {
            VERSION => {}
            version => return Err(Junk::Version(version)),
        }
        fresh.now_ms = reader.long()?;
        fresh.wheel = Wheel::new(reader.long()?);
        let held = reader.flag()?;
        fresh.hold_ms = Some(reader.long()?).filter(|_| held);
        let names = Names {
            metrics: reader.list(2, |reader| Ok(self.rules.metric(reader.text()?)))?,
            rules: {
                let places: BTreeMap<u64, u16> =
                    self.rules.places().map(|(place, rule)| (rule.fingerprint, place)).collect();
                reader.list(8, |reader| Ok(places.get(&reader.long()?).copied()))?
            },
            sources: reader.list(13, Reader::source)?,
        };
        let devices = reader.count(0)?;
        let mut before: Option<&str> = None;
        for _ in 0..devices {
            let key = reader.text()?;
            if before.is_some_and(|before| before >= key) {
                return Err(Junk::Wrong("devices are not in order"));
            }
            before = Some(key);
            fresh.restore(key, &names, &mut reader)?;
        }
        if !reader.rest.is_empty() {
            return Err(Junk::Long);
        }
        *self = fresh;
        Ok(())
    }

    /// Reads a device and takes it in, as far as there is room.
    fn restore(&mut self, key: &str, names: &Names, reader: &mut Reader<'_>) -> Result<(), Junk> {
        let angles = self.angles(key, reader)?;
        let (_, seen_at) = reader.position(names)?;
        let seen_ms = reader.long()?;
        let mut parts = reader.parts(names, &mut |position| self.source(position))?;
        for entry in parts.entries.values_mut() {
            if let Entry::Learned(watched) = entry
                && !watched.has_begun()
            {
                self.counts.damaged += 1;
                watched.begin();
            }
        }
        let states = parts.entries.len() + parts.wholes.len();
        let parts = parts.renamed(&names.rules, &names.metrics);
        let left_out = states - parts.entries.len() - parts.wholes.len();
        self.counts.outdated += u64::try_from(left_out).unwrap_or_default();
        self.check_kinds(&parts)?;
        if self.devices.len() >= self.limits.devices_max {
            self.counts.devices_refused += 1;
            return Ok(());
        }
        let place = self.devices.len();
        let plan = self.planner.union(&self.rules, &angles);
        let key: Arc<str> = key.into();
        let mut device = Device::new(Arc::clone(&key), angles, plan, seen_at);
        device.seen_ms = seen_ms;
        device.fill(&self.rules, parts);
        if self.series + device.series() > self.limits.series_max {
            self.counts.series_refused += 1;
            device.fill(&self.rules, Parts::default());
        }
        self.series += device.series();
        self.admit_learned(&mut device);
        self.places.insert(key, u32::try_from(place).unwrap_or(u32::MAX));
        self.devices.push(device);
        self.set_timers(place);
        Ok(())
    }

    /// Counts what rules have learned of a device, and drops what is too much. What is raised must be able to end.
    fn admit_learned(&mut self, device: &mut Device) {
        for entry in device.entries.iter_mut().filter(|entry| entry.is_learned()) {
            if self.learned < self.limits.learned_max || entry.is_raised() {
                self.learned += 1;
            } else {
                self.counts.learned_refused += 1;
                *entry = Entry::Learned(Watched::default());
            }
        }
    }

    /// The properties under which a device speaks.
    fn angles(&mut self, key: &str, reader: &mut Reader<'_>) -> Result<Vec<Angle>, Junk> {
        let count = reader.byte()?;
        if !(1..=ANGLES_MAX).contains(&usize::from(count)) {
            return Err(Junk::Wrong("a device has no properties, or too many"));
        }
        let mut angles: Vec<Angle> = Vec::new();
        for _ in 0..count {
            let properties = [reader.option()?, reader.option()?, reader.option()?];
            let facet = self.planner.facet(&self.rules, properties);
            let plan = self.planner.plan_of(&self.rules, &facet, key);
            if angles.iter().any(|known| Arc::ptr_eq(&known.facet, &facet)) {
                return Err(Junk::Wrong("a device has the same properties twice"));
            }
            angles.push(Angle { facet, plan, seen_ms: reader.long()? });
        }
        Ok(angles)
    }

    /// A rule with the same fingerprint is of the same kind, and so must its states be.
    fn check_kinds(&self, parts: &Parts) -> Result<(), Junk> {
        use super::super::definition::Kind;
        let wrong = Err(Junk::Wrong("a state is of another kind than its rule"));
        for ((metric, rule), entry) in &parts.entries {
            let rule = self.rules.rule(*rule);
            let new = Entry::new(&rule.kind);
            let same = new.is_some_and(|new| std::mem::discriminant(&new) == std::mem::discriminant(entry));
            if !same || !rule.metrics().contains(metric) {
                return wrong;
            }
        }
        for whole in &parts.wholes {
            match (&self.rules.rule(whole.rule).kind, &whole.state) {
                (Kind::Expression { .. }, State::Expression { .. })
                | (Kind::Deadman(_), State::Deadman { .. }) => {}
                _ => return wrong,
            }
        }
        Ok(())
    }
}

/// What places in a snapshot stand for; none for what is gone.
#[derive(Debug)]
struct Names {
    metrics: Vec<Option<u16>>,
    rules: Vec<Option<u16>>,
    sources: Vec<Position>,
}

type Source = (LogId, Epoch, u8);

struct Writer<'s> {
    out: Vec<u8>,
    /// In the order in which they were met.
    sources: BTreeMap<Source, u32>,
    known: &'s [Position],
}

impl Writer<'_> {
    fn byte(&mut self, byte: u8) -> &mut Self {
        self.out.push(byte);
        self
    }

    fn short(&mut self, number: u16) -> &mut Self {
        self.out.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn number(&mut self, number: u32) -> &mut Self {
        self.out.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn long(&mut self, number: u64) -> &mut Self {
        self.out.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn real(&mut self, number: f64) -> &mut Self {
        self.long(number.to_bits())
    }

    fn count(&mut self, count: usize) -> &mut Self {
        self.number(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// Device keys and properties are far shorter than a text may be.
    fn text(&mut self, text: &str) -> &mut Self {
        let bytes = text.as_bytes();
        self.short(u16::try_from(bytes.len()).unwrap_or(u16::MAX));
        self.out.extend(bytes.iter().take(usize::from(u16::MAX)));
        self
    }

    fn option(&mut self, text: Option<&str>) -> &mut Self {
        self.byte(u8::from(text.is_some()));
        match text {
            Some(text) => self.text(text),
            None => self,
        }
    }

    fn position(&mut self, position: &Position) -> &mut Self {
        let source = (position.log, position.epoch, position.lane.number());
        let next = u32::try_from(self.sources.len()).unwrap_or(u32::MAX);
        let place = *self.sources.entry(source).or_insert(next);
        self.number(place).long(position.seq.0)
    }

    fn device(&mut self, device: &Device, rules: &super::RuleSet) {
        self.text(&device.key).byte(u8::try_from(device.angles.len()).unwrap_or(u8::MAX));
        for angle in &device.angles {
            let facet = &angle.facet;
            self.option(facet.tenant.as_deref()).option(facet.site.as_deref());
            self.option(facet.class.as_deref()).long(angle.seen_ms);
        }
        self.position(&device.seen_at).long(device.seen_ms);
        self.count(device.heads.len());
        for head in &device.heads {
            self.short(head.metric).long(head.last_ms);
        }
        let is_told = |((_, rule), entry): &((u16, u16), &Entry)| {
            Entry::new(&rules.rule(*rule).kind).as_ref() != Some(*entry)
        };
        self.count(device.states().filter(is_told).count());
        for ((metric, rule), entry) in device.states().filter(is_told) {
            self.short(metric).short(rule).entry(entry);
        }
        self.count(device.known.len());
        for known in &device.known {
            self.short(known.metric).real(known.value).long(known.at_ms);
        }
        self.count(device.wholes.len());
        for whole in &device.wholes {
            self.short(whole.rule).state(&whole.state);
        }
    }

    fn entry(&mut self, entry: &Entry) {
        match entry {
            Entry::Threshold(active) => {
                self.byte(1).active(active.as_deref());
            }
            Entry::Rate { active, base } => {
                self.byte(2).active(active.as_deref()).byte(u8::from(base.is_some()));
                let (value, at_ms) = base.unwrap_or_default();
                self.real(value).long(at_ms);
            }
            Entry::Stuck { active, anchor, anchor_ms, seq, source, samples } => {
                self.byte(3).active(active.as_deref()).real(*anchor).long(*anchor_ms).number(*samples);
                self.place(*source, *seq);
            }
            Entry::Drift(averages) => {
                let Averages { active, fast, slow, deviation, last_ms, first_s, samples, warm } = averages;
                self.byte(4).active(active.as_deref()).real(*fast).real(*slow).real(*deviation);
                self.long(*last_ms).number(*first_s).short(*samples).byte(u8::from(*warm));
            }
            Entry::Learned(watched) => self.watched(watched),
        }
    }

    fn watched(&mut self, watched: &Watched) {
        let Watched { series, window } = watched;
        self.byte(if window.raised { 6 } else { 5 });
        let begin = self.out.len();
        series.as_deref().unwrap_or(&Series::NEW).encode(&mut self.out);
        self.long(window.start_ms).real(window.value).number(window.samples);
        self.place(window.source.into(), window.seq);
        let checksum = crc32c::crc32c(self.out.get(begin..).unwrap_or_default());
        self.number(checksum);
    }

    /// The entry with this number.
    fn place(&mut self, source: u32, seq: u64) {
        let source = usize::try_from(source).ok().and_then(|source| self.known.get(source));
        let nowhere = Position { log: LogId(0), epoch: Epoch(0), lane: Lane::Telemetry, seq: Seq(0) };
        self.position(&Position { seq: Seq(seq), ..*source.unwrap_or(&nowhere) });
    }

    fn state(&mut self, state: &State) {
        match state {
            State::Expression { active, last_ms } => {
                self.byte(1).active(active.as_deref()).long(*last_ms);
            }
            State::Deadman { due_ms, silent } => {
                self.byte(2).long(*due_ms).byte(u8::from(*silent));
            }
        }
    }

    fn active(&mut self, active: Option<&Active>) -> &mut Self {
        self.byte(u8::from(active.is_some()));
        let Some(active) = active else { return self };
        self.position(&active.episode).long(active.started_ms);
        self.byte(match active.told {
            None => 0,
            Some(Severity::Info) => 1,
            Some(Severity::Warning) => 2,
            Some(Severity::Critical) => 3,
        });
        for phase in &active.phases {
            match phase {
                Phase::Quiet => self.byte(0),
                Phase::Pending { since_ms, samples } => self.byte(1).long(*since_ms).number(*samples),
                Phase::Raised => self.byte(2),
                Phase::Ending { since_ms } => self.byte(3).long(*since_ms),
            };
        }
        self
    }
}

struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Result<&'b [u8], Junk> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Junk::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Junk> {
        self.take(N)?.try_into().map_err(|_| Junk::Short)
    }

    fn byte(&mut self) -> Result<u8, Junk> {
        self.array().map(u8::from_be_bytes)
    }

    fn short(&mut self) -> Result<u16, Junk> {
        self.array().map(u16::from_be_bytes)
    }

    fn number(&mut self) -> Result<u32, Junk> {
        self.array().map(u32::from_be_bytes)
    }

    fn long(&mut self) -> Result<u64, Junk> {
        self.array().map(u64::from_be_bytes)
    }

    fn real(&mut self) -> Result<f64, Junk> {
        let real = f64::from_bits(self.long()?);
        if real.is_finite() { Ok(real) } else { Err(Junk::Wrong("a number is infinite, or none")) }
    }

    /// A number that series hold within their bound.
    fn bounded(&mut self) -> Result<f64, Junk> {
        let real = self.real()?;
        if real.abs() <= VALUE_MAX { Ok(real) } else { Err(Junk::Wrong("a number is too large")) }
    }

    fn flag(&mut self) -> Result<bool, Junk> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Junk::Wrong("a truth is neither")),
        }
    }

    /// A count of things of at least so many bytes.
    fn count(&mut self, least: usize) -> Result<usize, Junk> {
        let count = usize::try_from(self.number()?).map_err(|_| Junk::Short)?;
        if count.saturating_mul(least) > self.rest.len() { Err(Junk::Short) } else { Ok(count) }
    }

    fn list<T>(
        &mut self,
        least: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, Junk>,
    ) -> Result<Vec<T>, Junk> {
        (0..self.count(least)?).map(|_| read(self)).collect()
    }

    fn text(&mut self) -> Result<&'b str, Junk> {
        let length = usize::from(self.short()?);
        std::str::from_utf8(self.take(length)?).map_err(|_| Junk::Wrong("a text is none"))
    }

    fn option(&mut self) -> Result<Option<&'b str>, Junk> {
        if self.flag()? { self.text().map(Some) } else { Ok(None) }
    }

    fn source(&mut self) -> Result<Position, Junk> {
        let (log, epoch) = (LogId(self.long()?), Epoch(self.number()?));
        let lane = Lane::try_from(self.byte()?).map_err(|_| Junk::Wrong("there is no such lane"))?;
        Ok(Position { log, epoch, lane, seq: Seq(0) })
    }

    fn position(&mut self, names: &Names) -> Result<(u32, Position), Junk> {
        let place = self.number()?;
        let source = usize::try_from(place).ok().and_then(|place| names.sources.get(place));
        let source = source.ok_or(Junk::Wrong("there is no such log"))?;
        Ok((place, Position { seq: Seq(self.long()?), ..*source }))
    }

    fn parts(&mut self, names: &Names, source: &mut dyn FnMut(Position) -> u32) -> Result<Parts, Junk> {
        let heads = self.list(10, |reader| Ok((reader.short()?, reader.long()?)))?;
        let mut entries = BTreeMap::new();
        for _ in 0..self.count(6)? {
            let key = (self.short()?, self.short()?);
            if entries.last_key_value().is_some_and(|(last, _)| *last >= key) {
                return Err(Junk::Wrong("states are not in order"));
            }
            entries.insert(key, self.entry(names, source)?);
        }
        let known = self.list(18, |reader| {
            Ok(Known { metric: reader.short()?, value: reader.real()?, at_ms: reader.long()? })
        })?;
        let wholes =
            self.list(4, |reader| Ok(Whole { rule: reader.short()?, state: reader.state(names)? }))?;
        let ascending = heads.is_sorted_by(|one, two| one.0 < two.0)
            && known.is_sorted_by(|one, two| one.metric < two.metric)
            && wholes.is_sorted_by(|one, two| one.rule < two.rule);
        if !ascending {
            return Err(Junk::Wrong("series are not in order"));
        }
        Ok(Parts { heads, entries, known, wholes })
    }

    fn entry(&mut self, names: &Names, source: &mut dyn FnMut(Position) -> u32) -> Result<Entry, Junk> {
        let kind = self.byte()?;
        if let 5 | 6 = kind {
            let bytes = self.take(WATCHED_BYTES)?;
            let mut watched = Reader { rest: bytes }.watched(names, source).unwrap_or_default();
            watched.window.raised = kind == 6;
            return Ok(Entry::Learned(watched));
        }
        let active = self.active(names)?;
        Ok(match kind {
            1 => Entry::Threshold(active),
            2 => {
                let begun = self.flag()?;
                let base = (self.bounded()?, self.long()?);
                Entry::Rate { active, base: begun.then_some(base) }
            }
            3 => {
                let (anchor, anchor_ms, samples) = (self.real()?, self.long()?, self.number()?);
                let (_, position) = self.position(names)?;
                let source = source(position);
                Entry::Stuck { active, anchor, anchor_ms, seq: position.seq.0, source, samples }
            }
            4 => Entry::Drift(Averages {
                active,
                fast: self.bounded()?,
                slow: self.bounded()?,
                deviation: self.bounded()?,
                last_ms: self.long()?,
                first_s: self.number()?,
                samples: self.short()?,
                warm: self.flag()?,
            }),
            _ => return Err(Junk::Wrong("there is no such kind of state")),
        })
    }

    /// What a rule has learned of a series; none if it is damaged.
    fn watched(&mut self, names: &Names, source: &mut dyn FnMut(Position) -> u32) -> Option<Watched> {
        let (state, checksum) = self.rest.split_last_chunk()?;
        if crc32c::crc32c(state) != u32::from_be_bytes(*checksum) {
            return None;
        }
        let series = Series::decode(&mut self.rest).ok()?;
        let (start_ms, value, samples) = (self.long().ok()?, self.real().ok()?, self.number().ok()?);
        let (_, position) = self.position(names).ok()?;
        let source = u16::try_from(source(position)).unwrap_or(u16::MAX);
        let window = Window { start_ms, value, seq: position.seq.0, samples, source, raised: false };
        Some(Watched { series: Some(Box::new(series)), window })
    }

    fn state(&mut self, names: &Names) -> Result<State, Junk> {
        match self.byte()? {
            1 => Ok(State::Expression { active: self.active(names)?, last_ms: self.long()? }),
            2 => Ok(State::Deadman { due_ms: self.long()?, silent: self.flag()? }),
            _ => Err(Junk::Wrong("there is no such kind of state")),
        }
    }

    fn active(&mut self, names: &Names) -> Result<Option<Box<Active>>, Junk> {
        if !self.flag()? {
            return Ok(None);
        }
        let (_, episode) = self.position(names)?;
        let started_ms = self.long()?;
        let told = match self.byte()? {
            0 => None,
            1 => Some(Severity::Info),
            2 => Some(Severity::Warning),
            3 => Some(Severity::Critical),
            _ => return Err(Junk::Wrong("there is no such severity")),
        };
        let mut phases = [Phase::Quiet; LEVELS_MAX];
        for phase in &mut phases {
            *phase = match self.byte()? {
                0 => Phase::Quiet,
                1 => Phase::Pending { since_ms: self.long()?, samples: self.number()? },
                2 => Phase::Raised,
                3 => Phase::Ending { since_ms: self.long()? },
                _ => return Err(Junk::Wrong("there is no such phase")),
            };
        }
        Ok(Some(Box::new(Active { episode, started_ms, told, phases })))
    }
}
