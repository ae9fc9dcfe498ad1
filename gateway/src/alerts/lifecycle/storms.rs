//! Storms: one event that speaks for a group.

use super::Effects;
use super::alert::{Alert, Gate, Told};
use super::event::{Open, StormEvent};
use super::group::{Group, Storm, Tally};
use super::ident::Digest;
use super::machine::{Before, Lifecycle};
use super::row::RowKey;
use crate::alerts::nouns::Severity;

impl Lifecycle {
    /// Counts the alert in its group, and says whether a storm speaks for it, which may begin here.
    pub(super) fn gathers(&mut self, alert: &Alert, before: Before, now_ms: u64) -> bool {
        let (interval, when) = (self.policy.group_interval_ms, self.policy.storm_when);
        let new = alert.told == Told::Nothing;
        let arrives = new && !matches!(before.gate, Gate::Storm | Gate::Held);
        let group = self.group_mut(alert);
        if let Some(storm) = &mut group.storm {
            if arrives {
                storm.raised = storm.raised.saturating_add(1);
                storm.worst = storm.worst.max(alert.severity);
                self.mark(RowKey::Group(alert.group));
            }
            return true;
        }
        let count = group.count(interval, now_ms).saturating_add(1);
        if !new || count < when {
            return false;
        }
        self.begin_storm(alert, now_ms);
        true
    }

    /// Begins a storm in the alert's group, unless it has one; the alert is not in its lists.
    pub(super) fn begin_storm(&mut self, alert: &Alert, now_ms: u64) {
        self.group_mut(alert);
        self.begin(alert.group, alert.severity, 1, now_ms);
    }

    /// Counts an alert that is not tracked.
    pub(super) fn count_untracked(&mut self, group: Digest, severity: Severity, now_ms: u64) {
        self.begin(group, severity, 0, now_ms);
        let Some(found) = self.groups.get_mut(&group) else { return };
        found.suppressed = found.suppressed.saturating_add(1);
        if let Some(storm) = &mut found.storm {
            storm.raised = storm.raised.saturating_add(1);
            storm.untracked = storm.untracked.saturating_add(1);
            storm.worst = storm.worst.max(severity);
        }
        self.mark(RowKey::Group(group));
    }

    fn begin(&mut self, group: Digest, severity: Severity, more: u64, now_ms: u64) {
        let Some(found) = self.groups.get(&group).filter(|group| group.storm.is_none()) else { return };
        let raised = found.count(self.policy.group_interval_ms, now_ms).saturating_add(more);
        let members: Vec<_> = found.members.iter().map(|(_, subject)| *subject).collect();
        let mut worst = severity;
        for subject in members {
            let Some(alert) = self.alerts.get(&subject) else { continue };
            worst = worst.max(alert.severity);
            // The storm speaks for what waits for a token too.
            let covered = alert.gate == Gate::Held && alert.told == Told::Nothing && !alert.is_critical();
            if let Some((mut alert, _)) = covered.then(|| self.take_out(subject)).flatten() {
                alert.gate = Gate::Storm;
                self.put_back(subject, alert);
            }
        }
        // No two storms have the same number, and if the table was lost, not the same moment.
        let number = self.new_order();
        let gateway = &self.voice.gateway;
        let id = Digest::of(&["storm", gateway, &group.text(""), &now_ms.to_string(), &number.to_string()]);
        let due_ms = now_ms.saturating_add(self.policy.group_wait_ms);
        self.storm_timers.insert((due_ms, group));
        if let Some(found) = self.groups.get_mut(&group) {
            if let Some(idle) = found.idle_ms.take() {
                self.idle.remove(&(idle, group));
            }
            found.storm = Some(Storm {
                id,
                since_ms: now_ms,
                transition: 0,
                due_ms,
                raised,
                untracked: 0,
                worst,
                told: Tally::default(),
                told_ms: 0,
            });
        }
        self.mark(RowKey::Group(group));
    }

    /// Looks at a storm whose time has come: it is told, told anew, or over.
    pub(super) fn storm_due(&mut self, group: Digest, now_ms: u64, out: &mut Effects) {
        let (interval, when) = (self.policy.group_interval_ms, self.policy.storm_when);
        let Some((found, storm)) = self.storm_of(group) else { return };
        let tally =
            Tally { raised: storm.raised, untracked: storm.untracked, open: found.members.len() as u64 };
        let quiet = storm.untracked == storm.told.untracked;
        let repeat = self.policy.repeat_interval_ms;
        let repeat = repeat.is_some_and(|repeat| storm.told_ms.saturating_add(repeat) <= now_ms);
        let state = if storm.transition == 0 {
            "raised"
        } else if quiet && found.count(interval, now_ms) < when {
            "resolved"
        } else if tally != storm.told || repeat {
            "updated"
        } else {
            self.storm_at(group, now_ms.saturating_add(interval));
            return;
        };
        let ready = self.gateway.plain.ready_ms(self.policy.max_rate, now_ms);
        if ready > now_ms {
            self.storm_at(group, ready);
            return;
        }
        self.gateway.plain.spend(self.policy.max_rate, now_ms);
        self.mark(RowKey::Gateway);
        self.tell_storm(group, state, None, now_ms, out);
        if state == "resolved" {
            self.end_storm(group, now_ms);
            return;
        }
        if let Some(storm) = self.groups.get_mut(&group).and_then(|group| group.storm.as_mut()) {
            storm.told = tally;
        }
        self.storm_at(group, now_ms.saturating_add(interval));
    }

    /// Tells a storm as it is.
    pub(super) fn tell_storm(
        &mut self,
        group: Digest,
        state: &'static str,
        reason: Option<&'static str>,
        now_ms: u64,
        out: &mut Effects,
    ) {
        let suppressed = self.take_suppressed(group);
        let Some(storm) = self.groups.get_mut(&group).and_then(|group| group.storm.as_mut()) else { return };
        storm.transition = storm.transition.saturating_add(1);
        storm.told_ms = now_ms;
        let Some((found, storm)) = self.storm_of(group) else { return };
        let members = found.members.iter().filter_map(|(_, subject)| self.alerts.get(subject));
        let open = Open::of(members.map(|alert| (alert.severity, &*alert.device)));
        let event = StormEvent { group: found, storm, state, reason, open, suppressed, now_ms };
        event.push(&self.voice, &mut out.entries);
        out.counts.told_storm += 1;
        self.mark(RowKey::Group(group));
    }

    /// The group has no storm any more: what it covered is looked at singly.
    pub(super) fn end_storm(&mut self, group: Digest, now_ms: u64) {
        let Some(found) = self.groups.get_mut(&group) else { return };
        found.storm = None;
        let members = found.members.iter().map(|(_, subject)| *subject);
        let covered =
            |subject: &Digest| self.alerts.get(subject).is_some_and(|alert| alert.gate == Gate::Storm);
        self.pending.extend(members.filter(covered));
        self.mark(RowKey::Group(group));
        self.tidy_group(group, now_ms);
    }

    fn storm_of(&self, group: Digest) -> Option<(&Group, &Storm)> {
        let found = self.groups.get(&group)?;
        Some((found, found.storm.as_ref()?))
    }

    /// The storm is looked at again at `due_ms`.
    fn storm_at(&mut self, group: Digest, due_ms: u64) {
        let storm = self.groups.get_mut(&group).and_then(|group| group.storm.as_mut());
        if let Some(storm) = storm {
            self.storm_timers.remove(&(storm.due_ms, group));
            storm.due_ms = due_ms;
            self.storm_timers.insert((due_ms, group));
            self.mark(RowKey::Group(group));
        }
    }
}
