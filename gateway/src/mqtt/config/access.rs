//! Who may connect.

use std::path::PathBuf;

use crate::config::{ConfigError, Key, Preset, Section, Shape, Value};

const ANONYMOUS: Key = Key {
    name: "anonymous",
    value: Value::Choice(&["refuse", "allow"]),
    default: Preset::Is("refuse"),
    help: "What happens to a client without a user name. `allow` is for tests and closed networks: the client id is believed.",
};
const USERS_FILE: Key = Key {
    name: "users_file",
    value: Value::Path,
    default: Preset::Unset,
    help: "Who may connect: one line per user, see docs/formats/users-file.md.",
};

pub(super) const SHAPE: Shape = Shape::table("access", "Who may connect.", &[ANONYMOUS, USERS_FILE]);

/// Who may connect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// Clients without a user name are let in.
    pub anonymous: bool,
    /// The users file.
    pub users_file: Option<PathBuf>,
}

// === impl Access ===

impl Access {
    pub(super) fn read(section: &mut Section) -> Result<Self, ConfigError> {
        Ok(Self {
            anonymous: section.choice(&ANONYMOUS)? == "allow",
            users_file: section.path_if_set(&USERS_FILE)?,
        })
    }
}
