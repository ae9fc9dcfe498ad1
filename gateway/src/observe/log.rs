//! Logging: to standard error, as text or as JSON lines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{ConfigError, Key, Preset, Section, Shape, Value};

const LEVEL: Key = Key {
    name: "level",
    value: Value::Text { chars_max: 400 },
    default: Preset::Is("info"),
    help: "What is logged: error, warn, info, debug or trace, also per module as in `info,penstock::uplink=debug`.",
};
const FORMAT: Key = Key {
    name: "format",
    value: Value::Choice(&["text", "json"]),
    default: Preset::Is("text"),
    help: "How a log line looks: `text` for people, `json` for collectors. Logs go to standard error.",
};

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The `[log]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A filter in `tracing`'s syntax.
    pub level: String,
    /// How a line looks.
    pub format: Format,
}

impl LogConfig {
    pub(crate) const SHAPE: Shape = Shape::table("log", "What is logged and how.", &[LEVEL, FORMAT]);

    pub(crate) fn read(section: &mut Section) -> Result<Self, ConfigError> {
        let level = section.text(&LEVEL)?;
        if EnvFilter::try_new(&level).is_err() {
            return Err(section.refuse(&LEVEL, &level, "a level, or a list of `module=level`"));
        }
        let format = if section.choice(&FORMAT)? == "json" { Format::Json } else { Format::Text };
        Ok(Self { level, format })
    }
}

/// Installs the process-wide logger. A second call changes nothing.
pub fn start_logging(config: &LogConfig) {
    let filter = EnvFilter::try_new(&config.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that a logger is there already, which is what was asked for.
    drop(match config.format {
        Format::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().try_init(),
    });
}
