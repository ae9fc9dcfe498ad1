//! What the gateway does itself about an alert, beside telling it.
//!
//! Reactions follow the alert's being open, at once: what holds its events back, a storm or a lack of tokens, does not hold
//! them. An alert that flaps is open all the time. While an inhibition or a mute silences it nothing is done: what is still
//! open afterwards is done then, and the end of what was done is not.
//!
//! A reaction's transition is the number of the event that tells the same, or would: they share one sequence
//! ([`Alert::next_transition`]). Where an alert is never told its raise is 1 and its end 2. Where an end is done and not yet
//! told, and the alert is raised again meanwhile, the event of that end never comes and its number is left out.

use std::sync::Arc;

use super::Effects;
use super::alert::{Alert, Ending, Gate};
use super::machine::Lifecycle;
use crate::alerts::nouns::Position;
use crate::alerts::reaction::{Action, Decision, Occasion, Plan, Unusable, Values};
use crate::outbox::rfc3339;

/// Most bytes of reactions that are decided at the same moment of the log, so that a batch has a bound.
pub(super) const MOMENT_BYTES_MAX: usize = 8 << 20;

/// A reaction that could not be, told once for each rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) rule: Box<str>,
    pub(crate) action: Box<str>,
    pub(crate) device: Box<str>,
    pub(crate) why: &'static str,
}

impl Lifecycle {
    /// Does what the alert's rule says about its being raised, or over, unless that is done.
    pub(super) fn react(&mut self, alert: &mut Alert, before: Gate, now_ms: u64, out: &mut Effects) {
        let open = alert.is_open();
        if open == alert.acted_open {
            return;
        }
        let rule = self.rules.find(&alert.rule);
        let actions = rule.map(|rule| Arc::clone(&rule.actions)).unwrap_or_default();
        if actions.is_empty() {
            alert.note_idle();
            return;
        }
        let on = if open { Occasion::Raised } else { Occasion::Resolved };
        let concerned = actions.iter().filter(|action| action.on.contains(&on)).count() as u64;
        if !open && alert.ending != Ending::Cleared {
            // Nobody saw the condition end: who edits rules moves no machines.
            out.counts.reactions_rule += concerned;
            alert.note_idle();
            return;
        }
        let inhibited = self.is_inhibited(alert);
        if inhibited || self.mutes.cover(&self.policy.mutes, alert.matched(), now_ms) {
            let known = open && matches!(before, Gate::Inhibited | Gate::Muted);
            let counts = &mut out.counts;
            let counter =
                if inhibited { &mut counts.reactions_inhibited } else { &mut counts.reactions_muted };
            *counter += if known { 0 } else { concerned };
            if !open {
                alert.note_idle();
            }
            // What is open stays to be done.
            return;
        }
        alert.note_acted(alert.acted.max(alert.transition).saturating_add(1));
        self.push_reactions(alert, &actions, on, now_ms, out);
    }

    fn push_reactions(
        &mut self,
        alert: &Alert,
        actions: &[Action],
        on: Occasion,
        now_ms: u64,
        out: &mut Effects,
    ) {
        let (id, time) = (alert.id.text("a1-"), rfc3339(alert.changed_ms));
        let values = Values {
            device: &alert.device,
            tenant: alert.tenant.as_deref(),
            site: alert.site.as_deref(),
            class: alert.class.as_deref(),
            stream: alert.stream.as_deref(),
            rule: &alert.rule,
            metric: alert.metric.as_deref(),
            severity: alert.severity.name(),
            value: alert.observed,
            threshold: alert.threshold,
            alert: &id,
            transition: alert.acted,
            time: &time,
        };
        let traceparent = alert.traceparent.as_deref();
        let Position { log, epoch, lane, seq } = alert.episode;
        let origin = format!("{}/{log}/{epoch}/{}/{seq}", self.voice.gateway, lane.number());
        let severity = alert.severity;
        let decision = Decision { on, severity, values, traceparent, origin: &origin, now_ms };
        for action in actions {
            let Some(reaction) = action.reaction(&decision) else { continue };
            match reaction {
                Ok(_) if !self.has_room(now_ms) => {
                    out.counts.reactions_crowded += 1;
                    self.complain(alert, action, "more is to be done at once than there is room for", out);
                }
                Ok(reaction) => {
                    let start = out.entries.bytes();
                    reaction.push(&self.voice.gateway, &mut out.entries);
                    self.reacted.1 += out.entries.bytes() - start;
                    *(match action.plan {
                        Plan::Mqtt { .. } => &mut out.counts.reactions_mqtt,
                        Plan::ServiceBus { .. } => &mut out.counts.reactions_service_bus,
                    }) += 1;
                }
                Err(why) => {
                    out.counts.reactions_unusable += 1;
                    self.complain(alert, action, text(why), out);
                }
            }
        }
    }

    /// Whether there is room for more at this moment of the log.
    fn has_room(&mut self, now_ms: u64) -> bool {
        if self.reacted.0 != now_ms {
            self.reacted = (now_ms, 0);
        }
        self.reacted.1 < MOMENT_BYTES_MAX
    }

    /// Says it, unless something was said of the rule before.
    fn complain(&mut self, alert: &Alert, action: &Action, why: &'static str, out: &mut Effects) {
        if self.complained.insert(alert.rule.clone()) {
            out.complaints.push(Complaint {
                rule: (*alert.rule).into(),
                action: action.name.clone(),
                device: alert.device.clone(),
                why,
            });
        }
    }
}

const fn text(why: Unusable) -> &'static str {
    match why {
        Unusable::Topic => "its topic would not have the levels that the rule says",
        Unusable::TooLong => "it would be longer than it may be",
        Unusable::Device => "the name of the device is too long",
    }
}
