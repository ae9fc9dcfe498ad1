//! What a rule says is to be done, and the reactions that come of it.

use super::entry::{Occasion, Reaction, Target};
use super::template::{Form, Template, Unusable, Values};
use crate::alerts::nouns::Severity;

/// One `[[rule.action]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Action {
    /// 1 to 32 of `a-z 0-9 -`; no other action of the rule has it.
    pub(crate) name: Box<str>,
    /// At least one.
    pub(crate) on: Box<[Occasion]>,
    /// How long after the decision it may still be done, in milliseconds; at least one.
    pub(crate) expires_after_ms: u64,
    pub(crate) plan: Plan,
}

/// What is to be done, to be rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    Mqtt { topic: Template, payload: Template, qos: u8, retain: bool, content_type: Box<str> },
    ServiceBus { queue: Box<str>, payload: Template, subject: Option<Template>, content_type: Box<str> },
}

/// The transition that actions are about.
#[derive(Debug)]
pub(crate) struct Decision<'a> {
    pub(crate) on: Occasion,
    pub(crate) severity: Severity,
    /// Everything else that is known.
    pub(crate) values: Values<'a>,
    pub(crate) traceparent: Option<&'a str>,
    /// The identity of the first message that showed it.
    pub(crate) origin: &'a str,
    /// The clock of the rules, in Unix milliseconds.
    pub(crate) now_ms: u64,
}

/// Names of devices from this length on may have been cut, and then they are those of others.
pub(super) const DEVICE_BYTES_CUT: usize = 509;
/// Most actions of a rule.
pub(crate) const ACTIONS_MAX: usize = 8;

/// Whether values in texts of this type are escaped as JSON.
pub(crate) fn form_of(content_type: &str) -> Form {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    let json = kind.eq_ignore_ascii_case("application/json") || kind.to_ascii_lowercase().ends_with("+json");
    if json { Form::Json } else { Form::Plain }
}

impl Action {
    /// What is to be done now, if the action is about this.
    pub(crate) fn reaction<'a>(
        &'a self,
        decision: &'a Decision<'_>,
    ) -> Option<Result<Reaction<'a>, Unusable>> {
        self.on.contains(&decision.on).then(|| self.render(decision))
    }

    fn render<'a>(&'a self, decision: &'a Decision<'_>) -> Result<Reaction<'a>, Unusable> {
        let Decision { on, severity, values, traceparent, origin, now_ms } = decision;
        if values.device.len() >= DEVICE_BYTES_CUT {
            return Err(Unusable::Device);
        }
        let target = self.plan.render(values)?;
        Ok(Reaction {
            id: Reaction::id(values.alert, values.transition, &self.name).into(),
            alert: values.alert.into(),
            transition: values.transition,
            action: (&*self.name).into(),
            rule: values.rule.into(),
            on: *on,
            severity: *severity,
            device: values.device.into(),
            tenant: values.tenant.map(Into::into),
            traceparent: traceparent.map(Into::into),
            origin: Some((*origin).into()),
            decided_ms: *now_ms,
            expires_ms: now_ms.saturating_add(self.expires_after_ms),
            target,
        })
    }
}

impl Plan {
    fn render<'a>(&'a self, values: &Values<'_>) -> Result<Target<'a>, Unusable> {
        Ok(match self {
            Self::Mqtt { topic, payload, qos, retain, content_type } => Target::Mqtt {
                topic: topic.topic(values)?.into(),
                payload: payload.payload(values, form_of(content_type))?.into(),
                qos: *qos,
                retain: *retain,
                content_type: (&**content_type).into(),
            },
            Self::ServiceBus { queue, payload, subject, content_type } => Target::ServiceBus {
                queue: (&**queue).into(),
                payload: payload.payload(values, form_of(content_type))?.into(),
                subject: subject.as_ref().map(|subject| subject.subject(values)).transpose()?.map(Into::into),
                content_type: (&**content_type).into(),
            },
        })
    }
}
