//! Reads `[[rule.action]]`: what a rule has the gateway do itself.

use super::draft::Read;
use super::error::RuleError;
use super::reading::{Given, Keys};
use crate::alerts::reaction::{
    ACTIONS_MAX, Action, Form, Occasion, Place, Plan, Queues, Template, UnknownPlace, Values, form_of,
};

const KNOWN: &[&str] = &["name", "on", "expires_after", "mqtt", "service_bus"];
const MQTT: &[&str] = &["topic", "payload", "qos", "retain", "content_type"];
const SERVICE_BUS: &[&str] = &["queue", "payload", "subject", "content_type"];
const NAME_BYTES_MAX: usize = 32;
const CONTENT_TYPE_BYTES_MAX: usize = 128;
const EXPIRES_MS: (u64, u64) = (1_000, 7 * 86_400_000);
const EXPIRES_UNLESS_SAID_MS: u64 = 3_600_000;
/// Safe for whatever a device calls itself: every value is escaped.
const CONTENT_TYPE_UNLESS_SAID: &str = "application/json";

/// The actions of a rule.
pub(super) fn actions(keys: &Keys<'_>, queues: &Queues) -> Read<Box<[Action]>> {
    let mut actions: Vec<Action> = Vec::new();
    for table in keys.tables("action", ACTIONS_MAX, "at most 8 tables, each begun by [[rule.action]]")? {
        let action = action(&table, &actions, queues)?;
        actions.push(action);
    }
    Ok(actions.into())
}

fn action(keys: &Keys<'_>, before: &[Action], queues: &Queues) -> Read<Action> {
    const TARGET: &str = "a table, one of mqtt and service_bus";
    keys.only(&[KNOWN])?;
    let name = name(keys, before)?;
    let on = occasions(keys)?;
    let expires = keys.time("expires_after", EXPIRES_MS.0, EXPIRES_MS.1)?;
    let plan = match (keys.table("mqtt", TARGET)?, keys.table("service_bus", TARGET)?) {
        (Some(mqtt), None) => self::mqtt(&mqtt)?,
        (None, Some(bus)) => service_bus(&bus, queues)?,
        (None, None) => return Err(keys.missing("mqtt", TARGET)),
        (Some(_), Some(bus)) => {
            let text = format!("{} has mqtt and service_bus: expected one of them", keys.name());
            return Err(keys.error(bus.at(), text));
        }
    };
    let expires_after_ms = expires.map_or(EXPIRES_UNLESS_SAID_MS, |given| given.value);
    Ok(Action { name: name.into(), on, expires_after_ms, plan })
}

fn name<'a>(keys: &Keys<'a>, before: &[Action]) -> Read<&'a str> {
    const ALLOWED: &str = "1 to 32 of a-z 0-9 -, which no action above has";
    let Some(name) = keys.text("name", ALLOWED)? else { return Err(keys.missing("name", ALLOWED)) };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = (1..=NAME_BYTES_MAX).contains(&name.value.len()) && name.value.bytes().all(plain);
    if !fits || before.iter().any(|other| *other.name == *name.value) {
        return Err(keys.wrong("name", name.at, &format!("\"{}\"", name.value), ALLOWED));
    }
    Ok(name.value)
}

fn occasions(keys: &Keys<'_>) -> Read<Box<[Occasion]>> {
    const ALLOWED: &str = "\"raised\", \"resolved\", or a list of both";
    let Some(given) = keys.texts("on", 2, ALLOWED)? else { return Ok([Occasion::Raised].into()) };
    let mut on = Vec::new();
    for text in given.value {
        let known = [Occasion::Raised, Occasion::Resolved].into_iter().find(|on| on.name() == text.value);
        match known.filter(|known| !on.contains(known)) {
            Some(known) => on.push(known),
            None => return Err(keys.wrong("on", text.at, &format!("\"{}\"", text.value), ALLOWED)),
        }
    }
    Ok(on.into())
}

fn mqtt(keys: &Keys<'_>) -> Read<Plan> {
    const TOPIC: &str = "a topic such as \"devices/{device}/commands/{alert}\", without + and #, empty levels or $ at its begin";
    keys.only(&[MQTT])?;
    let Some(text) = keys.text("topic", TOPIC)? else { return Err(keys.missing("topic", TOPIC)) };
    let topic = template(keys, "topic", text)?;
    if topic.topic(&Values::sample(true)).is_err() {
        return Err(keys.wrong("topic", text.at, &format!("\"{}\"", text.value), TOPIC));
    }
    let content_type = content_type(keys)?;
    let payload = payload(keys, &content_type)?;
    let qos = keys.whole("qos", 0, 2)?.map_or(1, |given| given.value);
    let retain = keys.truth("retain")?.is_some_and(|given| given.value);
    Ok(Plan::Mqtt { topic, payload, qos: u8::try_from(qos).unwrap_or(1), retain, content_type })
}

fn service_bus(keys: &Keys<'_>, queues: &Queues) -> Read<Plan> {
    keys.only(&[SERVICE_BUS])?;
    let allowed = queues.allowed();
    let Some(queue) = keys.text("queue", &allowed)? else { return Err(keys.missing("queue", &allowed)) };
    if !queues.has(queue.value) {
        return Err(keys.wrong("queue", queue.at, &format!("\"{}\"", queue.value), &allowed));
    }
    let content_type = content_type(keys)?;
    let payload = payload(keys, &content_type)?;
    let subject = keys.text("subject", "a text of at most 128 bytes when it is rendered")?;
    let subject = subject.map(|text| {
        let subject = template(keys, "subject", text)?;
        if text.value.is_empty() || subject.subject(&Values::sample(false)).is_err() {
            return Err(keys.wrong("subject", text.at, text.value, "a text of 1 to 128 bytes"));
        }
        Ok(subject)
    });
    Ok(Plan::ServiceBus { queue: queue.value.into(), payload, subject: subject.transpose()?, content_type })
}

fn content_type(keys: &Keys<'_>) -> Read<Box<str>> {
    const ALLOWED: &str = "a content type such as \"application/json\", of 1 to 128 printable characters";
    let Some(text) = keys.text("content_type", ALLOWED)? else { return Ok(CONTENT_TYPE_UNLESS_SAID.into()) };
    let plain = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    if (1..=CONTENT_TYPE_BYTES_MAX).contains(&text.value.len()) && text.value.bytes().all(plain) {
        Ok(text.value.into())
    } else {
        Err(keys.wrong("content_type", text.at, &format!("\"{}\"", text.value), ALLOWED))
    }
}

/// A payload, which must be JSON if its content type says so, whatever is filled in.
fn payload(keys: &Keys<'_>, content_type: &str) -> Read<Template> {
    const ALLOWED: &str = "a text of at most 16 KiB when it is rendered";
    const JSON: &str = "JSON with texts like {device} in quotes, or a content_type that says what it is";
    let Some(text) = keys.text("payload", ALLOWED)? else { return Err(keys.missing("payload", ALLOWED)) };
    let payload = template(keys, "payload", text)?;
    let form = form_of(content_type);
    for full in [true, false] {
        let rendered = payload.payload(&Values::sample(full), form);
        let rendered = rendered.map_err(|_| keys.wrong("payload", text.at, text.value, ALLOWED))?;
        let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&rendered).is_ok();
        if form == Form::Json && !is_json {
            return Err(keys.wrong("payload", text.at, &format!("'{}'", text.value), JSON));
        }
    }
    Ok(payload)
}

fn template(keys: &Keys<'_>, key: &str, text: Given<&str>) -> Read<Template> {
    Template::parse(text.value).map_err(|UnknownPlace(name)| -> RuleError {
        let known: Vec<_> = Place::ALL.iter().map(|(name, _)| format!("{{{name}}}")).collect();
        keys.wrong(key, text.at, &format!("\"…{{{name}}}…\""), &format!("places {}", known.join(" ")))
    })
}
