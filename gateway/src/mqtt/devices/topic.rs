//! The topic that a device gets its commands under, and the one it answers to.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use crate::mqtt::template::Verdict;

const DEVICE: &str = "{device}";
const ID: &str = "{command_id}";
const NAME: &str = "{name}";
/// What follows the command's topic in its answer's.
const ANSWER: &str = "/status";
/// Stands where a command has no name, or no id: an empty level is one that firmware loses.
const NOTHING: &str = "-";

/// The topic of commands: levels of plain text, `{device}`, `{command_id}` and perhaps `{name}`, as in
/// `devices/{device}/commands/{command_id}`. A device answers to the same topic with `/status` behind it.
///
/// `{device}` stands before the others, so that a device can subscribe to all of its commands without
/// reaching anybody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandTopic {
    levels: Box<[Level]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Text(Box<str>),
    Device,
    Id,
    Name,
}

/// Why a topic of commands is refused; says what is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandTopicError {
    /// A level that is neither plain text nor a capture.
    #[error("levels that are plain text or one of {{device}} {{command_id}} {{name}}")]
    Level,
    /// A capture that is there twice.
    #[error("each capture at most once")]
    Repeated,
    /// A capture that is needed and not there.
    #[error("a topic with {{device}} and {{command_id}}")]
    Missing,
    /// `{device}` stands behind another capture.
    #[error("{{device}} before {{command_id}} and {{name}}")]
    Order,
}

/// What the topic of an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mqtt) struct AnswerTo<'a> {
    /// The level of the command's id.
    pub(in crate::mqtt) id: &'a str,
    /// The level of its name, if the topic has one.
    pub(in crate::mqtt) name: Option<&'a str>,
}

// === impl CommandTopic ===

impl CommandTopic {
    /// The topic of one command. The id is one level as it is, but for what a level cannot hold; of the
    /// name `%` is escaped as well.
    pub(in crate::mqtt) fn of(&self, device: &str, id: &str, name: Option<&str>) -> String {
        let mut topic = String::new();
        for (place, level) in self.levels.iter().enumerate() {
            if place > 0 {
                topic.push('/');
            }
            match level {
                Level::Text(text) => topic.push_str(text),
                Level::Device => topic.push_str(device),
                Level::Id => escape(&mut topic, id, false),
                Level::Name => escape(&mut topic, name.unwrap_or_default(), true),
            }
        }
        topic
    }

    /// The topic of the answer to the command under `topic`.
    pub(in crate::mqtt) fn answer_to(topic: &str) -> String {
        [topic, ANSWER].concat()
    }

    /// What it is to publish to `topic` as `device`: an answer of its own, or out of the question;
    /// nothing if the topic has to do with no command.
    pub(in crate::mqtt) fn verdict<'a>(&self, topic: &'a str, device: &str) -> Option<Verdict<'a>> {
        if self.captures(topic).is_some() {
            // Commands come from the gateway.
            return Some(Verdict::Foreign);
        }
        let (whose, answer) = self.captures(topic.strip_suffix(ANSWER)?)?;
        Some(if whose == device { Verdict::Answer(answer) } else { Verdict::Foreign })
    }

    /// Whether devices answer to commands on this topic.
    pub(in crate::mqtt) fn is_answer(&self, topic: &str) -> bool {
        self.captures(topic).is_none()
            && topic.strip_suffix(ANSWER).is_some_and(|command| self.captures(command).is_some())
    }

    /// Whether a filter matches the topic of every command of `device`.
    pub(in crate::mqtt) fn is_heard_through(&self, filter: &str, device: &str) -> bool {
        let hidden = device.starts_with('$') && self.levels.first() == Some(&Level::Device);
        if hidden && filter.starts_with(['+', '#']) {
            return false;
        }
        let mut asked = filter.split('/');
        for level in &self.levels {
            match (asked.next(), level) {
                (Some("#"), _) => return true,
                (Some("+"), _) => {}
                (Some(text), Level::Text(own)) if *text == **own => {}
                (Some(text), Level::Device) if text == device => {}
                _ => return false,
            }
        }
        asked.next().is_none_or(|rest| rest == "#")
    }

    /// Whether a filter stays inside the topics of `device`: it spells every level out up to the device.
    pub(in crate::mqtt) fn owns_filter(&self, filter: &str, device: &str) -> bool {
        let mut asked = filter.split('/');
        for level in &self.levels {
            match (asked.next(), level) {
                (Some(text), Level::Text(own)) if *text == **own => {}
                (Some(text), Level::Device) => return text == device,
                _ => return false,
            }
        }
        false
    }

    /// Whether there is a topic that both `template`, one of devices' publishes, and this or its answers
    /// could match.
    pub(in crate::mqtt) fn overlaps(&self, template: &str) -> bool {
        let own = self.to_string();
        [own.as_str(), &Self::answer_to(&own)].iter().any(|own| {
            let (mut one, mut other) = (own.split('/'), template.split('/'));
            loop {
                match (one.next(), other.next()) {
                    (None, None) => return true,
                    (Some(a), Some(b)) if a == b || a.starts_with('{') || b.starts_with('{') => {}
                    _ => return false,
                }
            }
        })
    }

    /// The device, and what else a topic captures, if it matches.
    fn captures<'a>(&self, topic: &'a str) -> Option<(&'a str, AnswerTo<'a>)> {
        let mut given = topic.split('/');
        let mut device = "";
        let mut captured = AnswerTo { id: "", name: None };
        for level in &self.levels {
            let text = given.next()?;
            match level {
                Level::Text(own) if **own == *text => {}
                Level::Text(_) => return None,
                Level::Device => device = text,
                Level::Id => captured.id = text,
                Level::Name => captured.name = Some(text),
            }
        }
        (given.next().is_none() && !captured.id.is_empty()).then_some((device, captured))
    }
}

impl FromStr for CommandTopic {
    type Err = CommandTopicError;

    fn from_str(text: &str) -> Result<Self, CommandTopicError> {
        let mut levels = Vec::new();
        for text in text.split('/') {
            let level = Level::parse(text)?;
            if !matches!(level, Level::Text(_)) && levels.contains(&level) {
                return Err(CommandTopicError::Repeated);
            }
            levels.push(level);
        }
        if !levels.contains(&Level::Device) || !levels.contains(&Level::Id) {
            return Err(CommandTopicError::Missing);
        }
        if levels.iter().find(|level| !matches!(level, Level::Text(_))) != Some(&Level::Device) {
            return Err(CommandTopicError::Order);
        }
        Ok(Self { levels: levels.into() })
    }
}

impl fmt::Display for CommandTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, level) in self.levels.iter().enumerate() {
            let slash = if place > 0 { "/" } else { "" };
            let text = match level {
                Level::Text(text) => text,
                Level::Device => DEVICE,
                Level::Id => ID,
                Level::Name => NAME,
            };
            write!(f, "{slash}{text}")?;
        }
        Ok(())
    }
}

impl Level {
    fn parse(text: &str) -> Result<Self, CommandTopicError> {
        Ok(match text {
            DEVICE => Self::Device,
            ID => Self::Id,
            NAME => Self::Name,
            "" => return Err(CommandTopicError::Level),
            text if text.contains(['{', '}', '+', '#', '$']) || text.contains(char::is_control) => {
                return Err(CommandTopicError::Level);
            }
            text => Self::Text(text.into()),
        })
    }
}

/// Appends a level, with `%` and two digits for each byte that a level cannot hold.
fn escape(out: &mut String, text: &str, percent: bool) {
    let text = if text.is_empty() { NOTHING } else { text };
    for c in text.chars() {
        if matches!(c, '/' | '+' | '#') || c.is_control() || (percent && c == '%') {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a string does not fail.
                let _written = write!(out, "%{byte:02X}");
            }
        } else {
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::codec::filter_matches;

    const PLAIN: &str = "devices/{device}/commands/{command_id}";
    const NAMED: &str = "{device}/do/{name}/{command_id}";

    fn topic(text: &str) -> CommandTopic {
        text.parse().expect(text)
    }

    #[test]
    fn a_topic_is_spelled_out_and_read_again() {
        let check = |template: &str, id: &str, name: Option<&str>, expected: &str| {
            let topic = topic(template);
            assert_eq!(topic.to_string(), template);
            let told = topic.of("d1", id, name);
            assert_eq!(told, expected);
            let answer = CommandTopic::answer_to(&told);
            let Some(Verdict::Answer(read)) = topic.verdict(&answer, "d1") else { panic!("{answer}") };
            assert!(expected.contains(read.id) && !read.id.is_empty());
            assert_eq!(read.name.is_some(), template == NAMED);
        };
        check(PLAIN, "c-1", Some("open"), "devices/d1/commands/c-1");
        check(PLAIN, "a%2Fb", None, "devices/d1/commands/a%2Fb");
        check(PLAIN, "a/b+#\u{1}", None, "devices/d1/commands/a%2Fb%2B%23%01");
        check(PLAIN, "", None, "devices/d1/commands/-");
        check(NAMED, "7", Some("open door/2%"), "d1/do/open door%2F2%25/7");
        check(NAMED, "7", None, "d1/do/-/7");
        check(NAMED, "7", Some("ä\u{85}"), "d1/do/ä%C2%85/7");
    }

    #[test]
    fn only_a_devices_own_answers_may_be_published() {
        let check = |text: &str, expected: Option<Verdict<'_>>| {
            assert_eq!(topic(PLAIN).verdict(text, "d1"), expected, "{text}");
        };
        check("devices/d1/commands/7/status", Some(Verdict::Answer(AnswerTo { id: "7", name: None })));
        check("devices/d2/commands/7/status", Some(Verdict::Foreign));
        check("devices/d1/commands/7", Some(Verdict::Foreign));
        check("devices/d2/commands/7", Some(Verdict::Foreign));
        check("devices/d1/commands/status", Some(Verdict::Foreign));
        for other in [
            "devices/d1/commands",
            "devices/d1/commands/",
            "devices/d1/commands//status",
            "devices/d1/commands/7/status/x",
            "devices/d1/telemetry",
            "/status",
            "status",
        ] {
            check(other, None);
        }
    }

    #[test]
    fn a_device_hears_its_commands_through_filters_that_match_all_of_them() {
        let check = |template: &str, filter: &str, expected: bool| {
            let topic = topic(template);
            assert_eq!(topic.is_heard_through(filter, "d1"), expected, "{filter} under {template}");
            let matched = ["1", "2"].map(|id| filter_matches(filter, &topic.of("d1", id, Some(id))));
            assert_eq!(matched == [true; 2], expected, "{filter} under {template}");
        };
        for filter in
            ["devices/d1/commands/+", "devices/d1/#", "#", "+/+/commands/#", "devices/d1/commands/+/#"]
        {
            check(PLAIN, filter, true);
        }
        for filter in [
            "devices/d1/commands/1",
            "devices/d1/+",
            "devices/d2/#",
            "devices/d1/commands/+/status",
            "devices/d1/commands",
        ] {
            check(PLAIN, filter, false);
        }
        check(NAMED, "d1/do/+/+", true);
        check(NAMED, "d1/do/1/+", false);
        assert!(topic(NAMED).is_heard_through("$d/#", "$d") && !topic(NAMED).is_heard_through("#", "$d"));
    }

    #[test]
    fn a_filter_of_ones_own_spells_the_device_out() {
        let check = |template: &str, filter: &str, expected: bool| {
            assert_eq!(topic(template).owns_filter(filter, "d1"), expected, "{filter} under {template}");
        };
        for own in ["devices/d1/commands/+", "devices/d1/#", "devices/d1"] {
            check(PLAIN, own, true);
        }
        for foreign in
            ["devices/+/commands/+", "devices/d2/commands/+", "#", "devices", "+/d1/#", "devices/#"]
        {
            check(PLAIN, foreign, false);
        }
        check(NAMED, "d1/do/+/+", true);
        check(NAMED, "+/do/+/+", false);
    }

    #[test]
    fn bad_topics_are_refused() {
        let check = |text: &str, error| assert_eq!(text.parse::<CommandTopic>(), Err(error), "{text}");
        check("devices/{device}/commands", CommandTopicError::Missing);
        check("commands/{command_id}", CommandTopicError::Missing);
        check("{device}/{device}/{command_id}", CommandTopicError::Repeated);
        check("{command_id}/{device}", CommandTopicError::Order);
        check("{name}/{device}/{command_id}", CommandTopicError::Order);
        for level in ["", "a+", "#", "{stream}", "x{name}", "$SYS", "a\u{7}"] {
            check(&format!("{{device}}/{{command_id}}/{level}"), CommandTopicError::Level);
        }
    }

    #[test]
    fn templates_that_would_share_topics_are_noticed() {
        let check = |template, expected| assert_eq!(topic(PLAIN).overlaps(template), expected, "{template}");
        check("devices/{device}/telemetry", false);
        check("devices/{device}/telemetry/{stream}", false);
        check("devices/{device}/commands", false);
        check("devices/{device}/commands/{stream}", true);
        check("{tenant}/{site}/{device}/{stream}", true);
        check("{tenant}/{site}/{device}/{class}/{stream}", true);
        check("{tenant}/{site}/{device}/{class}/data", false);
        check("{tenant}/{device}/data/{stream}", false);
    }
}
