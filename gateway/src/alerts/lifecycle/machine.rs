//! The table in memory: what is open, where each alert stands in which list, and the rows of it all.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use super::alert::{Alert, Gate};
use super::bucket::Bucket;
use super::event::Voice;
use super::group::Group;
use super::held::Held;
use super::ident::Digest;
use super::policy::{Facet, Mutes, OPEN_MAX, Policy};
use super::row::{self, Gateway, Names, Row, RowKey};
use super::rulebook::Rulebook;
use super::{Effects, Junk};

/// Alerts, from the edge that opens one to the event that ends it.
///
/// Calls of [`Self::take`] and [`Self::advance`] come with a clock that does not go back. [`Self::flush`] writes what they
/// changed into the table: once before each commit.
pub(crate) struct Lifecycle {
    pub(super) voice: Voice,
    pub(super) policy: Arc<Policy>,
    pub(super) rules: Arc<Rulebook>,
    pub(super) names: Names,
    /// By subject.
    pub(super) alerts: HashMap<Digest, Box<Alert>>,
    /// When subjects without an alert changed lately.
    pub(super) past: HashMap<Digest, Vec<u64>>,
    /// When they can be forgotten.
    pub(super) past_due: BTreeSet<(u64, Digest)>,
    pub(super) groups: HashMap<Digest, Group>,
    /// Groups without members or storm, and when they can be forgotten.
    pub(super) idle: BTreeSet<(u64, Digest)>,
    /// Buckets that are not full, by the digest of the tenant.
    pub(super) tenants: HashMap<Digest, (Option<Arc<str>>, Bucket)>,
    pub(super) gateway: Gateway,
    /// Alerts that want attention at a certain time.
    pub(super) alert_timers: BTreeSet<(u64, Digest)>,
    /// Groups that have a storm, and when it is looked at.
    pub(super) storm_timers: BTreeSet<(u64, Digest)>,
    pub(super) held: Held,
    /// Not before this is there a token for anyone who waits.
    pub(super) drain_due: u64,
    pub(super) muted: BTreeSet<(u64, Digest)>,
    pub(super) mutes: Mutes,
    /// When the first mute may end that silences an alert.
    pub(super) mute_due: u64,
    /// By the digest of the device.
    pub(super) inhibited: BTreeSet<(Digest, u64, Digest)>,
    /// Open alerts that silence others, by rule and device.
    pub(super) inhibitors: HashMap<Digest, u32>,
    /// Alerts to be looked at before the call ends.
    pub(super) pending: VecDeque<Digest>,
    /// A moment, and the bytes of what was decided to be done then.
    pub(super) reacted: (u64, usize),
    /// Rules that something was said of which could not be done.
    pub(super) complained: HashSet<Arc<str>>,
    /// Rows that are not as they should be.
    dirty: BTreeSet<RowKey>,
    junk: Vec<Box<[u8]>>,
    junk_rows: u64,
    /// Whether what was loaded was looked at.
    pub(super) checked: bool,
}

/// What an alert was before it changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    pub(super) member: bool,
    pub(super) inhibitor: bool,
    pub(super) gate: Gate,
    pub(super) group: Digest,
}

/// Keys of rows that could not be read, noted to be deleted.
const JUNK_MAX: usize = 1000;

impl Lifecycle {
    pub(crate) fn new(voice: Voice, policy: Arc<Policy>, rules: Arc<Rulebook>) -> Self {
        let gateway = Gateway {
            plain: Bucket::full(policy.max_rate, 0),
            critical: Bucket::full(policy.max_rate.doubled(), 0),
            next_order: 1,
        };
        Self {
            voice,
            policy,
            rules,
            names: Names::default(),
            alerts: HashMap::new(),
            past: HashMap::new(),
            past_due: BTreeSet::new(),
            groups: HashMap::new(),
            idle: BTreeSet::new(),
            tenants: HashMap::new(),
            gateway,
            alert_timers: BTreeSet::new(),
            storm_timers: BTreeSet::new(),
            held: Held::default(),
            drain_due: 0,
            muted: BTreeSet::new(),
            mutes: Mutes::default(),
            mute_due: 0,
            inhibited: BTreeSet::new(),
            inhibitors: HashMap::new(),
            pending: VecDeque::new(),
            reacted: (0, 0),
            complained: HashSet::new(),
            dirty: BTreeSet::new(),
            junk: Vec::new(),
            junk_rows: 0,
            checked: false,
        }
    }

    /// Takes one row of the table, before anything else. The order of rows does not matter.
    ///
    /// # Errors
    ///
    /// If it cannot be read. It is counted, and deleted with the next flush; everything else goes on.
    pub(crate) fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), Junk> {
        let loaded = self.read(key, value);
        if loaded.is_err() {
            self.junk_rows += 1;
            if self.junk.len() < JUNK_MAX {
                self.junk.push(key.into());
            }
        }
        loaded
    }

    fn read(&mut self, key: &[u8], value: &[u8]) -> Result<(), Junk> {
        let key = RowKey::decode(key).ok_or(Junk::Key)?;
        let row = Row::decode(key, value, &mut self.names).ok_or(Junk::Value)?;
        match (key, row) {
            (RowKey::Alert(subject), Row::Alert(mut alert)) => {
                if self.alerts.len() >= OPEN_MAX + OPEN_MAX / 10 || self.alerts.contains_key(&subject) {
                    return Err(Junk::TooMany);
                }
                alert.group = self.group_of(&alert);
                self.put_back(subject, alert);
                self.dirty.remove(&key);
            }
            (RowKey::Past(subject), Row::Past(times)) => {
                if self.past.len() >= OPEN_MAX {
                    return Err(Junk::TooMany);
                }
                self.past.insert(subject, times);
            }
            (RowKey::Group(group), Row::Group(loaded)) => {
                // Rows of alerts may have come before it.
                let known = self.groups.entry(group).or_default();
                *known = Group { members: std::mem::take(&mut known.members), ..loaded };
            }
            (RowKey::Tenant(_), Row::Tenant(tenant, bucket)) => {
                self.tenants.insert(tenant_digest(tenant.as_deref()), (tenant, bucket));
            }
            (RowKey::Gateway, Row::Gateway(gateway)) => self.gateway = gateway,
            _ => return Err(Junk::Value),
        }
        Ok(())
    }

    /// When [`Self::advance`] has something to do, in Unix milliseconds.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        if !self.checked {
            return Some(0);
        }
        let alert = self.alert_timers.first().map(|(due, _)| *due);
        let storm = self.storm_timers.first().map(|(due, _)| *due);
        let held = (!self.held.is_empty()).then_some(self.drain_due);
        let muted = (!self.muted.is_empty()).then_some(self.mute_due);
        let past = self.past_due.first().map(|(due, _)| *due);
        let idle = self.idle.first().map(|(due, _)| *due);
        [alert, storm, held, muted, past, idle].into_iter().flatten().min()
    }

    /// Writes every row that changed since the last time: call it once before the effects are committed.
    pub(crate) fn flush(&mut self, out: &mut Effects) {
        for key in std::mem::take(&mut self.junk) {
            out.table.delete(&key);
        }
        out.counts.junk_rows += std::mem::take(&mut self.junk_rows);
        let mut value = Vec::new();
        for key in std::mem::take(&mut self.dirty) {
            value.clear();
            if self.put(key, &mut value) {
                out.table.put(&key.encode(), &value);
            } else {
                out.table.delete(&key.encode());
            }
        }
    }

    /// Writes the value of a row; false if there is none.
    fn put(&self, key: RowKey, out: &mut Vec<u8>) -> bool {
        match key {
            RowKey::Alert(subject) => {
                let Some(alert) = self.alerts.get(&subject) else { return false };
                row::put_alert(out, alert);
            }
            RowKey::Past(subject) => {
                let Some(times) = self.past.get(&subject) else { return false };
                row::put_past(out, times);
            }
            RowKey::Group(group) => {
                let Some(group) = self.groups.get(&group).filter(|group| group.has_row()) else {
                    return false;
                };
                row::put_group(out, group);
            }
            RowKey::Tenant(digest) => {
                let Some((tenant, bucket)) = self.tenants.get(&digest) else { return false };
                row::put_tenant(out, tenant.as_deref(), *bucket);
            }
            RowKey::Gateway => row::put_gateway(out, &self.gateway),
        }
        true
    }

    pub(super) fn mark(&mut self, key: RowKey) {
        self.dirty.insert(key);
    }

    /// Alerts that are open, or whose end is still to be told.
    pub(crate) fn open(&self) -> usize {
        self.alerts.len()
    }

    /// Rule, device and metric of the alerts whose condition holds, the oldest first; not of rules that are gone.
    pub(crate) fn holding(&self) -> Vec<(u16, Box<str>, Option<Arc<str>>)> {
        let mut holding: Vec<&Alert> = self.alerts.values().map(|alert| &**alert).collect();
        holding.retain(|alert| alert.holds);
        holding.sort_unstable_by_key(|alert| alert.order);
        let subject = |alert: &Alert| {
            Some((self.rules.place(&alert.rule)?, alert.device.clone(), alert.metric.clone()))
        };
        holding.into_iter().filter_map(subject).collect()
    }

    /// Alerts that wait for a token.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Groups that have a storm.
    pub(crate) fn storms(&self) -> usize {
        self.storm_timers.len()
    }

    // === lists ===

    /// Takes an alert out of the table and of all lists; [`Self::put_back`] puts it where it belongs then.
    pub(super) fn take_out(&mut self, subject: Digest) -> Option<(Box<Alert>, Before)> {
        let alert = self.alerts.remove(&subject)?;
        let before = Before {
            member: alert.is_member(),
            inhibitor: self.is_inhibitor(&alert),
            gate: alert.gate,
            group: alert.group,
        };
        let place = (alert.order, subject);
        if let Some(due) = alert.due_ms(&self.policy) {
            self.alert_timers.remove(&(due, subject));
        }
        match alert.gate {
            Gate::Clear | Gate::Storm => {}
            Gate::Inhibited => {
                self.inhibited.remove(&(device_digest(&alert.device), alert.order, subject));
            }
            Gate::Muted => {
                self.muted.remove(&place);
            }
            Gate::Held => self.held.remove(alert.is_critical(), alert.tenant.as_ref(), place),
        }
        if before.member
            && let Some(group) = self.groups.get_mut(&alert.group)
        {
            group.members.remove(&place);
        }
        if before.inhibitor {
            let key = inhibitor_digest(&alert.rule, &alert.device);
            let count = self.inhibitors.get(&key).copied().unwrap_or_default();
            if count <= 1 {
                self.inhibitors.remove(&key);
            } else {
                self.inhibitors.insert(key, count - 1);
            }
        }
        Some((alert, before))
    }

    pub(super) fn put_back(&mut self, subject: Digest, alert: Box<Alert>) {
        let place = (alert.order, subject);
        if let Some(due) = alert.due_ms(&self.policy) {
            self.alert_timers.insert((due, subject));
        }
        match alert.gate {
            Gate::Clear | Gate::Storm => {}
            Gate::Inhibited => {
                self.inhibited.insert((device_digest(&alert.device), alert.order, subject));
            }
            Gate::Muted => {
                self.muted.insert(place);
            }
            Gate::Held => self.held.insert(alert.is_critical(), alert.tenant.as_ref(), place),
        }
        if alert.is_member() {
            self.group_mut(&alert).members.insert(place);
        }
        if self.is_inhibitor(&alert) {
            *self.inhibitors.entry(inhibitor_digest(&alert.rule, &alert.device)).or_default() += 1;
        }
        self.mark(RowKey::Alert(subject));
        self.alerts.insert(subject, alert);
    }

    /// The alert's group, made if it is not there.
    pub(super) fn group_mut(&mut self, alert: &Alert) -> &mut Group {
        let Self { groups, policy, .. } = self;
        groups.entry(alert.group).or_insert_with(|| {
            let facet = |facet: &Facet| (*facet, alert.facet(*facet).map(Into::into));
            Group { facets: policy.group_by.iter().map(facet).collect(), ..Group::default() }
        })
    }

    /// The group that an alert belongs to under the policy.
    pub(super) fn group_of(&self, alert: &Alert) -> Digest {
        let mut parts = Vec::with_capacity(3 * self.policy.group_by.len());
        for facet in &self.policy.group_by {
            let value = alert.facet(*facet);
            parts.extend([facet.name(), if value.is_some() { "=" } else { "" }, value.unwrap_or_default()]);
        }
        Digest::of(&parts)
    }

    fn is_inhibitor(&self, alert: &Alert) -> bool {
        alert.is_open() && self.rules.inhibits(&alert.rule)
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifecycle")
            .field("alerts", &self.alerts.len())
            .field("groups", &self.groups.len())
            .field("held", &self.held.len())
            .finish_non_exhaustive()
    }
}

pub(super) fn device_digest(device: &str) -> Digest {
    Digest::of(&[device])
}

pub(super) fn inhibitor_digest(rule: &str, device: &str) -> Digest {
    Digest::of(&[rule, device])
}

pub(super) fn tenant_digest(tenant: Option<&str>) -> Digest {
    Digest::of(&[if tenant.is_some() { "=" } else { "" }, tenant.unwrap_or_default()])
}
