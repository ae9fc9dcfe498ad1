//! One edge node: whether it was born, the sequence of its messages, and what its births told.

use std::collections::BTreeMap;

use super::payload::{self, Head, Metric};
use super::scope::{Scope, Wanted};
use super::topic::Told;
use super::{Limits, SAMPLES_MAX};
use crate::alerts::measure::counts::Counts;
use crate::alerts::measure::times::Times;
use crate::alerts::measure::{LeftOut, Refused};
use crate::alerts::nouns::Sample;

/// The metric that joins a death to its birth.
const BD_SEQ: &str = "bdSeq";

/// What is remembered of an edge node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) standing: Standing,
    /// When a rebirth was last wished for, by the stage's clock.
    pub(super) wished_ms: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// No birth was seen, or a death after it.
    #[default]
    Unborn,
    /// Its birth cannot be read, and would not be if it came again; not until the next NBIRTH.
    Mute(Refused),
    Born(Box<Born>),
}

/// A session of an edge node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Born {
    /// Of the last message; `None` if that could not be read, so that any may follow.
    pub(super) seq: Option<u8>,
    pub(super) bd_seq: Option<u64>,
    /// The node's own metrics.
    own: Scope,
    devices: BTreeMap<Box<str>, Scope>,
    /// Metrics and devices.
    len: usize,
}

/// What a message is read with.
#[derive(Debug)]
pub(super) struct Hearing<'a> {
    pub(super) head: Head,
    pub(super) payload: &'a [u8],
    pub(super) times: Times,
    pub(super) wanted: &'a Wanted,
    pub(super) limits: &'a Limits,
    /// Of all edge nodes together.
    pub(super) bytes: &'a mut usize,
    pub(super) counts: &'a mut Counts,
    pub(super) samples: &'a mut Vec<Sample>,
    /// Set if the node's births have to be told again.
    pub(super) wants_rebirth: bool,
}

// === impl Node ===

impl Node {
    /// Takes a message in, and appends its samples.
    pub(super) fn hear(&mut self, told: Told<'_>, hearing: &mut Hearing<'_>) -> Result<(), Refused> {
        match told {
            Told::NodeBirth => self.node_birth(hearing),
            Told::NodeDeath => {
                self.node_death(hearing);
                Ok(())
            }
            Told::DeviceBirth(device) => {
                if hearing.head.is_compressed && matches!(self.standing, Standing::Born(_)) {
                    return Err(self.mute(Refused::Compressed, hearing));
                }
                self.next(hearing)?;
                self.device_birth(device, hearing)
            }
            Told::DeviceDeath(device) => {
                let born = self.next(hearing)?;
                hearing.release(born.forget(device));
                Ok(())
            }
            Told::NodeValues => {
                let born = self.next(hearing)?;
                hearing.values(&born.own)
            }
            Told::DeviceValues(device) => {
                let born = self.next(hearing)?;
                let Some(scope) = born.devices.get(device) else {
                    hearing.wants_rebirth = true;
                    return Err(Refused::Unborn);
                };
                hearing.values(scope)
            }
        }
    }

    fn node_birth(&mut self, hearing: &mut Hearing<'_>) -> Result<(), Refused> {
        hearing.release(self.bytes());
        self.standing = Standing::Unborn;
        if hearing.head.is_compressed {
            return Err(self.mute(Refused::Compressed, hearing));
        }
        if !hearing.fits(1, None) {
            return Err(self.mute(Refused::NodeTooLarge, hearing));
        }
        let bd_seq = hearing.bd_seq();
        let own = hearing.scope(None);
        let born = Born::new(Some(hearing.head.seq), bd_seq, own);
        let read = hearing.birth_values(&born.own);
        self.standing = Standing::Born(Box::new(born));
        read
    }

    /// The last will of a session. One of a session before this says nothing about it.
    fn node_death(&mut self, hearing: &mut Hearing<'_>) {
        if let Standing::Born(born) = &self.standing {
            let ended = hearing.bd_seq();
            if ended.is_some() && born.bd_seq.is_some() && ended != born.bd_seq {
                hearing.counts.stale_deaths += 1;
                return;
            }
        }
        hearing.release(self.bytes());
        self.standing = Standing::Unborn;
    }

    fn device_birth(&mut self, device: &str, hearing: &mut Hearing<'_>) -> Result<(), Refused> {
        let Standing::Born(born) = &mut self.standing else { return Err(Refused::Unborn) };
        hearing.release(born.forget(device));
        if !hearing.fits(born.len + 1, Some(device)) {
            return Err(self.mute(Refused::NodeTooLarge, hearing));
        }
        let scope = hearing.scope(Some(device));
        let read = hearing.birth_values(&scope);
        born.add(device, scope);
        read
    }

    /// The session that a message belongs to, if it is the next one of it.
    fn next(&mut self, hearing: &mut Hearing<'_>) -> Result<&mut Born, Refused> {
        let born = match &mut self.standing {
            Standing::Born(born) => born,
            Standing::Mute(why) => return Err(*why),
            Standing::Unborn => {
                hearing.wants_rebirth = true;
                return Err(Refused::Unborn);
            }
        };
        if hearing.head.is_compressed {
            born.seq = None;
            return Err(Refused::Compressed);
        }
        let seq = hearing.head.seq;
        let before = born.seq.replace(seq);
        match before {
            Some(before) if before == seq => Err(Refused::Repeated),
            Some(before) if before.wrapping_add(1) != seq => {
                born.shake();
                hearing.wants_rebirth = true;
                Err(Refused::Gap)
            }
            _ => Ok(born),
        }
    }

    /// Gives up reading until the next birth.
    fn mute(&mut self, why: Refused, hearing: &mut Hearing<'_>) -> Refused {
        hearing.release(self.bytes());
        self.standing = Standing::Mute(why);
        why
    }

    /// What it takes in memory beside itself, roughly.
    pub(super) fn bytes(&self) -> usize {
        if let Standing::Born(born) = &self.standing { born.bytes() } else { 0 }
    }

    /// Looks up again what is wanted.
    pub(super) fn want(&mut self, wanted: &Wanted) {
        let Standing::Born(born) = &mut self.standing else { return };
        born.own.want(None, wanted);
        for (device, scope) in &mut born.devices {
            scope.want(Some(device), wanted);
        }
    }
}

// === impl Born ===

impl Born {
    pub(super) fn new(seq: Option<u8>, bd_seq: Option<u64>, own: Scope) -> Self {
        let len = own.len();
        Self { seq, bd_seq, own, devices: BTreeMap::new(), len }
    }

    /// Makes a device known that is not.
    pub(super) fn add(&mut self, device: &str, scope: Scope) {
        self.len += scope.len();
        self.devices.insert(device.into(), scope);
    }

    /// Says how many bytes become free.
    fn forget(&mut self, device: &str) -> usize {
        let Some(scope) = self.devices.remove(device) else { return 0 };
        self.len -= scope.len();
        scope.bytes(Some(device))
    }

    pub(super) const fn own(&self) -> &Scope {
        &self.own
    }

    pub(super) const fn devices(&self) -> &BTreeMap<Box<str>, Scope> {
        &self.devices
    }

    /// How much of the bound on metrics it takes.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    fn scopes(&self) -> impl Iterator<Item = (Option<&str>, &Scope)> {
        let devices = self.devices.iter().map(|(device, scope)| (Some(&**device), scope));
        std::iter::once((None, &self.own)).chain(devices)
    }

    fn bytes(&self) -> usize {
        self.scopes().map(|(device, scope)| scope.bytes(device)).sum()
    }

    /// Messages are missing, and may have been births: what an alias means is not known any more.
    fn shake(&mut self) {
        self.own.is_shaken = true;
        self.devices.values_mut().for_each(|scope| scope.is_shaken = true);
    }
}

// === impl Hearing ===

impl Hearing<'_> {
    /// Whether a birth beside `metrics` others of the node is within the bounds.
    fn fits(&self, metrics: usize, device: Option<&str>) -> bool {
        let Limits { metrics: metrics_max, name_bytes: name_bytes_max, bytes: bytes_max, .. } = *self.limits;
        let mut names =
            device.into_iter().chain(payload::metrics(self.payload).filter_map(|metric| metric.name));
        metrics + self.head.metrics <= metrics_max
            && names.all(|name| name.len() <= name_bytes_max)
            && *self.bytes + Scope::bytes_most(device, payload::metrics(self.payload)) <= bytes_max
    }

    fn scope(&mut self, device: Option<&str>) -> Scope {
        let scope = Scope::new(payload::metrics(self.payload), device, self.wanted);
        *self.bytes += scope.bytes(device);
        scope
    }

    fn release(&mut self, bytes: usize) {
        *self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn bd_seq(&self) -> Option<u64> {
        let mut metrics = payload::metrics(self.payload).filter(|metric| metric.name == Some(BD_SEQ));
        metrics.find_map(|metric| metric.whole())
    }

    /// As [`Self::values`]; a birth that leaves something open would do so again.
    fn birth_values(&mut self, scope: &Scope) -> Result<(), Refused> {
        let read = self.values(scope);
        self.wants_rebirth = false;
        read
    }

    /// Appends the samples of the wanted metrics.
    fn values(&mut self, scope: &Scope) -> Result<(), Refused> {
        for metric in payload::metrics(self.payload) {
            let known = match (metric.name, metric.alias) {
                (Some(name), _) => scope.by_name(name),
                (None, Some(alias)) if !scope.is_shaken => scope.by_alias(alias),
                _ => None,
            };
            let Some(known) = known else {
                self.counts.leave_out(LeftOut::Unknown, 1);
                self.wants_rebirth = true;
                continue;
            };
            if known.wanted != [None; 2] {
                self.sample(&metric, known.datatype, known.wanted)?;
            }
        }
        Ok(())
    }

    fn sample(
        &mut self,
        metric: &Metric<'_>,
        datatype: u32,
        wanted: [Option<u16>; 2],
    ) -> Result<(), Refused> {
        let value = match metric.number(datatype) {
            Ok(value) => value,
            Err(why) => {
                self.counts.leave_out(why, 1);
                return Ok(());
            }
        };
        let at_ms = if metric.is_historical {
            // The time of receiving would make the past the present.
            let told = metric.timestamp.filter(|at_ms| self.times.can_be(*at_ms));
            let Some(at_ms) = told else {
                self.counts.leave_out(LeftOut::Undated, 1);
                return Ok(());
            };
            at_ms
        } else {
            let told = metric.timestamp.or(self.head.timestamp);
            self.times.settle(told, &mut self.counts.times_wrong)
        };
        for metric in wanted.into_iter().flatten() {
            if self.samples.len() >= SAMPLES_MAX {
                return Err(Refused::TooManySamples);
            }
            self.samples.push(Sample { metric, value, at_ms });
        }
        Ok(())
    }
}
