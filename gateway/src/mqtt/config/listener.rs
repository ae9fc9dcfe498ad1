//! Where devices connect.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::{ByteSize, ConfigError, Key, Preset, Section, Shape, Value};

pub(super) const ADDRESS: Key =
    Key { name: "address", value: Value::Address, default: Preset::Required, help: "Where devices connect." };
const TLS: Key = Key {
    name: "tls",
    value: Value::Flag,
    default: Preset::Is("false"),
    help: "Whether devices speak TLS (1.3 or 1.2).",
};
const CERTIFICATE_FILE: Key = Key {
    name: "certificate_file",
    value: Value::Path,
    default: Preset::Unset,
    help: "The certificate chain, PEM; required with TLS.",
};
const KEY_FILE: Key = Key {
    name: "key_file",
    value: Value::Path,
    default: Preset::Unset,
    help: "The certificate's private key, PEM; required with TLS.",
};
const WEBSOCKET: Key = Key {
    name: "websocket",
    value: Value::Flag,
    default: Preset::Is("false"),
    help: "Whether devices speak MQTT over WebSocket here (subprotocol `mqtt`), and nothing else. With `tls` over TLS.",
};
const WEBSOCKET_PATH: Key = Key {
    name: "websocket_path",
    value: Value::Text { chars_max: 256 },
    default: Preset::Is("/mqtt"),
    help: "The path that WebSocket clients ask for: `/` and then letters, digits and any of `-._~/`. Another path is answered with 404.",
};
const RECEIVE_BUFFER: Key = Key {
    name: "receive_buffer",
    value: Value::Bytes { min: 4 << 10, max: 16 << 20 },
    default: Preset::Unset,
    help: "The kernel's receive buffer per connection. Small ones save memory with many devices. Not set: the kernel decides.",
};
const SEND_BUFFER: Key = Key {
    name: "send_buffer",
    value: Value::Bytes { min: 4 << 10, max: 16 << 20 },
    default: Preset::Unset,
    help: "The kernel's send buffer per connection.",
};
const ON_FULL: Key = Key {
    name: "on_full",
    value: Value::Choice(&["withhold", "refuse"]),
    default: Preset::Is("withhold"),
    help: "What a publish meets when the outbox's quota is used up or its disk nearly full. `withhold`: it is not read from the socket until there is room, nor is what comes behind it. `refuse`: MQTT 5 clients get 0x97 at QoS 1 and 2, QoS 0 is let go and counted; 3.1.1 clients, which know no reasons, are withheld. Lanes alerts and status have a reserve of both: 5 % of the quota.",
};

pub(super) const SHAPE: Shape = Shape::list(
    "listener",
    "An address devices connect to. At least one is required.",
    &[
        ADDRESS,
        TLS,
        CERTIFICATE_FILE,
        KEY_FILE,
        WEBSOCKET,
        WEBSOCKET_PATH,
        RECEIVE_BUFFER,
        SEND_BUFFER,
        ON_FULL,
    ],
);

/// One address devices connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Certificate chain and key, if devices speak TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The path of its WebSocket, if devices speak MQTT over WebSocket here.
    pub websocket: Option<String>,
    /// The kernel's receive buffer, in bytes, unless the kernel decides.
    pub receive_buffer: Option<usize>,
    /// The kernel's send buffer, in bytes, unless the kernel decides.
    pub send_buffer: Option<usize>,
    /// What a publish meets that the outbox has no room for.
    pub on_full: OnFull,
}

/// What a publish meets when the outbox's quota is used up or its disk nearly full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnFull {
    /// It is not read until there is room.
    #[default]
    Withhold,
    /// MQTT 5 clients are told; QoS 0 is let go. 3.1.1 clients are withheld.
    Refuse,
}

// === impl Listener ===

impl Listener {
    pub(super) fn read(section: &mut Section) -> Result<Self, ConfigError> {
        let address = section.address(&ADDRESS)?;
        let tls = section.flag(&TLS)?;
        let certificate = section.path_if_set(&CERTIFICATE_FILE)?;
        let key = section.path_if_set(&KEY_FILE)?;
        let tls = match (tls, certificate, key) {
            (false, _, _) => None,
            (true, Some(certificate), Some(key)) => Some((certificate, key)),
            (true, None, _) => return Err(section.missing(&CERTIFICATE_FILE)),
            (true, _, None) => return Err(section.missing(&KEY_FILE)),
        };
        let websocket = section.flag(&WEBSOCKET)?;
        let path = section.text(&WEBSOCKET_PATH)?;
        if !is_path(&path) {
            return Err(section.refuse(&WEBSOCKET_PATH, &path, "a path such as /mqtt"));
        }
        let websocket = websocket.then_some(path);
        let bytes = |size: ByteSize| size.as_usize();
        let receive_buffer = optional_bytes(section, &RECEIVE_BUFFER)?.map(bytes);
        let send_buffer = optional_bytes(section, &SEND_BUFFER)?.map(bytes);
        let on_full = if section.choice(&ON_FULL)? == "refuse" { OnFull::Refuse } else { OnFull::Withhold };
        Ok(Self { address, tls, websocket, receive_buffer, send_buffer, on_full })
    }
}

fn optional_bytes(section: &mut Section, key: &Key) -> Result<Option<ByteSize>, ConfigError> {
    // The text was checked against the key's range, so that it parses.
    Ok(section.text_if_set(key)?.as_deref().and_then(ByteSize::parse))
}

/// Whether a path means the same however a client writes it: nothing to escape, no query.
fn is_path(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.starts_with('/') && path.bytes().all(plain)
}
