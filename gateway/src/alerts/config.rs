//! The `[alerts]` section.

use std::path::PathBuf;
use std::time::Duration;

use super::reaction::Queues;
use super::rule::Limits;
use super::rules::RulesFile;
use super::{event_grid, service_bus};
use crate::azure::{Cloud, TokenHandle};
use crate::config::{self, ByteSize, ConfigError, Key, Preset, Section, Shape, Value};

const RULES_FILE: Key = Key {
    name: "rules_file",
    value: Value::Path,
    default: Preset::Required,
    help: "The file with the rules (`docs/rules.md`). SIGHUP reads it again; one that cannot be used changes nothing, and a rule that cannot be used keeps only itself out.",
};
const DIRECTORY: Key = Key {
    name: "directory",
    value: Value::Path,
    default: Preset::Required,
    help: "Where snapshots of what the rules have seen are kept. Created if it is not there. Without its files everything that learns begins anew; no alert is lost.",
};
const TYPE_PREFIX: Key =
    config::type_prefix("What the types of alert events begin with, as `io.penstock.alert.raised.v1`.");
const TIME: Key = Key {
    name: "time",
    value: Value::Text { chars_max: 256 },
    default: Preset::Unset,
    help: "Where JSON payloads hold the device's own time (`taken_ms`, `meta.time`): Unix time in seconds or milliseconds, or RFC 3339. Left out, and where it cannot be true, a measurement is as old as its arrival.",
};
const SERIES_MAX: Key = Key {
    name: "series_max",
    value: Value::Count { min: 1, max: 10_000_000 },
    default: Preset::Is("1000000"),
    help: "Most series that rules are evaluated for, each a rule, a device and a metric. Those beyond it are not evaluated, and counted.",
};
const LEARNED_SERIES_MAX: Key = Key {
    name: "learned_series_max",
    value: Value::Count { min: 0, max: 10_000_000 },
    default: Preset::Is("300000"),
    help: "Most of these series that rules of kind `learned` learn. Each takes about 600 bytes of memory and 500 bytes of every snapshot. Those beyond it are not learned, and counted.",
};
const FORGET_AFTER: Key = Key {
    name: "forget_after",
    value: Value::Time { min: Duration::from_secs(3600), max: Duration::from_secs(366 * 86_400) },
    default: Preset::Is("720h"),
    help: "How long a device is remembered that says nothing. Then what rules have learnt of it goes, and it counts towards no bound. Looked at once an hour. Devices about which something is raised, and those that a rule watches for silence, stay.",
};
const SNAPSHOT_EVERY: Key = Key {
    name: "snapshot_every",
    value: Value::Time { min: Duration::from_secs(1), max: Duration::from_secs(3600) },
    default: Preset::Is("30s"),
    help: "How often a snapshot is taken while there is something new. The outbox keeps what came since the last one, to be read again after a crash.",
};
const LAG_MAX: Key = Key {
    name: "lag_max",
    value: Value::Time { min: Duration::from_secs(10), max: Duration::from_secs(24 * 3600) },
    default: Preset::Is("10min"),
    help: "How long the rules may lag behind what comes in. Then they skip to the newest, with an event that says what was not looked at: a box that is too slow for its rules must not fill its disk.",
};
const LAG_BYTES_MAX: Key = Key {
    name: "lag_bytes_max",
    value: Value::Bytes { min: ByteSize::MIB, max: ByteSize::TIB },
    default: Preset::Is("1GiB"),
    help: "How many bytes the rules may lag behind; at the bound the same happens.",
};

const SPARKPLUG_REBIRTH: Key = Key {
    name: "sparkplug_rebirth",
    value: Value::Flag,
    default: Preset::Is("true"),
    help: "Whether a Sparkplug edge node whose messages are missing is asked to tell its births again, by an NCMD with `Node Control/Rebirth` to whoever subscribes to it here, at most once a minute.",
};

/// What the stage is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file with the rules.
    pub rules_file: PathBuf,
    /// Where snapshots are kept.
    pub directory: PathBuf,
    /// What types of events begin with.
    pub type_prefix: String,
    /// Where payloads hold the device's time.
    pub time: Option<String>,
    /// Most series that are evaluated.
    pub series_max: usize,
    /// Most series that rules learn.
    pub learned_series_max: usize,
    /// How long a silent device is remembered.
    pub forget_after: Duration,
    /// How often a snapshot is taken.
    pub snapshot_every: Duration,
    /// How long the rules may lag behind.
    pub lag_max: Duration,
    /// How many bytes the rules may lag behind.
    pub lag_bytes_max: u64,
    /// Whether Sparkplug nodes are asked for their births.
    pub sparkplug_rebirth: bool,
    /// Where alerts are sent.
    pub(crate) event_grid: Vec<event_grid::Config>,
    /// Where rules may send commands.
    pub(crate) service_bus: Vec<service_bus::Config>,
}

impl Config {
    /// The section and those below it.
    pub const SHAPE: Shape = Shape::table(
        "alerts",
        "Rules on what devices report, and where alerts go. Left out, nothing is watched.",
        &[
            RULES_FILE,
            DIRECTORY,
            TYPE_PREFIX,
            TIME,
            SERIES_MAX,
            LEARNED_SERIES_MAX,
            FORGET_AFTER,
            SNAPSHOT_EVERY,
            LAG_MAX,
            LAG_BYTES_MAX,
            SPARKPLUG_REBIRTH,
        ],
    )
    .with(&[event_grid::Config::SHAPE, service_bus::Config::SHAPE]);

    /// Reads the section. `reachable`: there is a section `[commands]`, by whose connection commands can be sent.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong. The rules are read later, by [`super::Rules::load`].
    pub fn read(section: &mut Section, cloud: Cloud, reachable: bool) -> Result<Self, ConfigError> {
        let (rules_file, directory) = (section.path(&RULES_FILE)?, section.path(&DIRECTORY)?);
        let type_prefix = section.type_prefix(&TYPE_PREFIX)?;
        let event_grid = read_sinks(section, cloud, &type_prefix)?;
        let service_bus = service_bus::Config::read_all(section, reachable, &type_prefix)?;
        Ok(Self {
            rules_file,
            directory,
            type_prefix,
            time: section.text_if_set(&TIME)?,
            series_max: section.length(&SERIES_MAX)?,
            learned_series_max: section.length(&LEARNED_SERIES_MAX)?,
            forget_after: section.time(&FORGET_AFTER)?,
            snapshot_every: section.time(&SNAPSHOT_EVERY)?,
            lag_max: section.time(&LAG_MAX)?,
            lag_bytes_max: section.bytes(&LAG_BYTES_MAX)?.0,
            sparkplug_rebirth: section.flag(&SPARKPLUG_REBIRTH)?,
            event_grid,
            service_bus,
        })
    }

    /// Without destinations, and with a folder for snapshots.
    #[cfg(test)]
    pub(crate) fn for_tests(directory: &std::path::Path) -> Self {
        Self {
            rules_file: PathBuf::new(),
            directory: directory.to_owned(),
            type_prefix: "io.penstock".to_owned(),
            time: None,
            series_max: 1000,
            learned_series_max: 1000,
            forget_after: Duration::from_secs(30 * 86_400),
            snapshot_every: Duration::from_secs(30),
            lag_max: Duration::from_secs(600),
            lag_bytes_max: 1 << 30,
            sparkplug_rebirth: true,
            event_grid: Vec::new(),
            service_bus: Vec::new(),
        }
    }

    /// How much is remembered.
    pub(super) fn limits(&self) -> Limits {
        let forget_after_ms = u64::try_from(self.forget_after.as_millis()).unwrap_or(u64::MAX);
        Limits {
            series_max: self.series_max,
            learned_max: self.learned_series_max,
            forget_after_ms,
            ..Limits::default()
        }
    }

    /// Whether rules may send commands.
    #[must_use]
    pub const fn sends_commands(&self) -> bool {
        !self.service_bus.is_empty()
    }

    /// Where rules are read from, and what they may do.
    #[must_use]
    pub fn rules(&self) -> RulesFile {
        RulesFile::new(self.rules_file.clone(), self.queues())
    }

    /// The queues that rules may send to.
    pub(super) fn queues(&self) -> Queues {
        Queues::Only(self.service_bus.iter().map(|config| config.entity().into()).collect())
    }

    /// The tokens that alerts are sent with: one for each destination that is signed in to with tokens.
    pub fn tokens(&self) -> impl Iterator<Item = &TokenHandle> {
        self.event_grid.iter().filter_map(event_grid::Config::tokens)
    }
}

fn read_sinks(
    section: &mut Section,
    cloud: Cloud,
    type_prefix: &str,
) -> Result<Vec<event_grid::Config>, ConfigError> {
    let mut sinks: Vec<event_grid::Config> = Vec::new();
    let mut tables = section.children(&event_grid::Config::SHAPE)?;
    let several = tables.len() > 1;
    for table in &mut tables {
        let sink = event_grid::Config::read(table, cloud, type_prefix)?;
        let taken = sinks.iter().any(|other| other.name() == sink.name());
        if taken || (several && sink.name().is_none()) {
            return Err(event_grid::Config::same_name(table, sink.name()));
        }
        sinks.push(sink);
    }
    Ok(sinks)
}
