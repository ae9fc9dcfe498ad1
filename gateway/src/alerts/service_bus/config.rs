//! One `[[alerts.service_bus]]` table.

use std::time::Duration;

use penstock_proto::Lane;

use crate::alerts::circuit::Retry;
use crate::commands::is_entity_name;
use crate::config::{ByteSize, ConfigError, Key, Preset, Section, Shape, Value};
use crate::outbox::ConsumerId;

const ENTITY: Key = Key {
    name: "entity",
    value: Value::Text { chars_max: 260 },
    default: Preset::Required,
    help: "The queue or topic that rules may send commands to, in the namespace of `[commands.connection]`, whose credential needs the right to send. It may be the queue that this gateway takes its own devices' commands from.",
};
const NAME: Key = Key {
    name: "name",
    value: Value::Text { chars_max: 32 },
    default: Preset::Unset,
    help: "What this destination is called, of `a-z 0-9 -`; needed where there are several. Under another name it begins anew, with what the lane still holds.",
};
const RETRY_LONGEST: Key = Key {
    name: "retry_longest",
    value: Value::Time { min: Duration::from_millis(10), max: Duration::from_secs(600) },
    default: Preset::Is("30s"),
    help: "The bound that pauses after failures grow to, from half a second on; they are drawn at random below it. Where Service Bus asks for a longer pause, it gets that.",
};
const PROBE_INTERVAL: Key = Key {
    name: "probe_interval",
    value: Value::Time { min: Duration::from_millis(10), max: Duration::from_secs(3600) },
    default: Preset::Is("1min"),
    help: "How often it is tried again, give or take a tenth, when nothing can be sent until somebody changes something: there is no such entity, or no right to send to it.",
};
const DEAD_LETTER_BYTES_MAX: Key = Key {
    name: "dead_letter_bytes_max",
    value: Value::Bytes { min: 0, max: ByteSize::TIB },
    default: Preset::Is("64MiB"),
    help: "Most bytes of lane `dead`, others' letters included, up to which commands are put there that Service Bus never takes; never more than a quarter of `outbox.bytes_max`. Beyond it everything waits instead.",
};

/// The first pause after a failure.
const RETRY_FIRST: Duration = Duration::from_millis(500);

/// One `[[alerts.service_bus]]` table.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// Tells several apart.
    name: Option<String>,
    pub(super) entity: String,
    /// What the types of events begin with.
    pub(super) type_prefix: String,
    pub(super) retry: Retry,
    /// Most bytes of lane dead.
    pub(super) dead_letter_bytes_max: u64,
}

/// The consumer that the outbox must be opened with.
pub(crate) fn consumer(config: &Config) -> ConsumerId {
    let name = match &config.name {
        None => "alerts-service-bus".to_owned(),
        Some(name) => format!("alerts-service-bus-{name}"),
    };
    ConsumerId { name, lane: Lane::Alerts }
}

impl Config {
    pub(crate) const SHAPE: Shape = Shape::list(
        "service_bus",
        "A queue or topic of Azure Service Bus that rules may send commands to (`docs/alerting.md`). Those that a rule asks for elsewhere are an error of that rule.",
        &[ENTITY, NAME, RETRY_LONGEST, PROBE_INTERVAL, DEAD_LETTER_BYTES_MAX],
    );

    /// Reads one table. `reachable`: there is a section `[commands]`, whose connection is used. `type_prefix` is what the types
    /// of the stage's events begin with.
    ///
    /// # Errors
    ///
    /// Names the key, what it was given and what it takes.
    pub(crate) fn read(
        section: &mut Section,
        reachable: bool,
        type_prefix: &str,
    ) -> Result<Self, ConfigError> {
        let entity = section.text(&ENTITY)?;
        if !is_entity_name(&entity) {
            return Err(section.refuse(&ENTITY, &entity, "the name of a queue or topic"));
        }
        if !reachable {
            let expected = "nothing without a section [commands], whose connection is used";
            return Err(section.refuse(&ENTITY, &entity, expected));
        }
        let name = section.text_if_set(&NAME)?;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if let Some(name) = &name
            && !name.chars().all(plain)
        {
            return Err(section.refuse(&NAME, name, "a name of a-z 0-9 -"));
        }
        let longest = section.time(&RETRY_LONGEST)?;
        let probe_interval = section.time(&PROBE_INTERVAL)?;
        Ok(Self {
            name,
            entity,
            type_prefix: type_prefix.to_owned(),
            retry: Retry { first: RETRY_FIRST.min(longest), longest, probe_interval },
            dead_letter_bytes_max: section.bytes(&DEAD_LETTER_BYTES_MAX)?.0,
        })
    }

    /// Reads every table.
    ///
    /// # Errors
    ///
    /// As [`Self::read`]; also when two have the same name or the same entity.
    pub(crate) fn read_all(
        section: &mut Section,
        reachable: bool,
        type_prefix: &str,
    ) -> Result<Vec<Self>, ConfigError> {
        let mut all: Vec<Self> = Vec::new();
        let mut tables = section.children(&Self::SHAPE)?;
        let several = tables.len() > 1;
        for table in &mut tables {
            let read = Self::read(table, reachable, type_prefix)?;
            match &read.name {
                None if several => return Err(table.missing(&NAME)),
                Some(name) if all.iter().any(|other| other.name == read.name) => {
                    return Err(table.refuse(&NAME, name, "a name that no other has"));
                }
                _ => {}
            }
            if all.iter().any(|other| other.is_for(&read.entity)) {
                return Err(table.refuse(&ENTITY, &read.entity, "an entity that no other table has"));
            }
            all.push(read);
        }
        Ok(all)
    }

    /// Whether this is where commands for `entity` go. Names have no case.
    pub(crate) fn is_for(&self, entity: &str) -> bool {
        self.entity.eq_ignore_ascii_case(entity)
    }

    /// The entity.
    pub(crate) fn entity(&self) -> &str {
        &self.entity
    }

    /// One that tries again soon.
    #[cfg(test)]
    pub(super) fn for_tests(entity: &str) -> Self {
        Self {
            name: None,
            entity: entity.to_owned(),
            type_prefix: "io.penstock".to_owned(),
            retry: Retry {
                first: Duration::from_millis(2),
                longest: Duration::from_millis(20),
                probe_interval: Duration::from_millis(20),
            },
            dead_letter_bytes_max: 64 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse_for_tests;

    const ROOT: Shape = Shape::table("", "", &[]).with(&[Config::SHAPE]);

    fn read(text: &str, reachable: bool) -> Result<Vec<Config>, String> {
        let mut root = parse_for_tests(text, &ROOT).map_err(|error| error.to_string())?;
        Config::read_all(&mut root, reachable, "io.penstock").map_err(|error| error.to_string())
    }

    #[test]
    fn an_entity_is_all_that_it_takes() {
        let read = read("[[service_bus]]\nentity = \"site-commands\"", true).unwrap();
        let [config] = &read[..] else { panic!("one") };
        assert_eq!(consumer(config).name, "alerts-service-bus");
        assert_eq!(config.retry.first, Duration::from_millis(500));
        assert_eq!(config.retry.longest, Duration::from_secs(30));
        assert!(config.is_for("Site-Commands") && !config.is_for("site"));
    }

    #[test]
    fn several_are_told_apart_by_their_names() {
        let two = "[[service_bus]]\nentity = \"a\"\nname = \"one\"\n[[service_bus]]\nentity = \"b\"\n";
        let names = |all: Vec<Config>| all.iter().map(|one| consumer(one).name).collect::<Vec<_>>();
        let read_both = read(&format!("{two}name = \"two\""), true).map(names);
        assert_eq!(read_both.unwrap(), ["alerts-service-bus-one", "alerts-service-bus-two"]);
        assert!(read(two, true).unwrap_err().contains("service_bus[1].name is missing"));
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        let check = |text: &str, reachable, expected: &str| {
            let error = read(&format!("[[service_bus]]\n{text}"), reachable).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check("", true, "entity is missing");
        check("entity = \"a b\"", true, "the name of a queue or topic");
        check("entity = \"a/$DeadLetterQueue\"", true, "the name of a queue or topic");
        check("entity = \"a\"", false, "nothing without a section [commands]");
        check("entity = \"a\"\nname = \"A\"", true, "a name of a-z 0-9 -");
        let twice = "entity = \"a\"\nname = \"one\"\n[[service_bus]]\nentity = \"A\"\nname = \"two\"";
        check(twice, true, "an entity that no other table has");
        let twice = "entity = \"a\"\nname = \"one\"\n[[service_bus]]\nentity = \"b\"\nname = \"one\"";
        check(twice, true, "a name that no other has");
    }
}
