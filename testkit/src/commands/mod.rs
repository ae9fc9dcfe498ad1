//! The account and the judgement of commands.
//!
//! ```text
//! sender ──sent──┐
//! devices ──accounts──┐    (what came, what was acknowledged, what was answered)
//! Service Bus ──wire log──► judge ──► verdict
//! Event Hubs ──status events──┘
//! ```
//!
//! Four witnesses that share no code with the gateway: who sent, who received, who saw the settlements, and
//! what the gateway itself told the cloud. [`judge::judge`] compares them command by command.

pub mod account;
pub mod judge;
pub mod queue;
pub mod status;
pub mod wire;

use serde::{Deserialize, Serialize};

/// A command as it was sent: to which device, and the how manyth for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The device, which is the id of the Service Bus session.
    pub device: String,
    /// Numbers the commands of a device from 1, in the order in which they were enqueued.
    pub number: u64,
    /// The message id, which is the command id.
    pub id: String,
    /// Whether the device is to answer (`penstock-completion` = `answered`).
    pub answer: bool,
    /// When it was handed to Service Bus, in Unix milliseconds.
    pub sent_ms: u64,
}

/// What the body of a command says, as JSON. Devices of `firmware-sim` understand nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// The device it is for.
    pub device: String,
    /// Its number among the commands of the device, from 1.
    pub number: u64,
    /// Whether the device is to answer.
    pub answer: bool,
}

/// The message id of a device's command. It holds a character that no level of a topic may, so that it only
/// comes back if it was encoded and decoded.
#[must_use]
pub fn command_id(device: &str, number: u64) -> String {
    format!("{device}/{number}")
}

/// The command id in a level of a topic: `%` and two hexadecimal digits stand for a byte.
///
/// `None` when a `%` is followed by something else, or the bytes are no UTF-8.
#[must_use]
pub fn decoded(level: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(level.len());
    let mut rest = level.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(level: &str, expected: Option<&str>) {
        assert_eq!(decoded(level).as_deref(), expected, "{level}");
    }

    #[test]
    fn levels_are_decoded_byte_by_byte() {
        check("device-000001%2F17", Some("device-000001/17"));
        check("plain", Some("plain"));
        check("%25%2b%23", Some("%+#"));
        check("%C3%A4", Some("ä"));
        check("%2", None);
        check("%zz", None);
        check("%ff", None);
    }

    #[test]
    fn a_command_id_needs_encoding() {
        assert_eq!(command_id("device-000001", 17), "device-000001/17");
    }
}
