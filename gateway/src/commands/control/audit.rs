//! What is told about a limit that changes: a CloudEvent in lane `status`, in the batch of the change.

use penstock_proto::Lane;
use serde::Serialize;

use super::limits::{Limit, LimitStatus};
use crate::commands::contract::Voice;
use crate::outbox::{Attributes, CloudEvent, Encoded, rfc3339};

/// What became of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is new.
    Set,
    /// It took the place of one about the same.
    Replaced,
    /// A command ended it.
    Cleared,
    /// Its time is over.
    Expired,
    /// The configuration has nothing any more that it could limit.
    Cancelled,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    change: &'static str,
    /// The command that brought the change, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    command_id: Option<&'a str>,
    set_time: String,
    limit: LimitStatus,
}

impl Change {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Replaced => "replaced",
            Self::Cleared => "cleared",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
        }
    }

    /// Appends the event under the gateway's key. Its id is the same however often it is written.
    pub(super) fn tell(
        self,
        limit: &Limit,
        command: Option<&str>,
        voice: &Voice,
        now_ms: u64,
        entries: &mut Encoded,
    ) {
        let status = limit.status();
        let about = status.stream.as_deref().or(status.event_hub.as_deref()).unwrap_or_default();
        let by = command.unwrap_or(&limit.command);
        let id = format!("limit/{}/{about}/{by}/{}/{}", status.limit, limit.set_ms, self.word());
        let kind = format!("{}.gateway.limit.v1", voice.type_prefix);
        let data = Data {
            change: self.word(),
            command_id: command,
            set_time: rfc3339(limit.set_ms),
            limit: status.clone(),
        };
        let attributes = Attributes { correlation: command, ..Attributes::default() };
        let event = CloudEvent::new(&voice.gateway, (id, kind), "info", now_ms, data).with(attributes);
        event.push(Lane::Status, &voice.gateway, entries);
    }
}
