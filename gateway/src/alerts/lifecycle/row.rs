//! Rows of the table: keys and values as `docs/formats/alert-table-v1.md` says.
//!
//! A value that is anything else than what this version writes is junk: it is not read, and deleted.

#![cfg_attr(not(test), warn(clippy::indexing_slicing))]

use std::collections::HashSet;
use std::sync::Arc;

use penstock_proto::{Epoch, Lane, LogId, Seq};

use super::alert::{Alert, Ending, Gate, Told};
use super::bucket::Bucket;
use super::group::{Group, RECENT_MAX, Storm, Tally};
use super::ident::Digest;
use super::policy::{Facet, TRANSITIONS_MAX};
use crate::alerts::nouns::{Position, Severity};
use crate::outbox::{Input, put_sized};

/// What a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum RowKey {
    /// An alert, by its subject.
    Alert(Digest),
    /// What a subject without an alert did lately.
    Past(Digest),
    Group(Digest),
    /// The bucket of a tenant.
    Tenant(Digest),
    /// The buckets of the gateway.
    Gateway,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Row {
    Alert(Box<Alert>),
    Past(Vec<u64>),
    Group(Group),
    Tenant(Option<Arc<str>>, Bucket),
    Gateway(Gateway),
}

/// What there is once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gateway {
    pub(super) plain: Bucket,
    pub(super) critical: Bucket,
    pub(super) next_order: u64,
}

/// Texts that many alerts share, kept once.
#[derive(Debug, Default)]
pub(super) struct Names {
    texts: HashSet<Arc<str>>,
    /// How many there may be before those that nobody uses are let go.
    sweep_at: usize,
}

/// Keys of the outbox's state that begin with this byte are this table's.
pub(crate) const FAMILY: u8 = 19;
const VERSION: u8 = 1;
/// Of an alert's row. One of version 1 says nothing about what was done.
const ALERT_VERSION: u8 = 2;
/// Longest text in a row.
const TEXT_BYTES_MAX: usize = 1024;

// === impl Names ===

impl Names {
    pub(super) fn keep(&mut self, text: &str) -> Arc<str> {
        if let Some(kept) = self.texts.get(text) {
            return Arc::clone(kept);
        }
        if self.texts.len() >= self.sweep_at {
            self.texts.retain(|text| Arc::strong_count(text) > 1);
            self.sweep_at = (2 * self.texts.len()).max(1024);
        }
        let kept: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&kept));
        kept
    }
}

// === impl RowKey ===

impl RowKey {
    pub(super) fn encode(self) -> Vec<u8> {
        let (kind, digest) = match self {
            Self::Alert(subject) => (1, Some(subject)),
            Self::Past(subject) => (2, Some(subject)),
            Self::Group(group) => (3, Some(group)),
            Self::Tenant(tenant) => (4, Some(tenant)),
            Self::Gateway => (5, None),
        };
        let mut key = vec![FAMILY, kind];
        if let Some(Digest(digest)) = digest {
            key.extend_from_slice(&digest);
        }
        key
    }

    pub(super) fn decode(key: &[u8]) -> Option<Self> {
        let (family, rest) = key.split_first()?;
        let (kind, digest) = rest.split_first()?;
        if *family != FAMILY {
            return None;
        }
        if *kind == 5 {
            return digest.is_empty().then_some(Self::Gateway);
        }
        let digest = Digest(digest.try_into().ok()?);
        match *kind {
            1 => Some(Self::Alert(digest)),
            2 => Some(Self::Past(digest)),
            3 => Some(Self::Group(digest)),
            4 => Some(Self::Tenant(digest)),
            _ => None,
        }
    }
}

// === impl Row ===

impl Row {
    /// The row at `key`; none if it is junk.
    pub(super) fn decode(key: RowKey, value: &[u8], names: &mut Names) -> Option<Self> {
        let mut input = Input::new(value);
        let version = input.u8()?;
        if version != VERSION && (version != ALERT_VERSION || !matches!(key, RowKey::Alert(_))) {
            return None;
        }
        let row = match key {
            RowKey::Alert(_) => Self::Alert(Box::new(alert(&mut input, version, names)?)),
            RowKey::Past(_) => Self::Past(times(&mut input)?),
            RowKey::Group(_) => Self::Group(group(&mut input)?),
            RowKey::Tenant(_) => {
                let tenant = optional(&mut input, names)?;
                Self::Tenant(tenant, bucket(&mut input)?)
            }
            RowKey::Gateway => Self::Gateway(Gateway {
                plain: bucket(&mut input)?,
                critical: bucket(&mut input)?,
                next_order: input.u64()?,
            }),
        };
        input.is_empty().then_some(row)
    }
}

// === writing ===

pub(super) fn put_alert(out: &mut Vec<u8>, alert: &Alert) {
    out.push(ALERT_VERSION);
    out.extend_from_slice(&alert.id.0);
    for number in [alert.order, alert.opened_ms, alert.version, alert.meaning] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    put_position(out, alert.episode);
    for number in [alert.started_ms, alert.changed_ms, alert.told_ms] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&alert.transition.to_le_bytes());
    let flags = [alert.holds, alert.flapping, alert.repeat, alert.acted_open];
    out.push(flags.iter().rev().fold(0, |all, flag| all << 1 | u8::from(*flag)));
    out.push(severity_number(alert.severity));
    out.push(match alert.told {
        Told::Nothing => 0,
        Told::Raised(severity) => severity_number(severity),
        Told::Flapping => 4,
    });
    out.push(match alert.ending {
        Ending::Cleared => 0,
        Ending::RuleRemoved => 1,
        Ending::RuleChanged => 2,
    });
    out.push(match alert.gate {
        Gate::Clear => 0,
        Gate::Inhibited => 1,
        Gate::Muted => 2,
        Gate::Storm => 3,
        Gate::Held => 4,
    });
    put_sized(out, alert.rule.as_bytes());
    put_sized(out, alert.device.as_bytes());
    for text in [&alert.metric, &alert.tenant, &alert.site, &alert.class, &alert.stream] {
        put_optional(out, text.as_deref());
    }
    put_optional(out, alert.traceparent.as_deref());
    for number in [alert.threshold, alert.observed, alert.score] {
        out.push(u8::from(number.is_some()));
        if let Some(number) = number {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    put_times(out, &alert.changes);
    out.extend_from_slice(&alert.acted.to_le_bytes());
}

pub(super) fn put_past(out: &mut Vec<u8>, times: &[u64]) {
    out.push(VERSION);
    put_times(out, times);
}

pub(super) fn put_group(out: &mut Vec<u8>, group: &Group) {
    out.push(VERSION);
    put_count(out, group.facets.len());
    for (facet, value) in &group.facets {
        put_count(out, Facet::ALL.iter().position(|other| other == facet).unwrap_or_default());
        put_optional(out, value.as_deref());
    }
    put_count(out, group.recent.len());
    for (from, count) in &group.recent {
        out.extend_from_slice(&from.to_le_bytes());
        out.extend_from_slice(&count.to_le_bytes());
    }
    out.extend_from_slice(&group.suppressed.to_le_bytes());
    out.push(u8::from(group.storm.is_some()));
    if let Some(storm) = &group.storm {
        out.extend_from_slice(&storm.id.0);
        out.push(severity_number(storm.worst));
        out.extend_from_slice(&storm.transition.to_le_bytes());
        let Tally { raised, untracked, open } = storm.told;
        let numbers = [
            storm.since_ms,
            storm.due_ms,
            storm.told_ms,
            storm.raised,
            storm.untracked,
            raised,
            untracked,
            open,
        ];
        for number in numbers {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

pub(super) fn put_tenant(out: &mut Vec<u8>, tenant: Option<&str>, bucket: Bucket) {
    out.push(VERSION);
    put_optional(out, tenant);
    put_bucket(out, bucket);
}

pub(super) fn put_gateway(out: &mut Vec<u8>, gateway: &Gateway) {
    out.push(VERSION);
    put_bucket(out, gateway.plain);
    put_bucket(out, gateway.critical);
    out.extend_from_slice(&gateway.next_order.to_le_bytes());
}

fn put_position(out: &mut Vec<u8>, position: Position) {
    let Position { log, epoch, lane, seq } = position;
    out.extend_from_slice(&log.0.to_le_bytes());
    out.extend_from_slice(&epoch.0.to_le_bytes());
    out.push(lane.number());
    out.extend_from_slice(&seq.0.to_le_bytes());
}

fn put_bucket(out: &mut Vec<u8>, bucket: Bucket) {
    out.extend_from_slice(&bucket.level.to_le_bytes());
    out.extend_from_slice(&bucket.at_ms.to_le_bytes());
}

fn put_times(out: &mut Vec<u8>, times: &[u64]) {
    put_count(out, times.len());
    for time in times {
        out.extend_from_slice(&time.to_le_bytes());
    }
}

fn put_optional(out: &mut Vec<u8>, text: Option<&str>) {
    out.push(u8::from(text.is_some()));
    if let Some(text) = text {
        put_sized(out, text.as_bytes());
    }
}

/// Everything that is counted in a row has a bound below 256.
fn put_count(out: &mut Vec<u8>, count: usize) {
    out.push(u8::try_from(count).unwrap_or(u8::MAX));
}

const fn severity_number(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 1,
        Severity::Warning => 2,
        Severity::Critical => 3,
    }
}

// === reading ===

fn alert(input: &mut Input<'_>, layout: u8, names: &mut Names) -> Option<Alert> {
    let id = digest(input)?;
    let (order, opened_ms) = (input.u64()?, input.u64()?);
    let (version, meaning) = (input.u64()?, input.u64()?);
    let episode = position(input)?;
    let (started_ms, changed_ms, told_ms) = (input.u64()?, input.u64()?, input.u64()?);
    let transition = input.u32()?;
    let flags = input.u8().filter(|flags| *flags < if layout == VERSION { 8 } else { 16 })?;
    let severity = severity(input.u8()?)?;
    let told = match input.u8()? {
        0 => Told::Nothing,
        4 => Told::Flapping,
        number => Told::Raised(self::severity(number)?),
    };
    let ending = match input.u8()? {
        0 => Ending::Cleared,
        1 => Ending::RuleRemoved,
        2 => Ending::RuleChanged,
        _ => return None,
    };
    let gate = match input.u8()? {
        0 => Gate::Clear,
        1 => Gate::Inhibited,
        2 => Gate::Muted,
        3 => Gate::Storm,
        4 => Gate::Held,
        _ => return None,
    };
    let mut alert = Alert {
        id,
        order,
        opened_ms,
        rule: names.keep(text(input)?),
        version,
        meaning,
        device: text(input)?.into(),
        metric: optional(input, names)?,
        tenant: optional(input, names)?,
        site: optional(input, names)?,
        class: optional(input, names)?,
        stream: optional(input, names)?,
        severity,
        traceparent: optional_text(input)?.map(Into::into),
        threshold: number(input)?,
        observed: number(input)?,
        score: number(input)?,
        episode,
        started_ms,
        changed_ms,
        transition,
        acted: 0,
        acted_open: flags & 8 != 0,
        told,
        told_ms,
        holds: flags & 1 != 0,
        flapping: flags & 2 != 0,
        repeat: flags & 4 != 0,
        ending,
        gate,
        changes: times(input)?,
        group: Digest::default(),
    };
    if layout == VERSION {
        // There was nothing to do then; what is open does not become new.
        alert.note_acted(u32::from(alert.is_open()));
    } else {
        alert.acted = input.u32()?;
    }
    Some(alert)
}

fn group(input: &mut Input<'_>) -> Option<Group> {
    let mut group = Group::default();
    for _ in 0..count(input, Facet::ALL.len())? {
        let facet = *Facet::ALL.get(usize::from(input.u8()?))?;
        if group.facets.last().is_some_and(|(last, _)| *last >= facet) {
            return None;
        }
        group.facets.push((facet, optional_text(input)?.map(Into::into)));
    }
    for _ in 0..count(input, RECENT_MAX)? {
        let piece = (input.u64()?, input.u32()?);
        if group.recent.last().is_some_and(|(last, _)| *last >= piece.0) {
            return None;
        }
        group.recent.push(piece);
    }
    group.suppressed = input.u64()?;
    group.storm = match input.u8()? {
        0 => None,
        1 => Some(storm(input)?),
        _ => return None,
    };
    Some(group)
}

fn storm(input: &mut Input<'_>) -> Option<Storm> {
    Some(Storm {
        id: digest(input)?,
        worst: severity(input.u8()?)?,
        transition: input.u32()?,
        since_ms: input.u64()?,
        due_ms: input.u64()?,
        told_ms: input.u64()?,
        raised: input.u64()?,
        untracked: input.u64()?,
        told: Tally { raised: input.u64()?, untracked: input.u64()?, open: input.u64()? },
    })
}

fn digest(input: &mut Input<'_>) -> Option<Digest> {
    let mut bytes = [0; 16];
    for byte in &mut bytes {
        *byte = input.u8()?;
    }
    Some(Digest(bytes))
}

fn position(input: &mut Input<'_>) -> Option<Position> {
    Some(Position {
        log: LogId(input.u64()?),
        epoch: Epoch(input.u32()?),
        lane: Lane::try_from(input.u8()?).ok()?,
        seq: Seq(input.u64()?),
    })
}

fn bucket(input: &mut Input<'_>) -> Option<Bucket> {
    Some(Bucket { level: input.u64()?, at_ms: input.u64()? })
}

fn times(input: &mut Input<'_>) -> Option<Vec<u64>> {
    let count = count(input, TRANSITIONS_MAX + 1)?;
    let times = (0..count).map(|_| input.u64()).collect::<Option<Vec<_>>>()?;
    times.is_sorted().then_some(times)
}

fn count(input: &mut Input<'_>, most: usize) -> Option<usize> {
    Some(usize::from(input.u8()?)).filter(|count| *count <= most)
}

fn number(input: &mut Input<'_>) -> Option<Option<f64>> {
    match input.u8()? {
        0 => Some(None),
        1 => {
            let number = f64::from_bits(input.u64()?);
            number.is_finite().then_some(Some(number))
        }
        _ => None,
    }
}

fn text<'a>(input: &mut Input<'a>) -> Option<&'a str> {
    input.text().filter(|text| text.len() <= TEXT_BYTES_MAX)
}

fn optional_text<'a>(input: &mut Input<'a>) -> Option<Option<&'a str>> {
    match input.u8()? {
        0 => Some(None),
        1 => Some(Some(text(input)?)),
        _ => None,
    }
}

fn optional(input: &mut Input<'_>, names: &mut Names) -> Option<Option<Arc<str>>> {
    Some(optional_text(input)?.map(|text| names.keep(text)))
}

fn severity(number: u8) -> Option<Severity> {
    Severity::ALL.into_iter().find(|severity| severity_number(*severity) == number)
}
