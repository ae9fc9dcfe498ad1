//! The `[commands]` section.

mod advice;
mod connection;
mod replies;
#[cfg(test)]
mod tests;

use std::time::Duration;

use penstock_proto::GatewayId;

use super::amqp::{Connection, SignIn};
use super::contract::Completion;
use super::dispatch::{ENTITIES_MAX, Entities, EntityError, EntityTemplate, Group, Limits, Traits};
use super::replies::Settings as Replies;
use super::watcher;
use crate::azure::{Audience, Cloud, TokenHandle};
use crate::config::{self, ConfigError, Key, Preset, Section, Shape, Value};
use crate::mqtt::CommandTopic;

const ENTITY: Key = Key {
    name: "entity",
    value: Value::Text { chars_max: 260 },
    default: Preset::Is("commands"),
    help: "The queue with sessions that holds the devices' commands, or a subscription as `TOPIC/Subscriptions/NAME`. `{site}`, `{tenant}`, `{class}` and `{shard}` stand for what holds for a device, so that devices can be spread over several.",
};
const SHARDS: Key = Key {
    name: "shards",
    value: Value::Count { min: 1, max: 256 },
    default: Preset::Is("1"),
    help: "How many entities the devices are spread over by `{shard}`, from 0: the CRC-32C of the device key in UTF-8, modulo this number. Whoever sends commands computes the same (`docs/commands.md`). An entity has room for 5,000 receivers.",
};
const SITE: Key = trait_key("site", "What `{site}` stands for.");
const TENANT: Key = trait_key("tenant", "What `{tenant}` stands for.");
const CLASS: Key = trait_key("class", "What `{class}` stands for.");
const TOPIC: Key = Key {
    name: "topic",
    value: Value::Text { chars_max: 512 },
    default: Preset::Is("devices/{device}/commands/{command_id}"),
    help: "Where a device gets its commands; it may hold `{name}` too. A device answers under the same topic with `/status` behind it.",
};
const COMPLETION: Key = Key {
    name: "completion",
    value: Value::Choice(&["delivered", "answered"]),
    default: Preset::Is("delivered"),
    help: "When a command is done that does not say itself (`penstock-completion`): `delivered` with the device's PUBACK, `answered` with its answer.",
};
const ACK_TIMEOUT: Key = Key {
    name: "ack_timeout",
    value: Value::Time { min: Duration::from_secs(1), max: Duration::from_secs(3600) },
    default: Preset::Is("30s"),
    help: "How long a connected device may take for its PUBACK. Then the command is abandoned: Service Bus counts it as failed and delivers it again.",
};
const ANSWER_TIMEOUT: Key = Key {
    name: "answer_timeout",
    value: Value::Time { min: Duration::from_secs(1), max: Duration::from_secs(24 * 3600) },
    default: Preset::Is("60s"),
    help: "How long an answer may take after the PUBACK where `completion` is `answered` and the command has no deadline of its own. Then the command has failed (`no-answer`).",
};
const TYPE_PREFIX: Key =
    config::type_prefix("What the types of status events begin with, as `io.penstock.command.succeeded.v1`.");
const LINKS_MAX: Key = Key {
    name: "links_max",
    value: Value::Count { min: 1, max: 5000 },
    default: Preset::Is("4000"),
    help: "Most sessions accepted at once per entity. Service Bus takes 5,000 receivers per entity, of all gateways together. Devices beyond it get their commands too, by `discovery_receivers`, and take the place of those that were idle the longest.",
};
const ACCEPTS_PER_SECOND: Key = Key {
    name: "accepts_per_second",
    value: Value::Count { min: 1, max: 10_000 },
    default: Preset::Is("500"),
    help: "Most sessions accepted per second. When many devices connect at once, the others wait for their turn.",
};
const IN_FLIGHT_MAX: Key = Key {
    name: "in_flight_max",
    value: Value::Count { min: 1, max: 100_000 },
    default: Preset::Is("1000"),
    help: "Most commands on their way to devices at once, one per device. Others wait with their lock held.",
};
const MEMORY_BYTES_MAX: Key = Key {
    name: "memory_bytes_max",
    value: Value::Bytes { min: 1 << 20, max: 1 << 40 },
    default: Preset::Is("64MiB"),
    help: "Most memory of messages that are in hand, of all links together. A message that finds no room is left without being settled or counted as failed, and its session is accepted again after a pause.",
};
const DISCOVERY_RECEIVERS: Key = Key {
    name: "discovery_receivers",
    value: Value::Count { min: 0, max: 100 },
    default: Preset::Is("8"),
    help: "Receivers per entity that wait for any session with commands, only while more devices are connected than `links_max`. With 0 such devices take turns of a minute.",
};
const PARKED_MAX: Key = Key {
    name: "parked_max",
    value: Value::Count { min: 0, max: 1000 },
    default: Preset::Is("256"),
    help: "Most sessions per entity that those receivers hold, without a command being transferred, because their devices are not connected here. Beyond it they are closed, and found at most ten times a second.",
};
const PARK_TIME: Key = Key {
    name: "park_time",
    value: Value::Time { min: Duration::from_secs(1), max: Duration::from_secs(600) },
    default: Preset::Is("30s"),
    help: "How long such a session is held. Another gateway that its device connects to waits as long at most; with `replicas` it is 2 s at most.",
};
const REPLICAS: Key = Key {
    name: "replicas",
    value: Value::Flag,
    default: Preset::Is("false"),
    help: "Whether several gateways receive from the same entities. Then the last completed command of a device is also written to the state of its session, before it is settled, so that another gateway does not repeat it.",
};
const COMPLETED_KEPT: Key = Key {
    name: "completed_kept",
    value: Value::Time { min: Duration::from_secs(3600), max: Duration::from_secs(366 * 24 * 3600) },
    default: Preset::Is("720h"),
    help: "How long the record of a device's last command is kept after it is done. It tells a repeat from a new command; set it above the longest time to live of a command.",
};
const CONTROL: Key = Key {
    name: "control",
    value: Value::Flag,
    default: Preset::Is("false"),
    help: "Whether the gateway itself takes commands, in a session of its own in the same entities: to cap what it sends, to pause what it sends, to say how it is (`docs/control.md`). Whoever may send to the queue may do so.",
};
const CONTROL_SESSION: Key = Key {
    name: "control_session",
    value: Value::Text { chars_max: 128 },
    default: Preset::Unset,
    help: "The id of that session; `gateway/` and the gateway's id if it is not set. It has to hold a `/`, which no device's name does.",
};
const GROUP_DEVICES: Key = Key {
    name: "devices",
    value: Value::Text { chars_max: 256 },
    default: Preset::Required,
    help: "Which devices, by name; one `*` stands for any text.",
};
const GROUP: Shape = Shape::list(
    "group",
    "Devices with a site, tenant or class of their own. The first group that matches decides.",
    &[GROUP_DEVICES, SITE, TENANT, CLASS],
);

const DEAD_LETTERS_INTERVAL: Key = Key {
    name: "interval",
    value: Value::Time { min: Duration::from_secs(1), max: Duration::from_secs(3600) },
    default: Preset::Is("30s"),
    help: "From one look at the dead-letter queue of an entity to the next, a tenth more or less. A look takes one operation for every 100 messages there, and one more.",
};
const REMEMBERED_MAX: Key = Key {
    name: "remembered_max",
    value: Value::Count { min: 100, max: 1_000_000 },
    default: Preset::Is("100000"),
    help: "Most dead letters remembered as told of, of all entities together, some 100 bytes each. Each is remembered while it is in its queue. At the bound new ones are not told of until the queues are emptied.",
};
const DEAD_LETTERS: Shape = Shape::table(
    "dead_letters",
    "Has this gateway watch the dead-letter queues of its entities: a command that Service Bus itself gave up, because its time to live was over or it was delivered too often, gets its final status. Nothing is taken out of them. Left out, they are not watched. Of the gateways that share entities exactly one is to have this.",
    &[DEAD_LETTERS_INTERVAL, REMEMBERED_MAX],
);

const fn trait_key(name: &'static str, help: &'static str) -> Key {
    Key { name, value: Value::Text { chars_max: 64 }, default: Preset::Unset, help }
}

/// The `[commands]` section.
#[derive(Debug, Clone)]
pub struct Config {
    /// How Service Bus is reached.
    pub(crate) connection: Connection,
    /// The tokens to sign in with, if it is done with tokens.
    pub(crate) tokens: Option<TokenHandle>,
    /// Who finds its commands where.
    pub(crate) entities: Entities,
    /// Where devices get them.
    pub(crate) topic: CommandTopic,
    /// When a command is done that does not say it itself.
    pub(crate) completion: Completion,
    /// How long an answer may take.
    pub(crate) answer_timeout: Duration,
    /// How long a PUBACK may take.
    pub(crate) ack_timeout: Duration,
    /// What the types of events begin with.
    pub(crate) type_prefix: String,
    /// Who gets a link.
    pub(crate) limits: Limits,
    /// Most commands on their way to devices.
    pub(crate) in_flight_max: usize,
    /// Most memory of messages in hand, in KiB.
    pub(crate) memory_kib: u32,
    /// Whether the state of sessions is kept for other gateways.
    pub(crate) replicas: bool,
    /// How long records of commands that are done are kept.
    pub(crate) completed_kept: Duration,
    /// Where replies go; `None`: nowhere.
    pub(crate) replies: Option<Replies>,
    /// How dead letters are watched, if they are.
    pub(crate) dead_letters: Option<watcher::Settings>,
    /// Whether the gateway itself takes commands, and in which session if not its usual one.
    pub(crate) control: bool,
    pub(crate) control_session: Option<String>,
}

impl Config {
    pub(crate) const SHAPE: Shape = Shape::table(
        "commands",
        "Commands for devices, out of sessions of Azure Service Bus. Left out, there are none.",
        &[
            ENTITY,
            SHARDS,
            SITE,
            TENANT,
            CLASS,
            TOPIC,
            COMPLETION,
            ACK_TIMEOUT,
            ANSWER_TIMEOUT,
            TYPE_PREFIX,
            LINKS_MAX,
            ACCEPTS_PER_SECOND,
            IN_FLIGHT_MAX,
            MEMORY_BYTES_MAX,
            DISCOVERY_RECEIVERS,
            PARKED_MAX,
            PARK_TIME,
            REPLICAS,
            COMPLETED_KEPT,
            CONTROL,
            CONTROL_SESSION,
        ],
    )
    .with(&[connection::SHAPE, replies::SHAPE, GROUP, DEAD_LETTERS]);

    pub(crate) fn read(section: &mut Section, cloud: Cloud) -> Result<Self, ConfigError> {
        let entities = read_entities(section)?;
        let topic = section.text(&TOPIC)?;
        let topic = topic.parse().map_err(|error: crate::mqtt::CommandTopicError| {
            section.refuse(&TOPIC, &topic, &error.to_string())
        })?;
        let completion = match section.choice(&COMPLETION)?.as_str() {
            "answered" => Completion::Answered,
            _ => Completion::Delivered,
        };
        let ack_timeout = section.time(&ACK_TIMEOUT)?;
        let answer_timeout = section.time(&ANSWER_TIMEOUT)?;
        let type_prefix = section.type_prefix(&TYPE_PREFIX)?;
        let links_max = section.length(&LINKS_MAX)?;
        let accepts_per_second = section.length(&ACCEPTS_PER_SECOND)?.try_into().unwrap_or(u32::MAX);
        let in_flight_max = section.length(&IN_FLIGHT_MAX)?;
        let memory_kib = section.bytes(&MEMORY_BYTES_MAX)?.as_usize() / 1024;
        let receivers = section.length(&DISCOVERY_RECEIVERS)?;
        let parked_max = section.length(&PARKED_MAX)?;
        let park_time = section.time(&PARK_TIME)?;
        let replicas = section.flag(&REPLICAS)?;
        let park_time = if replicas { park_time.min(PARK_TIME_REPLICAS) } else { park_time };
        let completed_kept = section.time(&COMPLETED_KEPT)?;
        let replies = replies::read(section, &entities)?;
        let dead_letters = read_dead_letters(section)?;
        let control = section.flag(&CONTROL)?;
        let control_session = section.text_if_set(&CONTROL_SESSION)?;
        if let Some(session) = &control_session
            && (!session.contains('/') || session.contains(char::is_control))
        {
            return Err(section.refuse(
                &CONTROL_SESSION,
                session,
                "a text with a / and no control characters",
            ));
        }
        let connection = connection::read(&mut section.child(&connection::SHAPE)?, cloud)?;
        let tokens = match &connection.sign_in {
            SignIn::Key(_) => None,
            SignIn::Entra { host } => Some(TokenHandle::new(Audience::namespace(host))),
        };
        Ok(Self {
            connection,
            tokens,
            entities,
            topic,
            completion,
            answer_timeout,
            ack_timeout,
            type_prefix,
            limits: Limits { links_max, accepts_per_second, receivers, parked_max, park_time },
            in_flight_max,
            memory_kib: u32::try_from(memory_kib).unwrap_or(u32::MAX),
            replicas,
            completed_kept,
            replies,
            dead_letters,
            control,
            control_session,
        })
    }

    /// The session of the gateway itself, if it takes commands.
    pub(crate) fn control_session(&self, gateway: &GatewayId) -> Option<String> {
        let own = || format!("gateway/{gateway}");
        self.control.then(|| self.control_session.clone().unwrap_or_else(own))
    }

    /// One queue of a namespace that nobody connects to.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        let template = EntityTemplate::parse("commands").expect("a template");
        Self {
            connection: Connection::new(SignIn::Entra { host: "localhost".to_owned() }),
            tokens: None,
            entities: Entities::new(&template, &Traits::default(), &[], 1).expect("one entity"),
            topic: "devices/{device}/commands/{command_id}".parse().expect("a topic"),
            completion: Completion::Delivered,
            answer_timeout: Duration::from_secs(60),
            ack_timeout: Duration::from_secs(30),
            type_prefix: "io.penstock".to_owned(),
            limits: Limits {
                links_max: 100,
                accepts_per_second: 10_000,
                receivers: 2,
                parked_max: 4,
                park_time: Duration::from_secs(5),
            },
            in_flight_max: 100,
            memory_kib: 1024,
            replicas: false,
            completed_kept: Duration::from_secs(3600),
            replies: None,
            dead_letters: None,
            control: false,
            control_session: None,
        }
    }

    /// The tokens to sign in with, if it is done with tokens.
    #[must_use]
    pub const fn tokens(&self) -> Option<&TokenHandle> {
        self.tokens.as_ref()
    }

    /// Where devices get their commands.
    #[must_use]
    pub const fn topic(&self) -> &CommandTopic {
        &self.topic
    }
}

/// How long a session is held whose device may be connected to another gateway.
const PARK_TIME_REPLICAS: Duration = Duration::from_secs(2);

fn read_dead_letters(section: &mut Section) -> Result<Option<watcher::Settings>, ConfigError> {
    if !section.has(&DEAD_LETTERS) {
        return Ok(None);
    }
    let mut section = section.child(&DEAD_LETTERS)?;
    let interval = section.time(&DEAD_LETTERS_INTERVAL)?;
    Ok(Some(watcher::Settings { interval, remembered_max: section.length(&REMEMBERED_MAX)? }))
}

fn read_entities(section: &mut Section) -> Result<Entities, ConfigError> {
    let text = section.text(&ENTITY)?;
    let shards = section.length(&SHARDS)?.try_into().unwrap_or(u32::MAX);
    let all = read_traits(section)?;
    let mut groups = Vec::new();
    for mut group in section.children(&GROUP)? {
        let devices = group.text(&GROUP_DEVICES)?;
        if devices.matches('*').count() > 1 {
            return Err(group.refuse(&GROUP_DEVICES, &devices, "a name with one * at most"));
        }
        if groups.len() == ENTITIES_MAX {
            return Err(group.refuse(&GROUP_DEVICES, &devices, &format!("at most {ENTITIES_MAX} groups")));
        }
        groups.push(Group { devices, traits: read_traits(&mut group)? });
    }
    let made =
        EntityTemplate::parse(&text).and_then(|template| Entities::new(&template, &all, &groups, shards));
    made.map_err(|error: EntityError| section.refuse(&ENTITY, &text, &error.to_string()))
}

/// Traits become parts of names, so they hold what names of entities may.
fn read_traits(section: &mut Section) -> Result<Traits, ConfigError> {
    let mut read = |key: &Key| -> Result<Option<String>, ConfigError> {
        let value = section.text_if_set(key)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match value {
            Some(text) if !text.chars().all(plain) => {
                Err(section.refuse(key, &text, "1 to 64 of A-Z a-z 0-9 . _ -"))
            }
            value => Ok(value),
        }
    };
    Ok(Traits { site: read(&SITE)?, tenant: read(&TENANT)?, class: read(&CLASS)? })
}
