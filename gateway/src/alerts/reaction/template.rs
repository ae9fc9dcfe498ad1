//! Texts with places to be filled in: `devices/{device}/commands/{alert}`.
//!
//! A name in braces is a place; other braces are themselves, so that JSON can be written as it is. What devices choose is
//! never more than a value: in JSON it is escaped, and a topic that it would change the levels of is none.

use std::borrow::Cow;

use super::action::DEVICE_BYTES_CUT;
use super::entry::{PAYLOAD_BYTES_MAX, SUBJECT_BYTES_MAX, TOPIC_BYTES_MAX, is_topic};

/// A text with places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    pieces: Box<[Piece]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Place(Place),
}

/// What a place is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Device,
    Tenant,
    Site,
    Class,
    Stream,
    Rule,
    Metric,
    Severity,
    Value,
    Threshold,
    Alert,
    Transition,
    Time,
}

/// What is filled in. Numbers are texts here too; what is not known is empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Values<'a> {
    pub(crate) device: &'a str,
    pub(crate) tenant: Option<&'a str>,
    pub(crate) site: Option<&'a str>,
    pub(crate) class: Option<&'a str>,
    pub(crate) stream: Option<&'a str>,
    pub(crate) rule: &'a str,
    pub(crate) metric: Option<&'a str>,
    pub(crate) severity: &'a str,
    pub(crate) value: Option<f64>,
    pub(crate) threshold: Option<f64>,
    pub(crate) alert: &'a str,
    pub(crate) transition: u32,
    /// RFC 3339.
    pub(crate) time: &'a str,
}

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are.
    Plain,
    /// As what may stand between the quotes of a JSON string; a number that is not known is `null`.
    Json,
}

/// Why a rendered text cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// A value would make other levels of a topic than the rule says, or none.
    Topic,
    /// It is longer than it may be.
    TooLong,
    /// The device's name is too long to be told whole.
    Device,
}

/// A place that there is none of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnknownPlace(pub(crate) Box<str>);

// === impl Template ===

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    ///
    /// If it names a place that there is none of.
    pub(crate) fn parse(text: &str) -> Result<Self, UnknownPlace> {
        let mut pieces = Vec::new();
        let (mut plain, mut rest) = (String::new(), text);
        while let Some((before, after)) = rest.split_once('{') {
            plain.push_str(before);
            let name = after.split_once('}').filter(|(name, _)| is_name(name));
            let Some((name, behind)) = name else {
                plain.push('{');
                rest = after;
                continue;
            };
            let place = Place::named(name).ok_or_else(|| UnknownPlace(name.into()))?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
            }
            pieces.push(Piece::Place(place));
            rest = behind;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into()));
        }
        Ok(Self { pieces: pieces.into() })
    }

    /// The text with its values, as a payload.
    pub(crate) fn payload(&self, values: &Values<'_>, form: Form) -> Result<String, Unusable> {
        self.render(values, form, PAYLOAD_BYTES_MAX)
    }

    /// The text with its values, as the subject of a message.
    pub(crate) fn subject(&self, values: &Values<'_>) -> Result<String, Unusable> {
        self.render(values, Form::Plain, SUBJECT_BYTES_MAX)
    }

    /// The text with its values, as a topic that has the levels which the template shows.
    pub(crate) fn topic(&self, values: &Values<'_>) -> Result<String, Unusable> {
        for piece in &self.pieces {
            let Piece::Place(place) = piece else { continue };
            let value = values.text(*place, Form::Plain);
            // Control characters are let through by some brokers and end the connection at others.
            let breaks = |c: char| matches!(c, '+' | '#' | '/') || c.is_control();
            if value.is_empty() || value.len() >= place.bytes_cut() || value.contains(breaks) {
                return Err(Unusable::Topic);
            }
        }
        let topic = self.render(values, Form::Plain, TOPIC_BYTES_MAX)?;
        if is_topic(&topic) { Ok(topic) } else { Err(Unusable::Topic) }
    }

    fn render(&self, values: &Values<'_>, form: Form, bytes_max: usize) -> Result<String, Unusable> {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Place(place) => out.push_str(&values.text(*place, form)),
            }
            if out.len() > bytes_max {
                return Err(Unusable::TooLong);
            }
        }
        Ok(out)
    }
}

/// Whether this in braces is a place, known or not.
fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.bytes().all(plain)
}

// === impl Place ===

impl Place {
    /// Every place, by its name.
    pub(crate) const ALL: [(&'static str, Self); 13] = [
        ("device", Self::Device),
        ("tenant", Self::Tenant),
        ("site", Self::Site),
        ("class", Self::Class),
        ("stream", Self::Stream),
        ("rule", Self::Rule),
        ("metric", Self::Metric),
        ("severity", Self::Severity),
        ("value", Self::Value),
        ("threshold", Self::Threshold),
        ("alert", Self::Alert),
        ("transition", Self::Transition),
        ("time", Self::Time),
    ];

    /// Values from this length on may have been cut to it or a little below: they are not what the device said.
    const fn bytes_cut(self) -> usize {
        match self {
            Self::Device => DEVICE_BYTES_CUT,
            Self::Metric => 253,
            Self::Tenant | Self::Site | Self::Class | Self::Stream => 125,
            _ => TOPIC_BYTES_MAX,
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, place)| *place)
    }
}

// === impl Values ===

impl Values<'_> {
    /// What a place is filled with.
    fn text(&self, place: Place, form: Form) -> Cow<'_, str> {
        let text = match place {
            Place::Device => self.device,
            Place::Tenant => self.tenant.unwrap_or_default(),
            Place::Site => self.site.unwrap_or_default(),
            Place::Class => self.class.unwrap_or_default(),
            Place::Stream => self.stream.unwrap_or_default(),
            Place::Rule => self.rule,
            Place::Metric => self.metric.unwrap_or_default(),
            Place::Severity => self.severity,
            Place::Alert => self.alert,
            Place::Time => self.time,
            Place::Value => return number(self.value, form),
            Place::Threshold => return number(self.threshold, form),
            Place::Transition => return self.transition.to_string().into(),
        };
        match form {
            Form::Plain => text.into(),
            Form::Json => escaped(text),
        }
    }

    /// Values to try a template with, all of them or as few as there can be.
    pub(crate) fn sample(full: bool) -> Values<'static> {
        let text = full.then_some("x");
        Values {
            device: "x",
            tenant: text,
            site: text,
            class: text,
            stream: text,
            rule: "x",
            metric: text,
            severity: "critical",
            value: full.then_some(1.5),
            threshold: full.then_some(1.5),
            alert: "a1-0",
            transition: 1,
            time: "2026-01-01T00:00:00Z",
        }
    }
}

/// As the events write numbers.
fn number(number: Option<f64>, form: Form) -> Cow<'static, str> {
    let written =
        number.filter(|number| number.is_finite()).and_then(|number| serde_json::to_string(&number).ok());
    match written {
        Some(text) => text.into(),
        None if form == Form::Json => "null".into(),
        None => "".into(),
    }
}

/// What stands between the quotes of the text's JSON.
fn escaped(text: &str) -> Cow<'static, str> {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or_default().to_owned().into()
}
