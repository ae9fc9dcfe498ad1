//! What rules and detectors found, put into the table.

use super::alert::{Alert, Ending, Gate, Told};
use super::ident::{Digest, is_traceparent, shorten};
use super::machine::{Before, Lifecycle};
use super::row::{Names, RowKey};
use super::telling::Turn;
use super::{Effects, GROUPS_MAX};
use crate::alerts::nouns::{Change, Edge, Position, Severity, Subject};

/// Longest name of a device, in bytes; of longer ones the beginning is kept, and the digest of the whole.
pub(super) const DEVICE_BYTES_MAX: usize = 512;
/// As that, of a metric.
const NAME_BYTES_MAX: usize = 256;
/// As that, of a tenant, site, class or stream.
const PLACE_BYTES_MAX: usize = 128;

/// What the table calls a device whose name is longer than it keeps; none for others.
pub(crate) fn shorter_device(device: &str) -> Option<String> {
    (device.len() > DEVICE_BYTES_MAX).then(|| shorten(device, DEVICE_BYTES_MAX).into_owned())
}

/// What an edge says when it raises.
#[derive(Clone, Copy)]
struct Raise {
    severity: Severity,
    threshold: Option<f64>,
    score: Option<f64>,
    episode: Position,
    started_ms: u64,
}

impl Lifecycle {
    /// Takes an edge that was found at `now_ms` by the stage's clock.
    pub(crate) fn take(&mut self, edge: &Edge<'_>, now_ms: u64, out: &mut Effects) {
        if self.next_due_ms().is_some_and(|due| due <= now_ms) {
            self.advance(now_ms, out);
        }
        let Some(subject) = self.digest(&edge.subject) else {
            out.counts.unknown_rule += 1;
            return;
        };
        match edge.change {
            Change::Raised { severity, threshold, score, episode, started_ms } => {
                let raise = Raise { severity, threshold, score, episode, started_ms };
                if self.alerts.contains_key(&subject) {
                    self.raise_again(subject, edge, raise, now_ms, out);
                } else {
                    self.open_alert(subject, edge, raise, now_ms, out);
                }
            }
            Change::Severity { severity, threshold } => {
                self.change(subject, edge, severity, threshold, now_ms, out);
            }
            Change::Cleared => self.clear(subject, edge, now_ms, out),
        }
        self.run_pending(now_ms, out);
    }

    /// Whether there is an alert about this whose condition holds.
    pub(crate) fn holds(&self, subject: &Subject<'_>) -> bool {
        let alert = self.digest(subject).and_then(|subject| self.alerts.get(&subject));
        alert.is_some_and(|alert| alert.holds)
    }

    /// What the table calls a subject; none if its rule is unknown.
    fn digest(&self, subject: &Subject<'_>) -> Option<Digest> {
        let rule = self.rules.at(subject.rule)?;
        let (rule, device) = (&*rule.id, shorten(subject.device, DEVICE_BYTES_MAX));
        // A subject without a metric is another one than one with a metric without a name.
        let metric = subject.metric.map(|metric| shorten(metric, NAME_BYTES_MAX));
        let metric = metric.as_deref().map_or(["", ""], |metric| ["=", metric]);
        Some(Digest::of(&[rule, &device, metric[0], metric[1]]))
    }

    fn open_alert(&mut self, subject: Digest, edge: &Edge<'_>, raise: Raise, now_ms: u64, out: &mut Effects) {
        let Some(mut alert) = self.new_alert(edge, raise, now_ms) else { return };
        alert.group = self.group_of(&alert);
        if self.alerts.len() >= self.policy.open_max(raise.severity) {
            self.leave_untracked(alert, now_ms, out);
            return;
        }
        out.counts.opened += 1;
        alert.order = self.new_order();
        if let Some(past) = self.past.remove(&subject) {
            if let Some(last) = past.last() {
                self.past_due.remove(&(last.saturating_add(self.policy.flapping.window_ms), subject));
            }
            self.mark(RowKey::Past(subject));
            alert.changes = past;
        }
        alert.note_change(now_ms, self.policy.flapping);
        let before = Before { member: false, inhibitor: false, gate: Gate::Clear, group: alert.group };
        self.settle(subject, Box::new(alert), before, now_ms, Turn::Own, out);
    }

    /// It is open already, or its end is not told yet.
    fn raise_again(
        &mut self,
        subject: Digest,
        edge: &Edge<'_>,
        raise: Raise,
        now_ms: u64,
        out: &mut Effects,
    ) {
        out.counts.repeated += 1;
        let same = |alert: &Alert| alert.holds && alert.severity == raise.severity;
        if self.alerts.get(&subject).is_none_or(|alert| same(alert)) {
            return;
        }
        let Some((mut alert, before)) = self.take_out(subject) else { return };
        alert.holds = true;
        alert.ending = Ending::Cleared;
        self.note(&mut alert, edge, Some((raise.severity, raise.threshold)), now_ms);
        alert.score = raise.score.filter(|score| score.is_finite());
        self.settle(subject, alert, before, now_ms, Turn::Own, out);
    }

    fn change(
        &mut self,
        subject: Digest,
        edge: &Edge<'_>,
        severity: Severity,
        threshold: Option<f64>,
        now_ms: u64,
        out: &mut Effects,
    ) {
        let holds = self.alerts.get(&subject).is_some_and(|alert| alert.holds);
        let Some((mut alert, before)) = holds.then(|| self.take_out(subject)).flatten() else {
            out.counts.unmatched += 1;
            return;
        };
        self.note(&mut alert, edge, Some((severity, threshold)), now_ms);
        self.settle(subject, alert, before, now_ms, Turn::Own, out);
    }

    fn clear(&mut self, subject: Digest, edge: &Edge<'_>, now_ms: u64, out: &mut Effects) {
        let holds = self.alerts.get(&subject).is_some_and(|alert| alert.holds);
        let Some((mut alert, before)) = holds.then(|| self.take_out(subject)).flatten() else {
            out.counts.unmatched += 1;
            return;
        };
        out.counts.cleared += 1;
        alert.holds = false;
        alert.ending = Ending::Cleared;
        alert.repeat = false;
        self.note(&mut alert, edge, None, now_ms);
        self.settle(subject, alert, before, now_ms, Turn::Own, out);
    }

    /// Notes what an edge says about an alert that is there.
    fn note(&self, alert: &mut Alert, edge: &Edge<'_>, level: Option<(Severity, Option<f64>)>, now_ms: u64) {
        if let Some((severity, threshold)) = level {
            alert.severity = severity;
            alert.threshold = threshold.filter(|threshold| threshold.is_finite());
            alert.group = self.group_of(alert);
        }
        alert.observed = edge.observed.filter(|observed| observed.is_finite());
        alert.changed_ms = edge.at_ms;
        if let Some(traceparent) = edge.traceparent.filter(|text| is_traceparent(text)) {
            alert.traceparent = Some(traceparent.into());
        }
        alert.note_change(now_ms, self.policy.flapping);
    }

    fn new_alert(&mut self, edge: &Edge<'_>, raise: Raise, now_ms: u64) -> Option<Alert> {
        let rule = self.rules.at(edge.subject.rule)?;
        let (device, metric) = (edge.subject.device, edge.subject.metric);
        let id = Digest::of(&[
            edge.tenant.unwrap_or_default(),
            &rule.id,
            &rule.version.to_string(),
            device,
            metric.unwrap_or_default(),
            &raise.episode.to_string(),
        ]);
        let names = &mut self.names;
        let place = |names: &mut Names, text: Option<&str>| {
            text.map(|text| names.keep(&shorten(text, PLACE_BYTES_MAX)))
        };
        Some(Alert {
            id,
            order: 0,
            opened_ms: now_ms,
            rule: names.keep(&rule.id),
            version: rule.version,
            meaning: rule.meaning,
            device: shorten(device, DEVICE_BYTES_MAX).into(),
            metric: metric.map(|metric| names.keep(&shorten(metric, NAME_BYTES_MAX))),
            tenant: place(names, edge.tenant),
            site: place(names, edge.site),
            class: place(names, edge.class),
            stream: place(names, edge.stream),
            severity: raise.severity,
            threshold: raise.threshold.filter(|threshold| threshold.is_finite()),
            observed: edge.observed.filter(|observed| observed.is_finite()),
            score: raise.score.filter(|score| score.is_finite()),
            episode: raise.episode,
            started_ms: raise.started_ms,
            changed_ms: edge.at_ms,
            traceparent: edge.traceparent.filter(|text| is_traceparent(text)).map(Into::into),
            transition: 0,
            acted: 0,
            acted_open: false,
            told: Told::Nothing,
            told_ms: 0,
            repeat: false,
            holds: true,
            flapping: false,
            ending: Ending::Cleared,
            gate: Gate::Clear,
            changes: Vec::new(),
            group: Digest::default(),
        })
    }

    /// There is no room to track it: it is counted in a storm, unless something silences it. What is to be done is done;
    /// its end will not be seen.
    fn leave_untracked(&mut self, mut alert: Alert, now_ms: u64, out: &mut Effects) {
        out.counts.untracked += 1;
        let silent =
            self.is_inhibited(&alert) || self.mutes.cover(&self.policy.mutes, alert.matched(), now_ms);
        if silent {
            return;
        }
        self.react(&mut alert, Gate::Clear, now_ms, out);
        let crowded = self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&alert.group);
        let group = if crowded { Digest::of(&["overflow"]) } else { alert.group };
        if crowded {
            self.groups.entry(group).or_default();
        } else {
            self.group_mut(&alert);
        }
        self.count_untracked(group, alert.severity, now_ms);
    }

    pub(super) fn new_order(&mut self) -> u64 {
        let order = self.gateway.next_order;
        self.gateway.next_order = order.saturating_add(1);
        self.mark(RowKey::Gateway);
        order
    }
}
