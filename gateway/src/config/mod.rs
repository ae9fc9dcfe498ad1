//! Configuration: a file and the environment in, checked types out.
//!
//! Each stage declares its table as a [`Shape`] and reads it through a [`Section`], which refuses
//! unknown keys and values out of range; nothing downstream checks again. The same declarations
//! make `docs/configuration.md`. `PENSTOCK__SECTION__KEY` in the environment overrides a key.

mod error;
#[cfg(any(test, fuzzing))]
mod fuzzing;
mod keys;
mod load;
mod reference;
mod section;
mod settings;
mod shape;
mod units;

pub use error::ConfigError;
#[cfg(any(test, fuzzing))]
pub(crate) use fuzzing::DECODERS;
#[cfg(test)]
pub(crate) use fuzzing::fuzzing_seeds;
pub(crate) use keys::{CA_FILE, proxy, proxy_credentials_file, type_prefix};
pub use reference::reference;
pub use section::Section;
pub use settings::{GatewayConfig, Settings};
pub use shape::{Key, Preset, Shape, Value};
pub use units::{ByteSize, parse_duration, show_duration};

/// The root section of a text, for tests of what a stage declares.
#[cfg(test)]
pub(crate) fn parse_for_tests(text: &str, root: &Shape) -> Result<Section, ConfigError> {
    load::parse("penstock.toml", text, std::iter::empty(), root).map(|(section, _)| section)
}

#[cfg(test)]
mod tests;
