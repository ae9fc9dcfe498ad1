//! Bounds of connections, sessions and what is kept for them.

use std::time::Duration;

use crate::config::{ByteSize, ConfigError, Key, Preset, Section, Value};

const CONNECTIONS_MAX: Key = Key {
    name: "connections_max",
    value: Value::Count { min: 1, max: 1_000_000 },
    default: Preset::Is("10000"),
    help: "Most connections at once. Above it a CONNECT is refused (MQTT 5: 0x9F, 3.1.1: 3), except one that replaces a connection of the same client.",
};
const PACKET_BYTES_MAX: Key = Key {
    name: "packet_bytes_max",
    value: Value::Bytes { min: 1024, max: 900 << 10 },
    default: Preset::Is("256KiB"),
    help: "Largest MQTT packet. A larger one is refused from its header (0x95) and closes the connection. Event Hubs takes at most 1 MB per event.",
};
const INFLIGHT_MAX: Key = Key {
    name: "inflight_max",
    value: Value::Count { min: 1, max: 8192 },
    default: Preset::Is("128"),
    help: "Most QoS 1 and 2 publishes per connection that are not acknowledged yet. MQTT 5 is told so and cut off above it (0x93); 3.1.1 is not read meanwhile.",
};
const INFLIGHT_BYTES_MAX: Key = Key {
    name: "inflight_bytes_max",
    value: Value::Bytes { min: 16 << 10, max: 64 << 20 },
    default: Preset::Is("256KiB"),
    help: "Most bytes per connection that are submitted and not durable. The connection is not read meanwhile.",
};
const BYTES_PER_SECOND_MAX: Key = Key {
    name: "bytes_per_second_max",
    value: Value::Bytes { min: 64 << 10, max: 64 << 30 },
    default: Preset::Is("32MiB"),
    help: "Most bytes per second that one connection is read, after a burst of a sixteenth of that (at least 64KiB). A client that sends faster is read later and sees slower acknowledgements: all clients share the disk, and one must not slow the others.",
};
const OUTGOING_BYTES_MAX: Key = Key {
    name: "outgoing_bytes_max",
    value: Value::Bytes { min: 4 << 10, max: 1 << 20 },
    default: Preset::Is("64KiB"),
    help: "Most bytes per connection that are written and not taken by its socket. A delivery that does not fit is dropped and counted at QoS 0, and waits in the session's queue at QoS 1 and 2.",
};
const SUBSCRIPTIONS_MAX: Key = Key {
    name: "subscriptions_max",
    value: Value::Count { min: 0, max: 4096 },
    default: Preset::Is("64"),
    help: "Most subscriptions per session. One more is refused with 0x97 (3.1.1: 0x80).",
};
const TOPIC_LEVELS_MAX: Key = Key {
    name: "topic_levels_max",
    value: Value::Count { min: 1, max: 128 },
    default: Preset::Is("16"),
    help: "Most levels of a topic filter. A deeper one is refused with 0x8F (3.1.1: 0x80).",
};
const CONNECT_TIMEOUT: Key = Key {
    name: "connect_timeout",
    value: Value::Time { min: Duration::from_millis(100), max: Duration::from_secs(60) },
    default: Preset::Is("5s"),
    help: "Time for CONNECT to arrive after the connection, or after its TLS handshake. Then the connection is closed.",
};
const HANDSHAKE_TIMEOUT: Key = Key {
    name: "handshake_timeout",
    value: Value::Time { min: Duration::from_millis(100), max: Duration::from_secs(60) },
    default: Preset::Is("10s"),
    help: "Time for a TLS handshake, its wait for a free slot included. Then the connection is closed.",
};
const KEEP_ALIVE_MAX: Key = Key {
    name: "keep_alive_max",
    value: Value::Time { min: Duration::from_secs(1), max: Duration::from_secs(65_535) },
    default: Preset::Is("20min"),
    help: "Longest keep alive. A longer one, or none, is shortened to it; MQTT 5 is told so. A silent client is closed after 1.5 times its keep alive (0x8D).",
};
const OUTGOING_INFLIGHT_MAX: Key = Key {
    name: "outgoing_inflight_max",
    value: Value::Count { min: 1, max: 60_000 },
    default: Preset::Is("64"),
    help: "Most QoS 1 and 2 messages on their way to one client: sent and not acknowledged by it. Its own Receive Maximum (MQTT 5) holds as well. The next ones wait in its queue. At most `queue_messages_max`.",
};
const QUEUE_MESSAGES_MAX: Key = Key {
    name: "queue_messages_max",
    value: Value::Count { min: 1, max: 60_000 },
    default: Preset::Is("1000"),
    help: "Most QoS 1 and 2 messages that one session holds: on their way, waiting for an acknowledgement or for the client to come back. One more is dropped for this session and counted.",
};
const QUEUE_BYTES_MAX: Key = Key {
    name: "queue_bytes_max",
    value: Value::Bytes { min: 16 << 10, max: 1 << 30 },
    default: Preset::Is("1MiB"),
    help: "Most bytes that one session holds in the same way. A message that does not fit is dropped for this session and counted. At least `packet_bytes_max`, at most `queues_bytes_max`.",
};
const QUEUES_BYTES_MAX: Key = Key {
    name: "queues_bytes_max",
    value: Value::Bytes { min: 1 << 20, max: 1 << 40 },
    default: Preset::Is("64MiB"),
    help: "Most bytes that all sessions hold together. Above it messages for any of them are dropped and counted, until there is room again.",
};
const SESSION_EXPIRY_MAX: Key = Key {
    name: "session_expiry_max",
    value: Value::Time { min: Duration::ZERO, max: Duration::from_secs(365 * 86_400) },
    default: Preset::Is("24h"),
    help: "Longest that a session outlives its connection, in whole seconds. MQTT 5 clients that wish for more are told this time; sessions of 3.1.1 (clean session 0) last this long. Then subscriptions and queue are discarded. 0s: no session outlives its connection.",
};
const SESSIONS_MAX: Key = Key {
    name: "sessions_max",
    value: Value::Count { min: 1, max: 1_000_000 },
    default: Preset::Is("20000"),
    help: "Most sessions that outlive their connections, connected ones included. A client that asks for one more is refused (MQTT 5: 0x97, 3.1.1: 3).",
};
const RETAINED_MAX: Key = Key {
    name: "retained_max",
    value: Value::Count { min: 0, max: 1_000_000 },
    default: Preset::Is("10000"),
    help: "Most topics with a retained message. A message for one more topic is not kept, and counted. It goes to subscribers all the same, except that MQTT 5 clients are refused (0x97) on topics that are no telemetry.",
};
const RETAINED_BYTES_MAX: Key = Key {
    name: "retained_bytes_max",
    value: Value::Bytes { min: 0, max: 16 << 30 },
    default: Preset::Is("16MiB"),
    help: "Most bytes of retained messages, topics included. At the bound the same happens as with `retained_max`.",
};
const TOPIC_ALIASES_MAX: Key = Key {
    name: "topic_aliases_max",
    value: Value::Count { min: 0, max: 1024 },
    default: Preset::Is("16"),
    help: "Most topic aliases of MQTT 5 per connection, in each direction. Clients are told so; a larger alias closes the connection (0x94). 0: no aliases.",
};
const SYS_INTERVAL: Key = Key {
    name: "sys_interval",
    value: Value::Time { min: Duration::ZERO, max: Duration::from_secs(3600) },
    default: Preset::Is("10s"),
    help: "How often the figures under `$SYS/` are published, at least every second apart. 0s: there is no `$SYS/`.",
};

/// Every key of the section itself.
pub(super) const KEYS: &[Key] = &[
    CONNECTIONS_MAX,
    PACKET_BYTES_MAX,
    INFLIGHT_MAX,
    INFLIGHT_BYTES_MAX,
    BYTES_PER_SECOND_MAX,
    OUTGOING_BYTES_MAX,
    OUTGOING_INFLIGHT_MAX,
    QUEUE_MESSAGES_MAX,
    QUEUE_BYTES_MAX,
    QUEUES_BYTES_MAX,
    SESSION_EXPIRY_MAX,
    SESSIONS_MAX,
    SUBSCRIPTIONS_MAX,
    TOPIC_LEVELS_MAX,
    RETAINED_MAX,
    RETAINED_BYTES_MAX,
    TOPIC_ALIASES_MAX,
    SYS_INTERVAL,
    CONNECT_TIMEOUT,
    HANDSHAKE_TIMEOUT,
    KEEP_ALIVE_MAX,
];

/// Bounds of connections, sessions and what is kept for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Most connections at once.
    pub connections_max: usize,
    /// Largest packet.
    pub packet_bytes_max: usize,
    /// Most publishes per connection that are not acknowledged.
    pub inflight_max: u16,
    /// Most bytes per connection that are submitted and not durable.
    pub inflight_bytes_max: usize,
    /// Most bytes per second that one connection is read; not zero.
    pub bytes_per_second_max: u64,
    /// Most bytes per connection that wait to be delivered.
    pub outgoing_bytes_max: usize,
    /// Most QoS 1 and 2 messages on their way to one client; at most `queue_messages_max`.
    pub outgoing_inflight_max: u16,
    /// Most QoS 1 and 2 messages that one session holds.
    pub queue_messages_max: usize,
    /// Most bytes that one session holds; at least `packet_bytes_max`.
    pub queue_bytes_max: usize,
    /// Most bytes that all sessions hold together; at least `queue_bytes_max`.
    pub queues_bytes_max: usize,
    /// Longest that a session outlives its connection, in seconds; 0: none does.
    pub session_expiry_seconds_max: u32,
    /// Most sessions that outlive their connections, connected ones included.
    pub sessions_max: usize,
    /// Most subscriptions per session.
    pub subscriptions_max: usize,
    /// Most levels of a topic filter.
    pub topic_levels_max: usize,
    /// Most topics with a retained message.
    pub retained_max: usize,
    /// Most bytes of retained messages, topics included.
    pub retained_bytes_max: usize,
    /// Most topic aliases per connection, in each direction; 0: none.
    pub topic_aliases_max: u16,
    /// How often `$SYS/` is published; zero: never, otherwise at least a second.
    pub sys_interval: Duration,
    /// Time for CONNECT to arrive.
    pub connect_timeout: Duration,
    /// Time for a TLS handshake.
    pub handshake_timeout: Duration,
    /// Longest keep alive, in seconds.
    pub keep_alive_seconds_max: u16,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            packet_bytes_max: 256 << 10,
            inflight_max: 128,
            inflight_bytes_max: 256 << 10,
            bytes_per_second_max: 32 << 20,
            outgoing_bytes_max: 64 << 10,
            outgoing_inflight_max: 64,
            queue_messages_max: 1000,
            queue_bytes_max: 1 << 20,
            queues_bytes_max: 64 << 20,
            session_expiry_seconds_max: 86_400,
            sessions_max: 20_000,
            subscriptions_max: 64,
            topic_levels_max: 16,
            retained_max: 10_000,
            retained_bytes_max: 16 << 20,
            topic_aliases_max: 16,
            sys_interval: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(10),
            keep_alive_seconds_max: 1200,
        }
    }
}

impl Limits {
    pub(super) fn read(section: &mut Section) -> Result<Self, ConfigError> {
        let limits = Self {
            connections_max: section.length(&CONNECTIONS_MAX)?,
            packet_bytes_max: section.bytes(&PACKET_BYTES_MAX)?.as_usize(),
            inflight_max: short(section, &INFLIGHT_MAX)?,
            inflight_bytes_max: section.bytes(&INFLIGHT_BYTES_MAX)?.as_usize(),
            bytes_per_second_max: section.bytes(&BYTES_PER_SECOND_MAX)?.0,
            outgoing_bytes_max: section.bytes(&OUTGOING_BYTES_MAX)?.as_usize(),
            outgoing_inflight_max: short(section, &OUTGOING_INFLIGHT_MAX)?,
            queue_messages_max: section.length(&QUEUE_MESSAGES_MAX)?,
            queue_bytes_max: section.bytes(&QUEUE_BYTES_MAX)?.as_usize(),
            queues_bytes_max: section.bytes(&QUEUES_BYTES_MAX)?.as_usize(),
            session_expiry_seconds_max: seconds(section, &SESSION_EXPIRY_MAX)?,
            sessions_max: section.length(&SESSIONS_MAX)?,
            subscriptions_max: section.length(&SUBSCRIPTIONS_MAX)?,
            topic_levels_max: section.length(&TOPIC_LEVELS_MAX)?,
            retained_max: section.length(&RETAINED_MAX)?,
            retained_bytes_max: section.bytes(&RETAINED_BYTES_MAX)?.as_usize(),
            topic_aliases_max: short(section, &TOPIC_ALIASES_MAX)?,
            sys_interval: section.time(&SYS_INTERVAL)?,
            connect_timeout: section.time(&CONNECT_TIMEOUT)?,
            handshake_timeout: section.time(&HANDSHAKE_TIMEOUT)?,
            keep_alive_seconds_max: u16::try_from(seconds(section, &KEEP_ALIVE_MAX)?).unwrap_or(u16::MAX),
        };
        limits.check(section)?;
        Ok(limits)
    }

    /// What the ranges of single keys cannot say.
    fn check(&self, section: &Section) -> Result<(), ConfigError> {
        let size = |bytes: usize| ByteSize(u64::try_from(bytes).unwrap_or(u64::MAX)).to_string();
        if usize::from(self.outgoing_inflight_max) > self.queue_messages_max {
            let most = format!("at most queue_messages_max, {}", self.queue_messages_max);
            let given = self.outgoing_inflight_max.to_string();
            return Err(section.refuse(&OUTGOING_INFLIGHT_MAX, &given, &most));
        }
        if self.queue_bytes_max < self.packet_bytes_max {
            let least = format!("at least packet_bytes_max, {}", size(self.packet_bytes_max));
            return Err(section.refuse(&QUEUE_BYTES_MAX, &size(self.queue_bytes_max), &least));
        }
        if self.queue_bytes_max > self.queues_bytes_max {
            let most = format!("at most queues_bytes_max, {}", size(self.queues_bytes_max));
            return Err(section.refuse(&QUEUE_BYTES_MAX, &size(self.queue_bytes_max), &most));
        }
        if !self.sys_interval.is_zero() && self.sys_interval < Duration::from_secs(1) {
            let given = format!("{}us", self.sys_interval.as_micros());
            return Err(section.refuse(&SYS_INTERVAL, &given, "0s, or at least 1s"));
        }
        Ok(())
    }
}

fn short(section: &mut Section, key: &Key) -> Result<u16, ConfigError> {
    // The ranges of these keys fit.
    Ok(u16::try_from(section.count(key)?).unwrap_or(u16::MAX))
}

fn seconds(section: &mut Section, key: &Key) -> Result<u32, ConfigError> {
    Ok(u32::try_from(section.time(key)?.as_secs()).unwrap_or(u32::MAX))
}
