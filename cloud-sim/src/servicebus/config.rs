//! The entities of a namespace: what is asked for, as JSON or from a test, and the checks of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Most queues, topics and subscriptions together.
pub const ENTITIES_MAX: usize = 1_000;
/// Longest name of an entity, in characters.
const NAME_MAX: usize = 260;
/// Locks of the service last 5 s to 5 min; shorter ones are for tests.
const LOCK_SECONDS: std::ops::RangeInclusive<f64> = 0.05..=300.0;
const DELIVERIES: std::ops::RangeInclusive<u32> = 1..=2_000;
/// Longest time to live and longest window for duplicates, in seconds: ten years, seven days.
const TTL_SECONDS_MAX: f64 = 315_360_000.0;
const WINDOW_SECONDS_MAX: f64 = 604_800.0;

/// The rule that the development connection string names, by default.
pub const KEY_NAME_DEFAULT: &str = "RootManageSharedAccessKey";
/// The key of that rule, by default; the same text that Microsoft's emulator takes.
pub const KEY_DEFAULT: &str = "SAS_KEY_VALUE";

/// The Service Bus side of a cloud-sim.
#[derive(Clone)]
pub struct ServiceBus {
    /// Where AMQP without TLS binds; port 0 takes a free one.
    pub listener: SocketAddr,
    /// Where AMQP with TLS binds, if there is to be such a listener.
    pub tls: Option<SocketAddr>,
    /// Where AMQP in WebSocket messages, with TLS, binds, if there is to be such a listener.
    pub websocket: Option<SocketAddr>,
    /// What there is at the start.
    pub entities: Entities,
    /// The name of the rule whose key clients have.
    pub key_name: String,
    /// The key; clients sign tokens with it.
    pub key: String,
}

/// Entities to create.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entities {
    /// The queues.
    #[serde(default)]
    pub queues: Vec<QueueSpec>,
    /// The topics.
    #[serde(default)]
    pub topics: Vec<TopicSpec>,
}

/// A queue, or a subscription of a topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueSpec {
    /// 1 to 260 letters, digits, `.`, `-`, `_`; in a queue's name also `/`. Compared without case.
    pub name: String,
    /// Whether every message belongs to a session.
    #[serde(default)]
    pub sessions: bool,
    /// How long messages and sessions stay locked, in seconds, 0.05 to 300.
    #[serde(default = "lock_seconds_default")]
    pub lock_seconds: f64,
    /// Failed deliveries after which a message is dead-lettered, 1 to 2,000.
    #[serde(default = "max_delivery_count_default")]
    pub max_delivery_count: u32,
    /// Time to live of messages that have none or a longer one, in seconds.
    #[serde(default)]
    pub ttl_seconds: Option<f64>,
    /// Whether messages that expire are dead-lettered; otherwise they are gone.
    #[serde(default)]
    pub dead_letter_on_expiry: bool,
    /// How long message ids are remembered, in seconds, at most seven days; `None`: not at all. Not for subscriptions.
    #[serde(default)]
    pub duplicate_window_seconds: Option<f64>,
    /// Which messages of its topic a subscription gets; all without one. Not for queues.
    #[serde(default)]
    pub filter: Option<Filter>,
}

/// A topic with its subscriptions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSpec {
    /// As of a queue.
    pub name: String,
    /// As of a queue.
    #[serde(default)]
    pub duplicate_window_seconds: Option<f64>,
    /// Who gets its messages.
    #[serde(default)]
    pub subscriptions: Vec<QueueSpec>,
}

/// A correlation filter: everything given must be equal.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// `correlation-id`.
    pub correlation_id: Option<String>,
    /// `message-id`.
    pub message_id: Option<String>,
    /// `group-id`.
    pub session_id: Option<String>,
    /// `subject`.
    pub subject: Option<String>,
    /// `to`.
    pub to: Option<String>,
    /// `reply-to`.
    pub reply_to: Option<String>,
    /// Application properties: text, whole numbers, numbers and booleans.
    pub properties: BTreeMap<String, serde_json::Value>,
}

/// Why entities are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Not a name.
    #[error("{0:?} is not a name: 1 to {NAME_MAX} letters, digits, '.', '-', '_' or '/'")]
    Name(String),
    /// Two entities with one name.
    #[error("{0:?} is there twice")]
    Twice(String),
    /// A number out of its range.
    #[error("{entity:?}: {key} is out of range: {range}")]
    Range {
        /// The entity.
        entity: String,
        /// The key.
        key: &'static str,
        /// What it may be.
        range: &'static str,
    },
    /// A key that this kind of entity has not.
    #[error("{entity:?}: {key} is not possible here")]
    Misplaced {
        /// The entity.
        entity: String,
        /// The key.
        key: &'static str,
    },
    /// All entities together would be too many.
    #[error("more than {ENTITIES_MAX} entities")]
    TooMany,
}

fn lock_seconds_default() -> f64 {
    60.0
}

fn max_delivery_count_default() -> u32 {
    10
}

// === impl ServiceBus ===

/// Everything but the key.
impl std::fmt::Debug for ServiceBus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("ServiceBus")
            .field("listener", &self.listener)
            .field("tls", &self.tls)
            .field("websocket", &self.websocket)
            .field("entities", &self.entities)
            .field("key_name", &self.key_name)
            .finish_non_exhaustive()
    }
}

impl ServiceBus {
    /// A free port of 127.0.0.1 without TLS, and the default key.
    #[must_use]
    pub fn new(entities: Entities) -> Self {
        Self {
            listener: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            websocket: None,
            entities,
            key_name: KEY_NAME_DEFAULT.to_owned(),
            key: KEY_DEFAULT.to_owned(),
        }
    }

    /// What clients connect with when the listener without TLS is at `address`.
    #[must_use]
    pub fn connection_string(&self, address: SocketAddr) -> String {
        let Self { key_name, key, .. } = self;
        format!(
            "Endpoint=sb://{address};SharedAccessKeyName={key_name};SharedAccessKey={key};UseDevelopmentEmulator=true;"
        )
    }
}

// === impl Entities ===

impl Entities {
    /// These queues and no topics.
    #[must_use]
    pub fn queues(queues: impl IntoIterator<Item = QueueSpec>) -> Self {
        Self { queues: queues.into_iter().collect(), topics: Vec::new() }
    }

    /// How many entities these are.
    pub(crate) fn count(&self) -> usize {
        self.queues.len() + self.topics.iter().map(|topic| 1 + topic.subscriptions.len()).sum::<usize>()
    }

    /// Checks names and numbers.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), SpecError> {
        if self.count() > ENTITIES_MAX {
            return Err(SpecError::TooMany);
        }
        let mut names = BTreeSet::new();
        let mut once = |name: String| {
            if names.insert(name.to_lowercase()) { Ok(()) } else { Err(SpecError::Twice(name)) }
        };
        for queue in &self.queues {
            queue.check()?;
            if queue.filter.is_some() {
                return Err(SpecError::Misplaced { entity: queue.name.clone(), key: "filter" });
            }
            once(queue.name.clone())?;
        }
        for topic in &self.topics {
            check_name(&topic.name, true)?;
            check_seconds(
                &topic.name,
                "duplicate_window_seconds",
                topic.duplicate_window_seconds,
                WINDOW_SECONDS_MAX,
            )?;
            once(topic.name.clone())?;
            for subscription in &topic.subscriptions {
                subscription.check_subscription()?;
                once(subscription_path(&topic.name, &subscription.name))?;
            }
        }
        Ok(())
    }
}

/// The address of a subscription.
pub(crate) fn subscription_path(topic: &str, subscription: &str) -> String {
    format!("{topic}/Subscriptions/{subscription}")
}

/// Seconds that were checked, as milliseconds.
pub(crate) fn milliseconds(seconds: f64) -> u64 {
    let duration = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

// === impl QueueSpec ===

impl QueueSpec {
    /// A queue without sessions and with the service's defaults.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            sessions: false,
            lock_seconds: lock_seconds_default(),
            max_delivery_count: max_delivery_count_default(),
            ttl_seconds: None,
            dead_letter_on_expiry: false,
            duplicate_window_seconds: None,
            filter: None,
        }
    }

    /// A queue whose messages belong to sessions.
    #[must_use]
    pub fn with_sessions(name: impl Into<String>) -> Self {
        Self { sessions: true, ..Self::new(name) }
    }

    fn check(&self) -> Result<(), SpecError> {
        check_name(&self.name, true)?;
        self.check_numbers()
    }

    fn check_subscription(&self) -> Result<(), SpecError> {
        check_name(&self.name, false)?;
        if self.duplicate_window_seconds.is_some() {
            return Err(SpecError::Misplaced { entity: self.name.clone(), key: "duplicate_window_seconds" });
        }
        self.check_numbers()
    }

    fn check_numbers(&self) -> Result<(), SpecError> {
        let out = |key, range| Err(SpecError::Range { entity: self.name.clone(), key, range });
        if !LOCK_SECONDS.contains(&self.lock_seconds) {
            return out("lock_seconds", "0.05 to 300");
        }
        if !DELIVERIES.contains(&self.max_delivery_count) {
            return out("max_delivery_count", "1 to 2000");
        }
        check_seconds(&self.name, "ttl_seconds", self.ttl_seconds, TTL_SECONDS_MAX)?;
        let window = self.duplicate_window_seconds;
        check_seconds(&self.name, "duplicate_window_seconds", window, WINDOW_SECONDS_MAX)
    }
}

fn check_seconds(entity: &str, key: &'static str, seconds: Option<f64>, most: f64) -> Result<(), SpecError> {
    match seconds {
        Some(seconds) if !(0.001..=most).contains(&seconds) => Err(SpecError::Range {
            entity: entity.to_owned(),
            key,
            range: "0.001 to ten years, or seven days for duplicates",
        }),
        Some(_) | None => Ok(()),
    }
}

fn check_name(name: &str, slashes: bool) -> Result<(), SpecError> {
    let allowed = |char: char| {
        char.is_ascii_alphanumeric() || matches!(char, '.' | '-' | '_') || (slashes && char == '/')
    };
    let lower = name.to_lowercase();
    let reserved = lower.contains("/subscriptions/") || name.starts_with('/') || name.ends_with('/');
    if name.is_empty() || name.len() > NAME_MAX || reserved || !name.chars().all(allowed) {
        return Err(SpecError::Name(name.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Entities, QueueSpec};

    fn check(json: &str, expected: Result<(), &str>) {
        let entities: Entities = serde_json::from_str(json).unwrap();
        let got = entities.check().map_err(|error| error.to_string());
        match expected {
            Ok(()) => assert_eq!(got, Ok(()), "{json}"),
            Err(part) => assert!(got.as_ref().unwrap_err().contains(part), "{json}: {got:?}"),
        }
    }

    #[test]
    fn entities_are_read_with_the_defaults_of_the_service() {
        let text = r#"{"queues":[{"name":"commands","sessions":true}]}"#;
        let entities: Entities = serde_json::from_str(text).unwrap();
        assert_eq!(entities, Entities::queues([QueueSpec::with_sessions("commands")]));
        assert!(serde_json::from_str::<Entities>(r#"{"queues":[{"name":"a","locks":1}]}"#).is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        check(r#"{"queues":[{"name":"a/b.c-d_1"}]}"#, Ok(()));
        check(r#"{"queues":[{"name":""}]}"#, Err("not a name"));
        check(r#"{"queues":[{"name":"a$b"}]}"#, Err("not a name"));
        check(r#"{"queues":[{"name":"t/subscriptions/s"}]}"#, Err("not a name"));
        check(r#"{"queues":[{"name":"a"},{"name":"A"}]}"#, Err("twice"));
        check(r#"{"queues":[{"name":"a","lock_seconds":301}]}"#, Err("lock_seconds"));
        check(r#"{"queues":[{"name":"a","max_delivery_count":0}]}"#, Err("max_delivery_count"));
        check(r#"{"queues":[{"name":"a","ttl_seconds":0}]}"#, Err("ttl_seconds"));
        check(r#"{"queues":[{"name":"a","filter":{}}]}"#, Err("filter"));
        check(r#"{"topics":[{"name":"t","subscriptions":[{"name":"a/b"}]}]}"#, Err("not a name"));
        check(r#"{"topics":[{"name":"t","subscriptions":[{"name":"a"},{"name":"A"}]}]}"#, Err("twice"));
        let window =
            r#"{"topics":[{"name":"t","subscriptions":[{"name":"a","duplicate_window_seconds":1}]}]}"#;
        check(window, Err("duplicate_window_seconds"));
    }
}
