//! The `[commands.replies]` section.

use std::time::Duration;

use crate::commands::dispatch::Entities;
use crate::commands::replies::{Pattern, Settings};
use crate::config::{ConfigError, Key, Preset, Section, Shape, Value};

const TO: Key = Key {
    name: "to",
    value: Value::Text { chars_max: 4096 },
    default: Preset::Required,
    help: "Queues and topics of the same namespace that a command may name in `reply_to`, at most 64, several separated by commas; one `*` in a name stands for any text. The gateway needs the right to send to them. Replies to anything else are not sent, and counted. Entities that commands come from are never among them.",
};
const TIMEOUT: Key = Key {
    name: "timeout",
    value: Value::Time { min: Duration::from_secs(1), max: Duration::from_secs(60) },
    default: Preset::Is("10s"),
    help: "How long a reply may take. The device's next command waits for it. Then it is given up, and the message of the command is settled all the same.",
};
const TIME_TO_LIVE: Key = Key {
    name: "time_to_live",
    value: Value::Time { min: Duration::from_secs(1), max: Duration::from_secs(14 * 24 * 3600) },
    default: Preset::Is("1h"),
    help: "How long a reply waits for its reader; the entity may say less.",
};
const PATTERNS_MAX: usize = 64;

pub(super) const SHAPE: Shape = Shape::table(
    "replies",
    "Replies to commands that ask for one (`reply_to`). Left out, none is sent.",
    &[TO, TIMEOUT, TIME_TO_LIVE],
);

pub(super) fn read(section: &mut Section, entities: &Entities) -> Result<Option<Settings>, ConfigError> {
    if !section.has(&SHAPE) {
        return Ok(None);
    }
    let mut section = section.child(&SHAPE)?;
    let text = section.text(&TO)?;
    let mut to = Vec::new();
    for name in text.split(',').map(str::trim) {
        let is_own = |own: &str| own.eq_ignore_ascii_case(name);
        if entities.names().iter().any(|own| is_own(own)) {
            return Err(section.refuse(&TO, name, "an entity that commands do not come from"));
        }
        let pattern: Pattern = name
            .parse()
            .map_err(|_| section.refuse(&TO, name, "names of queues or topics, with one * at most"))?;
        to.push(pattern);
    }
    if to.len() > PATTERNS_MAX {
        return Err(section.refuse(&TO, &text, &format!("at most {PATTERNS_MAX} names")));
    }
    Ok(Some(Settings { to, timeout: section.time(&TIMEOUT)?, time_to_live: section.time(&TIME_TO_LIVE)? }))
}
