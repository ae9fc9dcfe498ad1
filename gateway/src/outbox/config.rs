//! The `[outbox]` section.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::{ByteSize, ConfigError, Key, Preset, Section, Shape, Value};

const DIRECTORY: Key = Key {
    name: "directory",
    value: Value::Path,
    default: Preset::Required,
    help: "Where messages are kept until the cloud has confirmed them. Created if it is missing; belongs to one gateway.",
};
const BYTES_MAX: Key = Key {
    name: "bytes_max",
    value: Value::Bytes { min: 16 * ByteSize::MIB, max: 16 * ByteSize::TIB },
    default: Preset::Is("16GiB"),
    help: "Most bytes of unconfirmed messages. At the limit devices get no acknowledgement and are not read; the last \
           5 % are kept for alerts and status. The disk needs about 512 MiB more.",
};
const QUEUE_BYTES_MAX: Key = Key {
    name: "queue_bytes_max",
    value: Value::Bytes { min: ByteSize::MIB, max: ByteSize::GIB },
    default: Preset::Is("16MiB"),
    help: "Most bytes in memory on their way to the disk. At the limit devices are not read.",
};
const COMMIT_FLOOR: Key = Key {
    name: "commit_floor",
    value: Value::Time { min: Duration::ZERO, max: Duration::from_millis(100) },
    default: Preset::Is("1ms"),
    help: "Least time between the starts of two commits while fewer than 256 messages and 64 KiB wait. More saves flash \
           and processor time and delays acknowledgements; alerts never wait for it.",
};
const GROUP_BYTES_MAX: Key = Key {
    name: "segment_bytes_max",
    value: Value::Bytes { min: 64 * ByteSize::KIB, max: 16 * ByteSize::MIB },
    default: Preset::Is("1MiB"),
    help: "Most bytes of messages in one segment, the unit that is stored, read and checked.",
};
const GROUP_COUNT_MAX: Key = Key {
    name: "segment_messages_max",
    value: Value::Count { min: 1, max: 65_536 },
    default: Preset::Is("4096"),
    help: "Most messages in one segment.",
};
const BODY_CODEC: Key = Key {
    name: "body_codec",
    value: Value::Choice(&["lz4", "none"]),
    default: Preset::Is("lz4"),
    help: "How segments are compressed. `lz4` writes a third less to the disk; `none` spends less processor time.",
};
const TAIL_CACHE_BYTES: Key = Key {
    name: "tail_cache_bytes",
    value: Value::Bytes { min: 0, max: 4 * ByteSize::GIB },
    default: Preset::Is("32MiB"),
    help: "Memory for recent segments, so that consumers that keep up never read the disk.",
};
const ON_FULL: Key = Key {
    name: "on_full",
    value: Value::Choice(&["withhold", "drop-oldest"]),
    default: Preset::Is("withhold"),
    help: "What to do when `bytes_max` is nearly used up. `withhold` takes nothing more in: devices get no \
           acknowledgement and are not read (or are refused, as their listener says). `drop-oldest` lets the oldest \
           messages go from 90 % of the quota down to 85 %, first of lane bulk, then of telemetry; each time is counted \
           and recorded in lane status. Alerts and status are never dropped.",
};
const ON_MISSING_RANGE: Key = Key {
    name: "on_missing_range",
    value: Value::Choice(&["quarantine", "refuse"]),
    default: Preset::Is("quarantine"),
    help: "What to do when entries that were acknowledged are found to be gone, after damage to the disk. `quarantine` \
           reads what can still be read, keeps the evidence in `quarantine/`, raises a critical alert that names the \
           missing positions, and goes on. `refuse` does not start.",
};
const REALTIME: Key = Key {
    name: "realtime",
    value: Value::Flag,
    default: Preset::Is("true"),
    help: "Ask for real-time scheduling (FIFO, priority 1) of the thread that commits: on a busy machine it decides how \
           long an acknowledgement takes. Without the right to it the gateway says so and goes on.",
};
const DISK_FREE_MIN: Key = Key {
    name: "disk_free_min",
    value: Value::Bytes { min: 0, max: ByteSize::TIB },
    default: Preset::Is("512MiB"),
    help: "Least free space on the disk of `directory`. Below it only alerts and status are taken in, below a quarter of \
           it nothing; both end a tenth above. What was taken in already needs some of it. 0 does not watch the disk.",
};
const BALLAST: Key = Key {
    name: "ballast",
    value: Value::Bytes { min: 0, max: 4 * ByteSize::GIB },
    default: Preset::Is("64MiB"),
    help: "Size of a file that only takes up space, to be removed when the disk is full so that the database can open and \
           delete. Made while it leaves `disk_free_min` free, also later. 0 is none.",
};
const SCRUB_RATE: Key = Key {
    name: "scrub_rate",
    value: Value::Bytes { min: 0, max: ByteSize::GIB },
    default: Preset::Is("4MiB"),
    help: "Stored bytes that are read and checked per second in the background: what was there at the start, and once a \
           day all that is unconfirmed. 0 checks nothing before it is read for the cloud.",
};

/// How bodies of segments are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyCodec {
    /// Stored as they are.
    None,
    /// LZ4 block format.
    Lz4,
}

/// What happens when the quota is nearly used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// Nothing more is taken in.
    Withhold,
    /// The oldest entries of the least important lane go.
    DropOldest,
}

/// What happens when entries that were acknowledged are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMissingRange {
    /// They are announced and passed over.
    Quarantine,
    /// The outbox does not open.
    Refuse,
}

/// How the outbox works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the log lives; created if missing.
    pub directory: PathBuf,
    /// Most bytes of unconfirmed entries.
    pub bytes_max: u64,
    /// Most bytes submitted and not yet durable.
    pub queue_bytes_max: usize,
    /// Least time between the starts of two commits.
    pub commit_floor: Duration,
    /// Most bytes of records in one segment.
    pub segment_bytes_max: usize,
    /// Most records in one segment.
    pub segment_messages_max: u32,
    /// How segments are compressed.
    pub body_codec: BodyCodec,
    /// Memory for recent segments.
    pub tail_cache_bytes: usize,
    /// What happens when the quota is nearly used up.
    pub on_full: OnFull,
    /// What happens when entries that were acknowledged are gone.
    pub on_missing_range: OnMissingRange,
    /// Whether the committer asks for real-time scheduling.
    pub realtime: bool,
    /// The gateway's id, which the outbox's own events carry.
    pub gateway: String,
    /// Least free space on the disk, in bytes; 0 if it is not watched.
    pub disk_free_min: u64,
    /// Bytes of the file that is removed when the disk is full; 0 if there is none.
    pub ballast: u64,
    /// Stored bytes that are checked per second; 0 if none are.
    pub scrub_rate: u64,
}

// === impl BodyCodec ===

impl BodyCodec {
    /// The number in a segment's header.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Lz4 => 1,
        }
    }

    pub(super) const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Lz4),
            _ => None,
        }
    }
}

// === impl Config ===

impl Config {
    pub(crate) const SHAPE: Shape = Shape::table(
        "outbox",
        "The durable log between devices and cloud. Nothing is acknowledged before it is on the disk here.",
        &[
            DIRECTORY,
            BYTES_MAX,
            QUEUE_BYTES_MAX,
            COMMIT_FLOOR,
            GROUP_BYTES_MAX,
            GROUP_COUNT_MAX,
            BODY_CODEC,
            TAIL_CACHE_BYTES,
            ON_FULL,
            ON_MISSING_RANGE,
            REALTIME,
            DISK_FREE_MIN,
            BALLAST,
            SCRUB_RATE,
        ],
    );

    /// The defaults, for a log in `directory`.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            bytes_max: 16 * ByteSize::GIB,
            queue_bytes_max: 16 << 20,
            commit_floor: Duration::from_millis(1),
            segment_bytes_max: 1 << 20,
            segment_messages_max: 4096,
            body_codec: BodyCodec::Lz4,
            tail_cache_bytes: 32 << 20,
            on_full: OnFull::Withhold,
            on_missing_range: OnMissingRange::Quarantine,
            realtime: true,
            gateway: "gateway".to_owned(),
            disk_free_min: 512 * ByteSize::MIB,
            ballast: 64 * ByteSize::MIB,
            scrub_rate: 4 * ByteSize::MIB,
        }
    }

    pub(crate) fn read(section: &mut Section) -> Result<Self, ConfigError> {
        let messages = section.count(&GROUP_COUNT_MAX)?;
        Ok(Self {
            directory: section.path(&DIRECTORY)?,
            bytes_max: section.bytes(&BYTES_MAX)?.0,
            queue_bytes_max: section.bytes(&QUEUE_BYTES_MAX)?.as_usize(),
            commit_floor: section.time(&COMMIT_FLOOR)?,
            segment_bytes_max: section.bytes(&GROUP_BYTES_MAX)?.as_usize(),
            segment_messages_max: u32::try_from(messages).unwrap_or(u32::MAX),
            body_codec: match section.choice(&BODY_CODEC)?.as_str() {
                "none" => BodyCodec::None,
                _ => BodyCodec::Lz4,
            },
            tail_cache_bytes: section.bytes(&TAIL_CACHE_BYTES)?.as_usize(),
            on_full: match section.choice(&ON_FULL)?.as_str() {
                "drop-oldest" => OnFull::DropOldest,
                _ => OnFull::Withhold,
            },
            on_missing_range: match section.choice(&ON_MISSING_RANGE)?.as_str() {
                "refuse" => OnMissingRange::Refuse,
                _ => OnMissingRange::Quarantine,
            },
            realtime: section.flag(&REALTIME)?,
            gateway: String::new(),
            disk_free_min: section.bytes(&DISK_FREE_MIN)?.0,
            ballast: section.bytes(&BALLAST)?.0,
            scrub_rate: section.bytes(&SCRUB_RATE)?.0,
        })
    }
}
