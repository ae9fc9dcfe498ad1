//! What happens without an edge: timers, tokens that return, mutes that end.

use std::collections::BTreeSet;

use super::ident::Digest;
use super::machine::Lifecycle;
use super::row::RowKey;
use super::telling::Turn;
use super::{Effects, TENANTS_MAX};

impl Lifecycle {
    /// Does what is due at `now_ms` by the stage's clock.
    pub(crate) fn advance(&mut self, now_ms: u64, out: &mut Effects) {
        self.check_loaded(now_ms, out);
        self.forget(now_ms);
        loop {
            // Storms first: they speak for many.
            if let Some(first) = due(&self.storm_timers, now_ms) {
                self.storm_timers.remove(&first);
                self.storm_due(first.1, now_ms, out);
            } else if let Some(first) = due(&self.alert_timers, now_ms) {
                self.alert_timers.remove(&first);
                self.alert_due(first.1, now_ms, out);
            } else {
                break;
            }
            self.run_pending(now_ms, out);
        }
        if !self.muted.is_empty() && self.mute_due <= now_ms {
            self.unmute(now_ms);
            self.run_pending(now_ms, out);
        }
        self.drain(now_ms, out);
    }

    /// Has those looked at that no mute covers any more. The others stay, whatever else may stand before them.
    fn unmute(&mut self, now_ms: u64) {
        let Self { alerts, mutes, muted, policy, pending, .. } = self;
        for (_, subject) in muted.iter() {
            let alert = alerts.get(subject);
            if !alert.is_some_and(|alert| mutes.cover(&policy.mutes, alert.matched(), now_ms)) {
                pending.push_back(*subject);
            }
        }
        self.mute_due = mutes.end_ms(&policy.mutes, now_ms);
    }

    fn alert_due(&mut self, subject: Digest, now_ms: u64, out: &mut Effects) {
        let Some((mut alert, before)) = self.take_out(subject) else { return };
        if alert.flapping {
            alert.flapping = false;
            alert.changes.clear();
        } else {
            alert.repeat = true;
        }
        self.settle(subject, alert, before, now_ms, Turn::Own, out);
    }

    /// Lets those go that wait for a token, in order, as far as there are tokens.
    fn drain(&mut self, now_ms: u64, out: &mut Effects) {
        if self.held.is_empty() || self.drain_due > now_ms {
            return;
        }
        while let Some(subject) = self.held.first_critical() {
            if self.ready_ms(true, None, now_ms) > now_ms {
                break;
            }
            self.look_again(subject, Turn::First, now_ms, out);
            self.run_pending(now_ms, out);
        }
        while let Some(subject) = self.next_plain(now_ms) {
            self.look_again(subject, Turn::First, now_ms, out);
            self.run_pending(now_ms, out);
        }
        let critical = self.held.first_critical().map(|_| self.ready_ms(true, None, now_ms));
        let plain = self.held.firsts().map(|(tenant, _)| self.ready_ms(false, tenant, now_ms)).min();
        self.drain_due = critical.into_iter().chain(plain).min().unwrap_or(u64::MAX);
    }

    /// The oldest of those that there is a token for.
    fn next_plain(&self, now_ms: u64) -> Option<Digest> {
        if !self.gateway.plain.has_token(self.policy.max_rate, now_ms) {
            return None;
        }
        let ready = self.held.firsts().filter(|(tenant, _)| self.ready_ms(false, *tenant, now_ms) <= now_ms);
        ready.map(|(_, place)| place).min().map(|(_, subject)| subject)
    }

    /// Forgets what nothing depends on any more.
    fn forget(&mut self, now_ms: u64) {
        while let Some((_, subject)) = due(&self.past_due, now_ms) {
            self.forget_first_past(subject);
        }
        while let Some((_, group)) = due(&self.idle, now_ms) {
            self.tidy_group(group, now_ms);
        }
        if self.tenants.len() >= TENANTS_MAX / 2 {
            self.forget_full_buckets(now_ms);
        }
    }

    pub(super) fn forget_first_past(&mut self, subject: Digest) {
        self.past_due.pop_first();
        self.past.remove(&subject);
        self.mark(RowKey::Past(subject));
    }
}

/// The first of a list, if its time has come.
fn due(list: &BTreeSet<(u64, Digest)>, now_ms: u64) -> Option<(u64, Digest)> {
    list.first().copied().filter(|(due, _)| *due <= now_ms)
}
