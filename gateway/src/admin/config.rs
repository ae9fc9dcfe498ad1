//! The `[admin]` section.

use std::net::SocketAddr;

use crate::config::{ConfigError, Key, Preset, Section, Shape, Value};

const HEALTH_ADDRESS: Key = Key {
    name: "health_address",
    value: Value::Address,
    default: Preset::Is("127.0.0.1:9180"),
    help: "Serves `/healthz`, `/readyz` and `/metrics`, read only. It may be any address of the box.",
};
const ADMIN_ADDRESS: Key = Key {
    name: "admin_address",
    value: Value::Address,
    default: Preset::Is("127.0.0.1:9181"),
    help: "Serves the operators' API, `/api/v1/status` and `/api/v1/dead-letter/…`. Loopback addresses only, since it has no authentication yet.",
};

/// Where operators are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Health and metrics.
    pub health_address: SocketAddr,
    /// The API.
    pub admin_address: SocketAddr,
}

impl Config {
    pub(crate) const SHAPE: Shape = Shape::table(
        "admin",
        "Where operators and their tools are answered.",
        &[HEALTH_ADDRESS, ADMIN_ADDRESS],
    );

    pub(crate) fn read(section: &mut Section) -> Result<Self, ConfigError> {
        let health_address = section.address(&HEALTH_ADDRESS)?;
        let admin_address = section.address(&ADMIN_ADDRESS)?;
        if !admin_address.ip().is_loopback() {
            let expected = "a loopback address such as 127.0.0.1:9181";
            return Err(section.refuse(&ADMIN_ADDRESS, &admin_address.to_string(), expected));
        }
        Ok(Self { health_address, admin_address })
    }
}
