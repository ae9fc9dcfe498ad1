//! Reading one table of the configuration against its declaration.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::units::{self, ByteSize};
use super::{ConfigError, Key, Preset, Shape};

/// A table of the configuration, checked for unknown keys, from which a stage reads its settings.
#[derive(Debug)]
pub struct Section {
    context: Rc<Context>,
    path: String,
    table: toml::Table,
}

/// What every section of one configuration shares.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) file: String,
    /// Keys that came from the environment, with the variable's name.
    pub(super) overrides: BTreeMap<String, String>,
    /// Every setting in force, in the order of reading, as lines of TOML.
    pub(super) effective: RefCell<Vec<String>>,
}

impl Section {
    pub(super) fn new(
        context: Rc<Context>,
        path: String,
        table: toml::Table,
        shape: &Shape,
    ) -> Result<Self, ConfigError> {
        let section = Self { context, path, table };
        for name in section.table.keys() {
            let known = shape.keys.iter().any(|key| key.name == name)
                || shape.children.iter().any(|child| child.name == name);
            if !known {
                return Err(section.unknown(name, shape));
            }
        }
        if !section.path.is_empty() {
            let (open, close) = if shape.repeated { ("[[", "]]") } else { ("[", "]") };
            let path = section.path.split('[').next().unwrap_or_default();
            section.note(format!("\n{open}{path}{close}"));
        }
        Ok(section)
    }

    /// The table `shape` within this one; empty if it is not given.
    ///
    /// # Errors
    ///
    /// When it is not a table or has unknown keys.
    pub fn child(&mut self, shape: &Shape) -> Result<Self, ConfigError> {
        let path = self.below(shape.name);
        match self.table.remove(shape.name) {
            None => Self::new(Rc::clone(&self.context), path, toml::Table::new(), shape),
            Some(toml::Value::Table(table)) => Self::new(Rc::clone(&self.context), path, table, shape),
            Some(other) => Err(self.error(&path, &other.to_string(), "a table")),
        }
    }

    /// Whether the table `shape` within this one is given.
    #[must_use]
    pub fn has(&self, shape: &Shape) -> bool {
        self.table.contains_key(shape.name)
    }

    /// The tables of the list `shape` within this one, in the order of the file.
    ///
    /// # Errors
    ///
    /// When it is not a list of tables or one has unknown keys.
    pub fn children(&mut self, shape: &Shape) -> Result<Vec<Self>, ConfigError> {
        let path = self.below(shape.name);
        let list = match self.table.remove(shape.name) {
            None => return Ok(Vec::new()),
            Some(toml::Value::Array(list)) => list,
            Some(other) => return Err(self.error(&path, &other.to_string(), "a list of tables")),
        };
        let sections = list.into_iter().enumerate().map(|(place, value)| match value {
            toml::Value::Table(table) => {
                Self::new(Rc::clone(&self.context), format!("{path}[{place}]"), table, shape)
            }
            other => Err(self.error(&path, &other.to_string(), "a list of tables")),
        });
        sections.collect()
    }

    /// A text.
    ///
    /// # Errors
    ///
    /// When it is missing though required, or outside its range; so for every reader below.
    pub fn text(&mut self, key: &Key) -> Result<String, ConfigError> {
        self.raw(key)?.ok_or_else(|| self.missing(key))
    }

    /// A text that may be absent.
    ///
    /// # Errors
    ///
    /// When it is outside its range.
    pub fn text_if_set(&mut self, key: &Key) -> Result<Option<String>, ConfigError> {
        self.raw(key)
    }

    /// A path.
    ///
    /// # Errors
    ///
    /// As [`Self::text`].
    pub fn path(&mut self, key: &Key) -> Result<PathBuf, ConfigError> {
        self.text(key).map(PathBuf::from)
    }

    /// A path that may be absent.
    ///
    /// # Errors
    ///
    /// As [`Self::text_if_set`].
    pub fn path_if_set(&mut self, key: &Key) -> Result<Option<PathBuf>, ConfigError> {
        Ok(self.raw(key)?.map(PathBuf::from))
    }

    /// A word out of the declared ones.
    ///
    /// # Errors
    ///
    /// As [`Self::text`].
    pub fn choice(&mut self, key: &Key) -> Result<String, ConfigError> {
        self.text(key)
    }

    /// A whole number.
    ///
    /// # Errors
    ///
    /// As [`Self::text`].
    pub fn count(&mut self, key: &Key) -> Result<u64, ConfigError> {
        self.parsed(key, |text| text.parse().ok())
    }

    /// A whole number for use as a length.
    ///
    /// # Errors
    ///
    /// As [`Self::text`].
    pub fn length(&mut self, key: &Key) -> Result<usize, ConfigError> {
        self.parsed(key, |text| text.parse().ok())
    }

    /// A size.
    ///
    /// # Errors
    ///
    /// As [`Self::text`].
    pub fn bytes(&mut self, key: &Key) -> Result<ByteSize, ConfigError> {
        self.parsed(key, ByteSize::parse)
    }

    /// A time.
    ///
    /// # Errors
    ///
    /// As [`Self::text`].
    pub fn time(&mut self, key: &Key) -> Result<Duration, ConfigError> {
        self.parsed(key, units::parse_duration)
    }

    /// A flag.
    ///
    /// # Errors
    ///
    /// As [`Self::text`].
    pub fn flag(&mut self, key: &Key) -> Result<bool, ConfigError> {
        self.parsed(key, |text| text.parse().ok())
    }

    /// An address.
    ///
    /// # Errors
    ///
    /// As [`Self::text`].
    pub fn address(&mut self, key: &Key) -> Result<SocketAddr, ConfigError> {
        self.parsed(key, |text| text.parse().ok())
    }

    /// The error for a value that is refused for a reason its declaration cannot express.
    #[must_use]
    pub fn refuse(&self, key: &Key, value: &str, expected: &str) -> ConfigError {
        self.error(&self.below(key.name), &format!("{value:?}"), expected)
    }

    /// The error for a key that must be given here.
    #[must_use]
    pub fn missing(&self, key: &Key) -> ConfigError {
        ConfigError::Missing {
            file: self.context.file.clone(),
            key: self.below(key.name),
            expected: key.value.range(),
        }
    }

    /// Where this section stands, for example `mqtt.listener[0]`.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.path
    }

    /// The value as text within its range, or `None` if it is absent and has no default.
    fn raw(&mut self, key: &Key) -> Result<Option<String>, ConfigError> {
        let path = self.below(key.name);
        let text = match (self.table.remove(key.name), key.default) {
            (Some(value), _) => {
                let from_environment = self.context.overrides.contains_key(&path);
                Some(as_text(&value, key, from_environment).ok_or_else(|| self.out_of_range(key, &value))?)
            }
            (None, Preset::Is(default)) => Some(default.to_owned()),
            (None, Preset::Unset) => None,
            (None, Preset::Required) => return Err(self.missing(key)),
        };
        if let Some(text) = &text {
            let quote = if key.value.is_bare() { "" } else { "\"" };
            self.note(format!("{} = {quote}{text}{quote}", key.name));
        }
        Ok(text)
    }

    fn parsed<T>(&mut self, key: &Key, parse: impl Fn(&str) -> Option<T>) -> Result<T, ConfigError> {
        let text = self.text(key)?;
        parse(&text).ok_or_else(|| self.refuse(key, &text, &key.value.range()))
    }

    fn below(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn note(&self, line: String) {
        self.context.effective.borrow_mut().push(line);
    }

    fn out_of_range(&self, key: &Key, value: &toml::Value) -> ConfigError {
        self.error(&self.below(key.name), &value.to_string(), &key.value.range())
    }

    fn error(&self, key: &str, value: &str, expected: &str) -> ConfigError {
        let file = match self.context.overrides.get(key) {
            Some(variable) => format!("environment variable {variable}"),
            None => self.context.file.clone(),
        };
        ConfigError::Value {
            file,
            key: key.to_owned(),
            value: value.to_owned(),
            expected: expected.to_owned(),
        }
    }

    fn unknown(&self, name: &str, shape: &Shape) -> ConfigError {
        let keys = shape.keys.iter().map(|key| key.name);
        let known: Vec<&str> = keys.chain(shape.children.iter().map(|child| child.name)).collect();
        let path = self.below(name);
        let inside = format!("{path}.");
        let from_environment =
            self.context.overrides.iter().find(|(key, _)| **key == path || key.starts_with(&inside));
        ConfigError::UnknownKey {
            file: from_environment.map_or_else(
                || self.context.file.clone(),
                |(_, variable)| format!("environment variable {variable}"),
            ),
            key: path,
            value: self.table.get(name).map(ToString::to_string).unwrap_or_default(),
            known: known.join(", "),
        }
    }
}

/// The value as the text its kind parses, or `None` if it has another type or is out of range.
fn as_text(value: &toml::Value, key: &Key, from_environment: bool) -> Option<String> {
    let text = match value {
        toml::Value::String(text) if !key.value.is_bare() || from_environment => text.clone(),
        toml::Value::Integer(number) if key.value.is_bare() => number.to_string(),
        toml::Value::Boolean(flag) if key.value.is_bare() => flag.to_string(),
        _ => return None,
    };
    key.value.accepts(&text).then_some(text)
}
