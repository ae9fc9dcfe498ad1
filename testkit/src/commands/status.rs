//! The status events of commands, as a consumer of the cloud reads them: CloudEvents in JSON.

use serde::Deserialize;

use super::decoded;

/// What a status event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusEvent {
    /// The id of the event: the same for the same happening, however often it is told.
    pub event_id: String,
    /// The command: its message id.
    pub command_id: String,
    /// The device.
    pub device: String,
    /// `delivered`, `succeeded`, `failed`, `rejected` or `expired`.
    pub status: String,
    /// Whether nothing follows.
    pub is_final: bool,
    /// Why, where the status alone does not say it.
    pub reason: Option<String>,
}

/// A payload that claims to be a status event and is none.
#[derive(Debug, thiserror::Error)]
#[error("not a status event: {0}")]
pub struct StatusError(#[from] serde_json::Error);

#[derive(Deserialize)]
struct Type {
    #[serde(rename = "type", default)]
    kind: String,
}

#[derive(Deserialize)]
struct Event {
    id: String,
    data: Data,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    command_id: String,
    device: String,
    status: String,
    #[serde(rename = "final")]
    is_final: bool,
    #[serde(default)]
    reason: Option<String>,
}

impl StatusEvent {
    /// Reads the payload of a record; `None` for what is no event about a command.
    ///
    /// # Errors
    /// When it is one by its type and has another shape.
    pub fn read(payload: &[u8]) -> Result<Option<Self>, StatusError> {
        let kind = serde_json::from_slice::<Type>(payload).map(|event| event.kind).unwrap_or_default();
        if !kind.contains(".command.") {
            return Ok(None);
        }
        let Event { id, data } = serde_json::from_slice(payload)?;
        let Data { command_id, device, status, is_final, reason } = data;
        // It is spelled as in the topic. What cannot be read is nobody's, which the judge will say.
        let command_id = decoded(&command_id).unwrap_or(command_id);
        Ok(Some(Self { event_id: id, command_id, device, status, is_final, reason }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_about_commands_are_read_and_others_passed_over() {
        let text = br#"{"specversion":"1.0","type":"io.penstock.command.rejected.v1","id":"a/7-9/final",
            "data":{"commandId":"a%2F1","device":"d","status":"rejected","final":true,"reason":"refused","code":3}}"#;
        let event = StatusEvent::read(text).unwrap().unwrap();
        assert_eq!((event.event_id.as_str(), event.command_id.as_str()), ("a/7-9/final", "a/1"));
        assert_eq!((event.is_final, event.reason.as_deref()), (true, Some("refused")));
        assert!(StatusEvent::read(br#"{"type":"io.penstock.alert.raised.v1"}"#).unwrap().is_none());
        assert!(StatusEvent::read(br#"{"status":"succeeded"}"#).unwrap().is_none());
        assert!(StatusEvent::read(b"no JSON").unwrap().is_none());
        assert!(StatusEvent::read(br#"{"type":"io.penstock.command.failed.v1","id":"x"}"#).is_err());
    }
}
