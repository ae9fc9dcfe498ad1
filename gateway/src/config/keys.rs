//! Keys that several sections have, and what they take.

use std::path::PathBuf;

use super::error::ConfigError;
use super::section::Section;
use super::shape::{Key, Preset, Value};

/// Who else is trusted, for a section that has a connection with TLS.
pub(crate) const CA_FILE: Key = Key {
    name: "ca_file",
    value: Value::Path,
    default: Preset::Unset,
    help: "Certificates (PEM) to trust instead of the system's.",
};

/// What the types of events begin with.
pub(crate) const fn type_prefix(help: &'static str) -> Key {
    Key {
        name: "type_prefix",
        value: Value::Text { chars_max: 128 },
        default: Preset::Is("io.penstock"),
        help,
    }
}

/// An HTTP proxy.
pub(crate) const fn proxy(help: &'static str) -> Key {
    Key { name: "proxy", value: Value::Text { chars_max: 255 }, default: Preset::Unset, help }
}

/// What the proxy asks for.
pub(crate) const fn proxy_credentials_file(help: &'static str) -> Key {
    Key { name: "proxy_credentials_file", value: Value::Path, default: Preset::Unset, help }
}

impl Section {
    /// The value of a key that [`type_prefix`] made.
    pub(crate) fn type_prefix(&mut self, key: &Key) -> Result<String, ConfigError> {
        let prefix = self.text(key)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if prefix.chars().all(plain) && !prefix.starts_with('.') && !prefix.ends_with('.') {
            return Ok(prefix);
        }
        Err(self.refuse(key, &prefix, "names with dots between them, of A-Z a-z 0-9 _ -"))
    }

    /// The values of keys that [`proxy`] and [`proxy_credentials_file`] made.
    pub(crate) fn proxy(
        &mut self,
        proxy: &Key,
        credentials_file: &Key,
    ) -> Result<Option<(String, Option<PathBuf>)>, ConfigError> {
        match (self.text_if_set(proxy)?, self.path_if_set(credentials_file)?) {
            (None, None) => Ok(None),
            (None, Some(file)) => {
                Err(self.refuse(credentials_file, &file.display().to_string(), "nothing without proxy"))
            }
            (Some(proxy), file) => Ok(Some((proxy, file))),
        }
    }
}
