//! New rules, a new policy, or a table that was written under other ones.

use std::sync::Arc;

use super::Effects;
use super::alert::{Alert, Ending, Gate};
use super::ident::Digest;
use super::machine::Lifecycle;
use super::policy::Policy;
use super::row::RowKey;
use super::rulebook::Rulebook;
use super::telling::Turn;

impl Lifecycle {
    /// Goes on under another policy and other rules. Alerts whose rule is gone, or means something else now, end.
    pub(crate) fn replace(
        &mut self,
        policy: Arc<Policy>,
        rules: Arc<Rulebook>,
        now_ms: u64,
        out: &mut Effects,
    ) {
        self.advance(now_ms, out);
        let regroup = policy.group_by != self.policy.group_by;
        if regroup {
            self.end_all_storms(now_ms, out);
        }
        let subjects = self.subjects_in_order();
        let taken = subjects.into_iter().filter_map(|subject| Some((subject, self.take_out(subject)?.0)));
        let alerts: Vec<_> = taken.collect();
        if regroup {
            for group in std::mem::take(&mut self.groups).into_keys() {
                self.mark(RowKey::Group(group));
            }
            self.idle.clear();
        }
        (self.policy, self.rules) = (policy, rules);
        self.complained.clear();
        self.mutes = super::policy::Mutes::default();
        (self.drain_due, self.mute_due) = (0, 0);
        for (subject, mut alert) in alerts {
            alert.group = self.group_of(&alert);
            self.put_back(subject, alert);
        }
        self.index_past();
        self.look_at_all(now_ms, out);
    }

    /// Looks at what was loaded: it may have been written under other rules, by a clock that was wrong, or be junk. What was
    /// written by a lifecycle as this one stays as it is.
    pub(super) fn check_loaded(&mut self, now_ms: u64, out: &mut Effects) {
        if std::mem::replace(&mut self.checked, true) {
            return;
        }
        for subject in self.subjects_in_order() {
            let late = self.alerts.get(&subject).is_some_and(|alert| alert.is_ahead_of(now_ms));
            if !late {
                continue;
            }
            if let Some((mut alert, _)) = self.take_out(subject) {
                alert.told_ms = alert.told_ms.min(now_ms);
                alert.opened_ms = alert.opened_ms.min(now_ms);
                for at in &mut alert.changes {
                    *at = now_ms.min(*at);
                }
                self.put_back(subject, alert);
            }
        }
        self.index_past();
        let latest = now_ms.saturating_add(self.policy.group_interval_ms);
        for (group, found) in &mut self.groups {
            if let Some(storm) = &mut found.storm {
                storm.due_ms = storm.due_ms.min(latest);
                storm.told_ms = storm.told_ms.min(now_ms);
                self.storm_timers.insert((storm.due_ms, *group));
            }
            found.recent.retain(|(from, _)| *from <= now_ms);
        }
        let mut groups: Vec<_> = self.groups.keys().copied().collect();
        groups.sort_unstable();
        for group in groups {
            self.tidy_group(group, now_ms);
        }
        self.look_at_all(now_ms, out);
    }

    /// Ends alerts whose rule is gone, and looks again at those that something stands before.
    fn look_at_all(&mut self, now_ms: u64, out: &mut Effects) {
        for subject in self.subjects_in_order() {
            let Some(alert) = self.alerts.get(&subject) else { continue };
            let rule = self.rules.find(&alert.rule);
            let ending = match rule {
                None => Some(Ending::RuleRemoved),
                Some(rule) if rule.meaning != alert.meaning => Some(Ending::RuleChanged),
                Some(_) => None,
            };
            if let Some(ending) = ending.filter(|_| alert.is_open()) {
                self.end_alert(subject, ending, now_ms, out);
            } else if self.is_out_of_place(alert) {
                self.look_again(subject, Turn::Own, now_ms, out);
            }
            self.run_pending(now_ms, out);
        }
    }

    fn end_alert(&mut self, subject: Digest, ending: Ending, now_ms: u64, out: &mut Effects) {
        let Some((mut alert, before)) = self.take_out(subject) else { return };
        (alert.holds, alert.flapping, alert.repeat) = (false, false, false);
        (alert.ending, alert.changed_ms) = (ending, now_ms);
        // The next one of that name starts with a clean record.
        alert.changes.clear();
        self.settle(subject, alert, before, now_ms, Turn::Own, out);
    }

    /// Whether something else stands before what the alert owes than its row says.
    fn is_out_of_place(&self, alert: &Alert) -> bool {
        match (alert.owed(), alert.gate) {
            (None, Gate::Clear) => !alert.is_open(),
            // Tokens and mutes are looked at anyway.
            (Some(_), Gate::Held | Gate::Muted) => false,
            (Some(_), Gate::Storm) => self.groups.get(&alert.group).is_none_or(|group| group.storm.is_none()),
            (Some(_), Gate::Inhibited) => !self.is_inhibited(alert),
            (None, _) | (Some(_), Gate::Clear) => true,
        }
    }

    fn end_all_storms(&mut self, now_ms: u64, out: &mut Effects) {
        let mut storms: Vec<_> =
            self.groups.iter().filter(|(_, group)| group.storm.is_some()).map(|(group, _)| *group).collect();
        storms.sort_unstable();
        for group in storms {
            let told = self
                .groups
                .get(&group)
                .and_then(|group| group.storm.as_ref())
                .map(|storm| (storm.due_ms, storm.transition > 0));
            let Some((due, told)) = told else { continue };
            self.storm_timers.remove(&(due, group));
            if told {
                self.tell_storm(group, "resolved", Some("regrouped"), now_ms, out);
            }
            if let Some(found) = self.groups.get_mut(&group) {
                found.storm = None;
            }
        }
    }

    fn index_past(&mut self) {
        let window = self.policy.flapping.window_ms;
        let due = |(subject, times): (&Digest, &Vec<u64>)| {
            (times.last().copied().unwrap_or_default().saturating_add(window), *subject)
        };
        self.past_due = self.past.iter().map(due).collect();
    }

    fn subjects_in_order(&self) -> Vec<Digest> {
        let mut subjects: Vec<_> =
            self.alerts.iter().map(|(subject, alert)| (alert.order, *subject)).collect();
        subjects.sort_unstable();
        subjects.into_iter().map(|(_, subject)| subject).collect()
    }
}
