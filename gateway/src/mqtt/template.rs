//! Topic templates: which topics are telemetry, whose, and into which lane they go.
//!
//! A template is split once into literal text and captures. Matching a topic compares the literals
//! and the connection's own device id in place, and copies nothing.

use penstock_proto::Lane;

use super::devices::{AnswerTo, CommandTopic};

/// Longest captured level, in bytes.
const CAPTURE_BYTES_MAX: usize = 128;

/// All templates of the configuration, tried in order, and the topic of commands after them.
#[derive(Debug)]
pub(super) struct Templates {
    topics: Vec<Template>,
    /// Shares no topic with a template.
    commands: Option<CommandTopic>,
}

/// One topic template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    parts: Vec<Part>,
    lane: Lane,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Text between captures, its slashes included.
    Literal(Box<str>),
    Capture(Capture),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Capture {
    Tenant,
    Site,
    Class,
    Device,
    Stream,
}

/// What the templates say about a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict<'a> {
    /// A topic of this device.
    Own(Matched<'a>),
    /// Where a device says what became of a command to it.
    Answer(AnswerTo<'a>),
    /// A topic of another device, or the gateway's own.
    Foreign,
    /// No template matches.
    Unknown,
}

/// What a topic said about its publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Matched<'a> {
    pub(super) lane: Lane,
    pub(super) tenant: Option<&'a str>,
    pub(super) site: Option<&'a str>,
    pub(super) class: Option<&'a str>,
    pub(super) stream: Option<&'a str>,
}

/// Why a template is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TemplateError {
    #[error("levels that are plain text or one of {{tenant}} {{site}} {{class}} {{device}} {{stream}}")]
    Level,
    #[error("each capture at most once")]
    Repeated,
    #[error("a template with {{device}}")]
    NoDevice,
}

// === impl Templates ===

impl Templates {
    pub(super) const fn new(topics: Vec<Template>, commands: Option<CommandTopic>) -> Self {
        Self { topics, commands }
    }

    /// The topic of commands, if there are any.
    pub(super) const fn commands(&self) -> Option<&CommandTopic> {
        self.commands.as_ref()
    }

    /// Matches a topic that `device` publishes to.
    #[inline]
    pub(super) fn verdict<'a>(&self, topic: &'a str, device: &str) -> Verdict<'a> {
        let mut foreign = false;
        for template in &self.topics {
            match template.matches(topic, device) {
                Some((matched, true)) => return Verdict::Own(matched),
                Some((_, false)) => foreign = true,
                None => {}
            }
        }
        if foreign { Verdict::Foreign } else { self.commands_verdict(topic, device) }
    }

    /// Whether only devices publish to a topic: telemetry, or answers to commands.
    pub(super) fn is_of_devices(&self, topic: &str) -> bool {
        let is_answer = |commands: &CommandTopic| commands.is_answer(topic);
        self.topics.iter().any(|template| template.matches(topic, "").is_some())
            || self.commands.as_ref().is_some_and(is_answer)
    }

    #[cold]
    fn commands_verdict<'a>(&self, topic: &'a str, device: &str) -> Verdict<'a> {
        let verdict = self.commands.as_ref().and_then(|commands| commands.verdict(topic, device));
        verdict.unwrap_or(Verdict::Unknown)
    }

    /// Whether a filter stays inside the topics of `device`: up to `{device}` of some template it
    /// spells every level out, the device's own id among them.
    pub(super) fn owns_filter(&self, filter: &str, device: &str) -> bool {
        self.topics.iter().any(|template| template.owns_filter(filter, device))
            || self.commands.as_ref().is_some_and(|commands| commands.owns_filter(filter, device))
    }

    /// Lanes that publishes may go to.
    pub(super) fn lanes(&self) -> impl Iterator<Item = Lane> {
        let answers = self.commands.as_ref().map(|_| Lane::Status);
        self.topics.iter().map(|template| template.lane).chain(answers)
    }
}

// === impl Template ===

impl Template {
    pub(super) fn parse(text: &str, lane: Lane) -> Result<Self, TemplateError> {
        let mut parts: Vec<Part> = Vec::new();
        let mut literal = String::new();
        for (place, level) in text.split('/').enumerate() {
            if place > 0 {
                literal.push('/');
            }
            let Some(capture) = Capture::parse(level)? else {
                literal.push_str(level);
                continue;
            };
            if parts.contains(&Part::Capture(capture)) {
                return Err(TemplateError::Repeated);
            }
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Capture(capture));
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        if !parts.contains(&Part::Capture(Capture::Device)) {
            return Err(TemplateError::NoDevice);
        }
        Ok(Self { parts, lane })
    }

    /// What the topic captures and whether its device is `device`, or nothing if it does not match.
    #[inline]
    fn matches<'a>(&self, topic: &'a str, device: &str) -> Option<(Matched<'a>, bool)> {
        let mut matched = Matched { lane: self.lane, tenant: None, site: None, class: None, stream: None };
        let mut own = true;
        let mut rest = topic;
        for part in &self.parts {
            let capture = match part {
                Part::Literal(literal) => {
                    rest = rest.strip_prefix(&**literal)?;
                    continue;
                }
                Part::Capture(capture) => *capture,
            };
            let (level, after) = split_level(rest)?;
            rest = after;
            match capture {
                Capture::Device => own = level == device,
                Capture::Tenant => matched.tenant = Some(level),
                Capture::Site => matched.site = Some(level),
                Capture::Class => matched.class = Some(level),
                Capture::Stream => matched.stream = Some(level),
            }
            if capture != Capture::Device && !is_capture(level) {
                return None;
            }
        }
        rest.is_empty().then_some((matched, own))
    }

    fn owns_filter(&self, filter: &str, device: &str) -> bool {
        let mut rest = filter;
        for part in &self.parts {
            match part {
                Part::Literal(literal) => match rest.strip_prefix(&**literal) {
                    Some(after) => rest = after,
                    None => return false,
                },
                Part::Capture(capture) => {
                    let Some((level, after)) = split_level(rest) else { return false };
                    if *capture == Capture::Device {
                        return level == device;
                    }
                    if matches!(level, "+" | "#") {
                        return false;
                    }
                    rest = after;
                }
            }
        }
        false
    }
}

impl Capture {
    /// The capture that a level of a template stands for; none if it is plain text.
    fn parse(level: &str) -> Result<Option<Self>, TemplateError> {
        Ok(Some(match level {
            "{tenant}" => Self::Tenant,
            "{site}" => Self::Site,
            "{class}" => Self::Class,
            "{device}" => Self::Device,
            "{stream}" => Self::Stream,
            "" => return Err(TemplateError::Level),
            plain if plain.contains(['{', '}', '+', '#', '\0', '$']) => return Err(TemplateError::Level),
            _ => return Ok(None),
        }))
    }
}

/// The first level and what follows it, its slash included.
#[inline]
fn split_level(topic: &str) -> Option<(&str, &str)> {
    let end = topic.as_bytes().iter().position(|byte| *byte == b'/').unwrap_or(topic.len());
    topic.split_at_checked(end)
}

/// Whether a text may be captured, or be a device id: 1 to 128 bytes without `%` (kept for escapes)
/// and without control characters.
pub(super) fn is_capture(text: &str) -> bool {
    (1..=CAPTURE_BYTES_MAX).contains(&text.len()) && !text.bytes().any(|b| b == b'%' || b < b' ' || b == 0x7f)
}

/// Whether a text may be a device id: a capture that is one topic level and no wildcard.
pub(super) fn is_device(text: &str) -> bool {
    is_capture(text) && !text.contains(['/', '+', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn templates(texts: &[&str]) -> Templates {
        let topics = texts.iter().map(|text| Template::parse(text, Lane::Telemetry).expect(text)).collect();
        Templates::new(topics, None)
    }

    fn check(texts: &[&str], topic: &str, expected: Verdict<'_>) {
        assert_eq!(templates(texts).verdict(topic, "d1"), expected, "{topic} against {texts:?}");
    }

    const NOTHING: Matched<'_> =
        Matched { lane: Lane::Telemetry, tenant: None, site: None, class: None, stream: None };

    #[test]
    fn templates_tell_own_topics_from_foreign_and_unknown_ones() {
        let both = ["devices/{device}/telemetry", "devices/{device}/telemetry/{stream}"];
        check(&both, "devices/d1/telemetry", Verdict::Own(NOTHING));
        check(&both, "devices/d1/telemetry/a", Verdict::Own(Matched { stream: Some("a"), ..NOTHING }));
        check(&both, "devices/d2/telemetry", Verdict::Foreign);
        check(&both, "devices/d11/telemetry", Verdict::Foreign);
        check(&both, "devices/d/telemetry/a", Verdict::Foreign);
        for unknown in [
            "devices/d1/telemetry/",
            "devices/d1/telemetry/a/b",
            "devices/d1/telemetry/%41",
            "devices/d1/telemetryx",
            "devices/d1",
            "/devices/d1/telemetry",
            "other",
        ] {
            check(&both, unknown, Verdict::Unknown);
        }
    }

    #[test]
    fn every_level_can_be_captured() {
        let expected =
            Matched { tenant: Some("t"), site: Some("s"), class: Some("c"), stream: Some("x"), ..NOTHING };
        check(&["{tenant}/{site}/{class}/{device}/{stream}"], "t/s/c/d1/x", Verdict::Own(expected));
        check(&["{device}"], "d1", Verdict::Own(NOTHING));
        check(&["{device}"], "d2", Verdict::Foreign);
    }

    #[test]
    fn bad_templates_are_refused() {
        let check = |text, error| assert_eq!(Template::parse(text, Lane::Bulk), Err(error), "{text}");
        check("devices/{device}/{device}", TemplateError::Repeated);
        check("devices/telemetry", TemplateError::NoDevice);
        check("devices/{device}x", TemplateError::Level);
        check("devices//{device}", TemplateError::Level);
        check("devices/{device}/#", TemplateError::Level);
        check("devices/{unknown}/{device}", TemplateError::Level);
    }

    #[test]
    fn a_filter_must_spell_out_its_own_device() {
        let check = |text, filter, expected| {
            assert_eq!(templates(&[text]).owns_filter(filter, "d1"), expected, "{filter} under {text}");
        };
        let plain = "devices/{device}/telemetry";
        for own in ["devices/d1/#", "devices/d1/+/x", "devices/d1/commands/+", "devices/d1"] {
            check(plain, own, true);
        }
        for foreign in
            ["#", "devices/+/telemetry", "devices/#", "devices/d2/#", "devices/d11", "+/d1/#", "devices"]
        {
            check(plain, foreign, false);
        }
        check("{tenant}/{device}/x", "acme/d1/#", true);
        check("{tenant}/{device}/x", "+/d1/#", false);
    }

    #[test]
    fn device_ids_are_one_plain_level() {
        let long = "x".repeat(129);
        for bad in ["", "a/b", "a+", "#", "a%20", "a\u{7}", long.as_str()] {
            assert!(!is_device(bad), "{bad}");
        }
        assert!(is_device("device-000001") && is_device("ä b"));
    }
}
