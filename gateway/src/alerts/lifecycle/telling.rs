//! What is owed, and what stands before it.

use std::sync::Arc;

use super::alert::{Alert, Gate, Owed, Told};
use super::bucket::Bucket;
use super::event::AlertEvent;
use super::ident::Digest;
use super::machine::{Before, Lifecycle, device_digest, inhibitor_digest, tenant_digest};
use super::row::RowKey;
use super::{Effects, GROUPS_MAX, TENANTS_MAX};

/// Whose turn it is to take a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Behind those that wait.
    Own,
    /// It is the first of those that wait.
    First,
}

impl Lifecycle {
    /// Tells what the alert owes, or notes what stands before it, and puts it where it belongs.
    pub(super) fn settle(
        &mut self,
        subject: Digest,
        mut alert: Box<Alert>,
        before: Before,
        now_ms: u64,
        turn: Turn,
        out: &mut Effects,
    ) {
        let owed = alert.owed();
        alert.gate = owed.map_or(Gate::Clear, |owed| self.gate(&alert, owed, before, now_ms, turn));
        self.react(&mut alert, before.gate, now_ms, out);
        let waited = matches!(before.gate, Gate::Storm | Gate::Held);
        let waits = matches!(alert.gate, Gate::Storm | Gate::Held);
        let untold = alert.told == Told::Nothing;
        if let (Some(owed), Gate::Clear) = (owed, alert.gate) {
            self.tell(&mut alert, owed, waited && untold, now_ms, out);
        }
        if alert.gate != before.gate {
            count_gate(alert.gate, out);
        }
        let (group, open) = (alert.group, alert.is_open());
        let released = before.inhibitor && !open;
        let device = released.then(|| alert.device.clone());
        if before.member && !open {
            self.note_closed(&alert, before.group, now_ms);
        }
        if open || alert.told != Told::Nothing {
            self.put_back(subject, alert);
        } else {
            self.close(subject, &alert, out);
        }
        if waits
            && !waited
            && untold
            && let Some(found) = self.groups.get_mut(&group)
        {
            found.suppressed = found.suppressed.saturating_add(1);
            self.mark(RowKey::Group(group));
        }
        if let Some(device) = device {
            self.release_inhibited(&device);
        }
        self.tidy_group(group, now_ms);
        if before.group != group {
            self.tidy_group(before.group, now_ms);
        }
    }

    /// What stands before what the alert owes.
    fn gate(&mut self, alert: &Alert, owed: Owed, before: Before, now_ms: u64, turn: Turn) -> Gate {
        // The end of what was told is always told: otherwise somebody would wait for it for ever.
        if owed != Owed::Resolved {
            if self.is_inhibited(alert) {
                return Gate::Inhibited;
            }
            if self.mutes.cover(&self.policy.mutes, alert.matched(), now_ms) {
                let end = self.mutes.end_ms(&self.policy.mutes, now_ms);
                self.mute_due = if self.muted.is_empty() { end } else { self.mute_due.min(end) };
                return Gate::Muted;
            }
            if self.gathers(alert, before, now_ms) && !alert.is_critical() {
                return Gate::Storm;
            }
        }
        let (critical, tenant) = (alert.is_critical(), alert.tenant.as_ref());
        let next = turn == Turn::First || self.held.is_free(critical, tenant);
        let ready = self.ready_ms(critical, tenant, now_ms);
        if next && ready <= now_ms {
            return Gate::Clear;
        }
        if owed == Owed::Raised && !critical && self.held.plain() >= self.policy.held_max {
            self.begin_storm(alert, now_ms);
            return Gate::Storm;
        }
        self.drain_due = if self.held.is_empty() { ready } else { self.drain_due.min(ready) };
        Gate::Held
    }

    /// Whether an alert that silences this one is open.
    pub(super) fn is_inhibited(&self, alert: &Alert) -> bool {
        if self.inhibitors.is_empty() {
            return false;
        }
        let rules = self.rules.find(&alert.rule).map_or(&[][..], |rule| &rule.inhibited_by);
        rules.iter().any(|rule| {
            [&*alert.device, &*self.voice.gateway]
                .iter()
                .any(|device| self.inhibitors.contains_key(&inhibitor_digest(rule, device)))
        })
    }

    /// Has all alerts looked at that an alert of this device may have silenced.
    fn release_inhibited(&mut self, device: &str) {
        if *device == *self.voice.gateway {
            let mut all: Vec<_> =
                self.inhibited.iter().map(|(_, order, subject)| (*order, *subject)).collect();
            all.sort_unstable();
            self.pending.extend(all.into_iter().map(|(_, subject)| subject));
            return;
        }
        let digest = device_digest(device);
        let first = (digest, 0, Digest::default());
        let same = self.inhibited.range(first..).take_while(|(device, ..)| *device == digest);
        self.pending.extend(same.map(|(_, _, subject)| *subject));
    }

    /// Looks at every alert that something happened to meanwhile.
    pub(super) fn run_pending(&mut self, now_ms: u64, out: &mut Effects) {
        while let Some(subject) = self.pending.pop_front() {
            self.look_again(subject, Turn::Own, now_ms, out);
        }
    }

    pub(super) fn look_again(&mut self, subject: Digest, turn: Turn, now_ms: u64, out: &mut Effects) {
        if let Some((alert, before)) = self.take_out(subject) {
            self.settle(subject, alert, before, now_ms, turn, out);
        }
    }

    // === telling ===

    fn tell(&mut self, alert: &mut Alert, owed: Owed, waited: bool, now_ms: u64, out: &mut Effects) {
        self.spend(alert.is_critical(), alert.tenant.as_ref(), now_ms);
        alert.transition = alert.next_transition();
        alert.told_ms = now_ms;
        alert.repeat = false;
        // This one was held back and is told now.
        let held_back = self.take_suppressed(alert.group);
        let suppressed = held_back.saturating_sub(u64::from(waited));
        let rule = self.rules.find(&alert.rule);
        let event = AlertEvent { alert, owed, rule, suppressed, now_ms };
        out.counts.labels_cut += event.push(&self.voice, &mut out.entries);
        let (told, counter) = match owed {
            Owed::Raised => (Told::Raised(alert.severity), &mut out.counts.told_raised),
            Owed::Updated(_) => (Told::Raised(alert.severity), &mut out.counts.told_updated),
            Owed::Flapping => (Told::Flapping, &mut out.counts.told_flapping),
            Owed::Resolved => (Told::Nothing, &mut out.counts.told_resolved),
        };
        *counter += 1;
        alert.told = told;
    }

    /// How many alerts of the group were held back since its last event; there was one now.
    pub(super) fn take_suppressed(&mut self, group: Digest) -> u64 {
        let Some(found) = self.groups.get_mut(&group).filter(|group| group.suppressed > 0) else { return 0 };
        let suppressed = std::mem::take(&mut found.suppressed);
        self.mark(RowKey::Group(group));
        suppressed
    }

    // === tokens ===

    /// When there is a token for such an event; not after `now_ms` if there is one now.
    pub(super) fn ready_ms(&self, critical: bool, tenant: Option<&Arc<str>>, now_ms: u64) -> u64 {
        let rate = self.policy.max_rate;
        if critical {
            return self.gateway.critical.ready_ms(rate.doubled(), now_ms);
        }
        let key = self.bucket_key(tenant);
        let bucket = self
            .tenants
            .get(&key)
            .map_or(now_ms, |(_, bucket)| bucket.ready_ms(self.policy.tenant_rate, now_ms));
        self.gateway.plain.ready_ms(rate, now_ms).max(bucket)
    }

    fn spend(&mut self, critical: bool, tenant: Option<&Arc<str>>, now_ms: u64) {
        self.mark(RowKey::Gateway);
        let rate = self.policy.max_rate;
        if critical {
            self.gateway.critical.spend(rate.doubled(), now_ms);
            return;
        }
        self.gateway.plain.spend(rate, now_ms);
        let rate = self.policy.tenant_rate;
        let key = self.bucket_key(tenant);
        let tenant = tenant.filter(|_| key != tenant_digest(None)).cloned();
        let (_, bucket) = self.tenants.entry(key).or_insert_with(|| (tenant, Bucket::full(rate, now_ms)));
        bucket.spend(rate, now_ms);
        self.mark(RowKey::Tenant(key));
    }

    /// The bucket of a tenant: its own, or, if there are too many, that of all without a tenant.
    fn bucket_key(&self, tenant: Option<&Arc<str>>) -> Digest {
        let key = tenant_digest(tenant.map(|tenant| &**tenant));
        let room = self.tenants.len() < TENANTS_MAX || self.tenants.contains_key(&key);
        if room { key } else { tenant_digest(None) }
    }

    /// Forgets buckets that are full: they are as good as new ones.
    pub(super) fn forget_full_buckets(&mut self, now_ms: u64) {
        let rate = self.policy.tenant_rate;
        let full = |(key, (_, bucket)): (&Digest, &(_, Bucket))| bucket.is_full(rate, now_ms).then_some(*key);
        let full: Vec<_> = self.tenants.iter().filter_map(full).collect();
        for key in full {
            self.tenants.remove(&key);
            self.mark(RowKey::Tenant(key));
        }
    }

    // === ends ===

    fn close(&mut self, subject: Digest, alert: &Alert, out: &mut Effects) {
        self.mark(RowKey::Alert(subject));
        let Some(last) = alert.changes.last().filter(|_| self.policy.flapping.max_transitions > 0) else {
            return;
        };
        let due = last.saturating_add(self.policy.flapping.window_ms);
        self.past.insert(subject, alert.changes.clone());
        self.past_due.insert((due, subject));
        self.mark(RowKey::Past(subject));
        if self.past.len() > self.policy.max_open_alerts
            && let Some((_, first)) = self.past_due.first().copied()
        {
            self.forget_first_past(first);
            out.counts.forgotten += 1;
        }
    }

    /// Counts an alert that does not hold any more as a recent one.
    fn note_closed(&mut self, alert: &Alert, group: Digest, now_ms: u64) {
        let interval = self.policy.group_interval_ms;
        if let Some(found) = self.groups.get_mut(&group) {
            found.closed(alert.opened_ms, interval, now_ms);
            self.mark(RowKey::Group(group));
        }
    }

    /// Forgets a group that has nothing to remember, now or when its time comes.
    pub(super) fn tidy_group(&mut self, group: Digest, now_ms: u64) {
        let Some(found) = self.groups.get_mut(&group) else { return };
        if let Some(idle) = found.idle_ms.take() {
            self.idle.remove(&(idle, group));
        }
        if !found.members.is_empty() || found.storm.is_some() {
            return;
        }
        let calm = found.calm_ms(self.policy.group_interval_ms);
        if calm <= now_ms {
            self.groups.remove(&group);
            self.mark(RowKey::Group(group));
            return;
        }
        found.idle_ms = Some(calm);
        self.idle.insert((calm, group));
        if self.idle.len() > GROUPS_MAX
            && let Some((_, first)) = self.idle.pop_first()
        {
            self.groups.remove(&first);
            self.mark(RowKey::Group(first));
        }
    }
}

fn count_gate(gate: Gate, out: &mut Effects) {
    match gate {
        Gate::Clear => {}
        Gate::Inhibited => out.counts.inhibited += 1,
        Gate::Muted => out.counts.muted += 1,
        Gate::Storm => out.counts.gathered += 1,
        Gate::Held => out.counts.held += 1,
    }
}
