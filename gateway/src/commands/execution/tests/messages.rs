//! Messages as Service Bus has them, and what the gateway is told once.

use std::sync::Arc;

use crate::commands::contract::{Command, Completion, Defaults, Voice};
use crate::commands::execution::Timing;
use crate::commands::message::{Body, LockToken, Received, Value};

pub(super) const DEVICE: &str = "press-7";
pub(super) const START_MS: u64 = 1_790_000_000_000;

pub(super) const fn timing() -> Timing {
    Timing { ack_timeout_ms: 30_000, answer_timeout_ms: 60_000 }
}

pub(super) fn voice() -> Voice {
    Voice { gateway: "site-7".into(), type_prefix: "io.penstock".into() }
}

/// A message as Service Bus has it.
pub(super) fn received(sequence: i64, completion: Completion) -> Received {
    Received {
        lock: LockToken([0; 16]),
        sequence,
        enqueued_ms: START_MS - 1000,
        delivery_count: 0,
        message_id: Some(format!("c-{sequence}")),
        session_id: Some(DEVICE.to_owned()),
        subject: Some("open".to_owned()),
        content_type: None,
        correlation_id: None,
        reply_to: None,
        reply_to_session_id: None,
        expires_ms: None,
        properties: vec![("penstock-completion".to_owned(), Value::Text(completion.word().to_owned()))],
        body: Body::Data(b"{}".to_vec()),
    }
}

pub(super) fn command(received: &Received) -> Arc<Command> {
    let defaults = Defaults { completion: Completion::Delivered, tenant: None };
    Arc::new(Command::read(received, "commands", &defaults).expect("a command"))
}
