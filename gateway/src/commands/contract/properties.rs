//! The application properties of a message: ours, and those that go to the device.

use penstock_proto::base64;

use super::about::About;
use super::command::Completion;
use super::{deadline, trace};
use crate::commands::message::{Received, Value};
use crate::outbox::rfc3339;

/// What the application properties of a message say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Read {
    pub(super) completion: Option<Completion>,
    pub(super) deadline_ms: Option<u64>,
    /// For the device, in order.
    pub(super) user: Vec<(Box<str>, Box<str>)>,
}

const COMPLETION: &str = "penstock-completion";
const DEADLINE: &str = "penstock-deadline";
const ORIGIN: &str = "penstock-origin";
/// Begins the names that are ours.
const PREFIX: &str = "penstock-";
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// Azure's older name for a traceparent.
const DIAGNOSTIC_ID: &str = "Diagnostic-Id";
/// Names that the gateway itself gives properties for the device, or that say something about the message only: a
/// sender's are not passed on.
const LEFT_OUT: [&str; 5] =
    ["command-id", "name", "redelivered", "DeadLetterReason", "DeadLetterErrorDescription"];

/// Most properties for the device.
const COUNT_MAX: usize = 32;
/// Most bytes of their names and values.
const BYTES_MAX: usize = 8 << 10;
/// Longest origin.
const ORIGIN_BYTES_MAX: usize = 256;

/// Reads the properties of a message. What they say about it goes into `about`, also if some are bad.
pub(super) fn read(received: &Received, about: &mut About) -> Result<Read, String> {
    trace_of(received, about);
    let (mut read, mut bytes, mut bad) = (Read::default(), 0, None);
    for (name, value) in &received.properties {
        let known = match name.as_str() {
            COMPLETION => completion(value, &mut read),
            DEADLINE => set_deadline(value, received.enqueued_ms, &mut read),
            ORIGIN => origin(value, about),
            TRACEPARENT | TRACESTATE | DIAGNOSTIC_ID => Ok(()),
            name if LEFT_OUT.contains(&name) => Ok(()),
            name if begins_as_ours(name) => Err(format!("{} is no property of commands", shown(name))),
            name => text(value).map(|text| {
                bytes += name.len() + text.len();
                if read.user.len() <= COUNT_MAX && bytes <= BYTES_MAX {
                    read.user.push((name.into(), text.into()));
                }
            }),
        };
        bad = bad.or(known.err());
    }
    match bad {
        Some(why) => Err(why),
        None if bytes > BYTES_MAX => {
            Err(format!("application properties of {bytes} bytes; at most {BYTES_MAX}"))
        }
        None if read.user.len() > COUNT_MAX => Err(format!("more than {COUNT_MAX} application properties")),
        None => Ok(read),
    }
}

fn begins_as_ours(name: &str) -> bool {
    name.as_bytes().get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX.as_bytes()))
}

fn completion(value: &Value, read: &mut Read) -> Result<(), String> {
    let word = if let Value::Text(word) = value { Completion::from_word(word) } else { None };
    read.completion = Some(word.ok_or_else(|| format!("{COMPLETION} is delivered or answered"))?);
    Ok(())
}

fn set_deadline(value: &Value, enqueued_ms: u64, read: &mut Read) -> Result<(), String> {
    let deadline = deadline::read(value, enqueued_ms);
    read.deadline_ms = Some(deadline.ok_or_else(|| format!("{DEADLINE} is {}", deadline::EXPECTED))?);
    Ok(())
}

fn origin(value: &Value, about: &mut About) -> Result<(), String> {
    match value {
        Value::Text(text)
            if (1..=ORIGIN_BYTES_MAX).contains(&text.len()) && !text.contains(char::is_control) =>
        {
            about.origin = Some(text.as_str().into());
            Ok(())
        }
        _ => Err(format!("{ORIGIN} is a text of at most {ORIGIN_BYTES_MAX} bytes")),
    }
}

/// The trace context: `traceparent` with `tracestate`, else `Diagnostic-Id`.
fn trace_of(received: &Received, about: &mut About) {
    let found = |name: &str| {
        let value = received.properties.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        if let Some(Value::Text(text)) = value { Some(text.as_str()) } else { None }
    };
    let parent = found(TRACEPARENT).filter(|text| trace::is_parent(text));
    about.tracestate =
        found(TRACESTATE).filter(|text| parent.is_some() && trace::is_state(text)).map(Into::into);
    let parent = parent.or_else(|| found(DIAGNOSTIC_ID).filter(|text| trace::is_parent(text)));
    about.traceparent = parent.map(Into::into);
}

/// A value as the device gets it.
fn text(value: &Value) -> Result<String, String> {
    Ok(match value {
        Value::Text(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::Double(number) => number.to_string(),
        Value::Time(ms) => rfc3339(*ms),
        Value::Binary(bytes) => {
            let mut out = Vec::new();
            base64::push(&mut out, bytes);
            String::from_utf8(out).unwrap_or_default()
        }
        Value::Other(kind) => return Err(format!("an application property holds a {kind}")),
    })
}

/// A name from outside, as a sentence can hold it.
fn shown(name: &str) -> String {
    name.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
