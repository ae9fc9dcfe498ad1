//! Performatives (part 2, section 2.7) and delivery states (part 3, section 3.4), typed.
//!
//! Of each list the fields are kept that the stand-in acts on; termini are kept whole, to be echoed.

use bytes::Bytes;

use super::decode::{DecodeError, Reader, descriptor_code};
use super::fields::{
    Fields, after, composite, list, map, number, optional, required, role, skipped, text, truth,
};
use super::frame::{FrameKind, begin_frame, finish_frame};
use super::value::{Value, entry};

mod codes {
    pub(super) const OPEN: u64 = 0x10;
    pub(super) const BEGIN: u64 = 0x11;
    pub(super) const ATTACH: u64 = 0x12;
    pub(super) const FLOW: u64 = 0x13;
    pub(super) const TRANSFER: u64 = 0x14;
    pub(super) const DISPOSITION: u64 = 0x15;
    pub(super) const DETACH: u64 = 0x16;
    pub(super) const END: u64 = 0x17;
    pub(super) const CLOSE: u64 = 0x18;
    pub(super) const ERROR: u64 = 0x1d;
    pub(super) const RECEIVED: u64 = 0x23;
    pub(super) const ACCEPTED: u64 = 0x24;
    pub(super) const REJECTED: u64 = 0x25;
    pub(super) const RELEASED: u64 = 0x26;
    pub(super) const MODIFIED: u64 = 0x27;
    pub(super) const SOURCE: u64 = 0x28;
    pub(super) const TARGET: u64 = 0x29;
}

/// A condition, what it means, and more about it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ErrorInfo {
    pub(crate) condition: String,
    pub(crate) description: Option<String>,
    pub(crate) info: Vec<(Value, Value)>,
}

impl ErrorInfo {
    pub(crate) fn new(condition: &str, description: impl Into<String>) -> Self {
        Self { condition: condition.to_owned(), description: Some(description.into()), info: Vec::new() }
    }

    fn value(&self) -> Value {
        let info = if self.info.is_empty() { Value::Null } else { Value::Map(self.info.clone()) };
        let fields =
            vec![Value::symbol(&self.condition), optional(self.description.clone().map(Value::String)), info];
        Value::composite(codes::ERROR, fields)
    }

    fn read(value: Value) -> Result<Option<Self>, DecodeError> {
        let Some(mut fields) = composite(value, codes::ERROR, "an error")? else { return Ok(None) };
        let condition = text(&mut fields, "condition")?.ok_or(DecodeError::Missing("condition"))?;
        let description = text(&mut fields, "description")?;
        let info = map(&mut fields, "info")?;
        Ok(Some(Self { condition, description, info }))
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Open {
    pub(crate) container: String,
    pub(crate) hostname: Option<String>,
    pub(crate) frame_bytes_max: u32,
    pub(crate) channel_max: u16,
    /// Milliseconds of silence after which the sender of this frame gives up on the other side.
    pub(crate) idle_ms: Option<u32>,
    pub(crate) properties: Vec<(Value, Value)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Begin {
    pub(crate) remote_channel: Option<u16>,
    pub(crate) next_outgoing_id: u32,
    pub(crate) incoming_window: u32,
    pub(crate) outgoing_window: u32,
    pub(crate) handle_max: u32,
}

/// Who settles when (part 2, sections 2.8.2 and 2.8.3); the number of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SettleMode(pub(crate) u8);

impl SettleMode {
    /// Of a sender: everything is sent settled.
    pub(crate) const SETTLED: Self = Self(1);
    /// Of a sender: it decides with each message.
    pub(crate) const MIXED: Self = Self(2);
    /// Of a receiver: it settles at once.
    pub(crate) const FIRST: Self = Self(0);
}

/// A source or target, with all its fields.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Terminus {
    descriptor: u64,
    fields: Vec<Value>,
}

const SOURCE_FIELDS: usize = 11;
const TARGET_FIELDS: usize = 7;
const FILTER: usize = 7;

impl Terminus {
    fn read(value: Value) -> Result<Option<Self>, DecodeError> {
        let Value::Described(described) = value else {
            return if value == Value::Null { Ok(None) } else { Err(DecodeError::Wrong("a terminus")) };
        };
        let descriptor = descriptor_code(&described.0)?;
        let Value::List(mut fields) = described.1 else { return Err(DecodeError::Wrong("a terminus")) };
        let expected = if descriptor == codes::SOURCE { SOURCE_FIELDS } else { TARGET_FIELDS };
        if fields.len() < expected {
            fields.resize(expected, Value::Null);
        }
        Ok(Some(Self { descriptor, fields }))
    }

    fn value(&self) -> Value {
        Value::composite(self.descriptor, self.fields.clone())
    }

    #[cfg(test)]
    pub(crate) fn source(address: &str, filter: Vec<(Value, Value)>) -> Self {
        let mut fields = vec![Value::Null; SOURCE_FIELDS];
        fields[0] = Value::string(address);
        fields[FILTER] = Value::Map(filter);
        Self { descriptor: codes::SOURCE, fields }
    }

    #[cfg(test)]
    pub(crate) fn target(address: &str) -> Self {
        let mut fields = vec![Value::Null; TARGET_FIELDS];
        fields[0] = Value::string(address);
        Self { descriptor: codes::TARGET, fields }
    }

    /// Whether it is a source or a target, and not a coordinator of transactions.
    pub(crate) fn is_node(&self) -> bool {
        matches!(self.descriptor, codes::SOURCE | codes::TARGET)
    }

    pub(crate) fn address(&self) -> Option<&str> {
        self.fields.first().and_then(Value::text)
    }

    /// The value of a filter, without the descriptor that some clients put on it.
    pub(crate) fn filter(&self, name: &str) -> Option<&Value> {
        let Some(Value::Map(filters)) = self.fields.get(FILTER) else { return None };
        let found = filters.iter().find(|(key, _)| key.text() == Some(name));
        found.map(|(_, value)| value.plain())
    }

    /// Puts `value` into a filter that is there.
    pub(crate) fn set_filter(&mut self, name: &str, value: Value) {
        let Some(Value::Map(filters)) = self.fields.get_mut(FILTER) else { return };
        if let Some((_, place)) = filters.iter_mut().find(|(key, _)| key.text() == Some(name)) {
            match place {
                Value::Described(described) => described.1 = value,
                place => *place = value,
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attach {
    pub(crate) name: String,
    pub(crate) handle: u32,
    /// Whether the sender of this frame receives messages on the link.
    pub(crate) receiver: bool,
    pub(crate) sender_settles: SettleMode,
    pub(crate) receiver_settles: SettleMode,
    pub(crate) source: Option<Terminus>,
    pub(crate) target: Option<Terminus>,
    pub(crate) initial_delivery_count: Option<u32>,
    pub(crate) message_bytes_max: Option<u64>,
    pub(crate) properties: Vec<(Value, Value)>,
}

impl Attach {
    pub(crate) fn property(&self, name: &str) -> Option<&Value> {
        entry(&self.properties, name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) next_incoming_id: Option<u32>,
    pub(crate) incoming_window: u32,
    pub(crate) next_outgoing_id: u32,
    pub(crate) outgoing_window: u32,
    /// None of the rest has a meaning without it.
    pub(crate) handle: Option<u32>,
    pub(crate) delivery_count: Option<u32>,
    pub(crate) credit: Option<u32>,
    pub(crate) available: Option<u32>,
    pub(crate) drain: bool,
    pub(crate) echo: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Transfer {
    pub(crate) handle: u32,
    /// Absent on all but the first frame of a message.
    pub(crate) delivery_id: Option<u32>,
    pub(crate) tag: Option<Bytes>,
    pub(crate) format: Option<u32>,
    pub(crate) settled: Option<bool>,
    pub(crate) more: bool,
    pub(crate) state: Option<State>,
    pub(crate) aborted: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Disposition {
    /// Whether the sender of this frame is the receiver of the messages.
    pub(crate) receiver: bool,
    pub(crate) first: u32,
    pub(crate) last: Option<u32>,
    pub(crate) settled: bool,
    pub(crate) state: Option<State>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Detach {
    pub(crate) handle: u32,
    pub(crate) closed: bool,
    pub(crate) error: Option<ErrorInfo>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct End {
    pub(crate) error: Option<ErrorInfo>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Close {
    pub(crate) error: Option<ErrorInfo>,
}

/// The state of a delivery.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum State {
    Accepted,
    Rejected(Option<ErrorInfo>),
    Released,
    Modified {
        failed: bool,
        undeliverable: bool,
    },
    /// Not an outcome, or one that is not known here.
    Other,
}

impl State {
    fn read(value: Value) -> Result<Option<Self>, DecodeError> {
        let Value::Described(described) = value else {
            return if value == Value::Null { Ok(None) } else { Err(DecodeError::Wrong("state")) };
        };
        let code = descriptor_code(&described.0)?;
        let Value::List(fields) = described.1 else { return Err(DecodeError::Wrong("state")) };
        let mut fields = fields.into_iter();
        Ok(Some(match code {
            codes::ACCEPTED => Self::Accepted,
            codes::RELEASED => Self::Released,
            codes::REJECTED => Self::Rejected(ErrorInfo::read(fields.next().unwrap_or(Value::Null))?),
            codes::MODIFIED => Self::Modified {
                failed: truth(&mut fields, "delivery-failed")?,
                undeliverable: truth(&mut fields, "undeliverable-here")?,
            },
            _ => Self::Other,
        }))
    }

    fn value(&self) -> Value {
        match self {
            Self::Accepted => Value::composite(codes::ACCEPTED, Vec::new()),
            Self::Released => Value::composite(codes::RELEASED, Vec::new()),
            Self::Rejected(error) => {
                Value::composite(codes::REJECTED, vec![optional(error.as_ref().map(ErrorInfo::value))])
            }
            &Self::Modified { failed, undeliverable } => Value::composite(
                codes::MODIFIED,
                vec![Value::Bool(failed), Value::Bool(undeliverable), Value::Null],
            ),
            Self::Other => Value::composite(codes::RECEIVED, vec![Value::Uint(0), Value::Ulong(0)]),
        }
    }
}

/// What the body of an AMQP frame starts with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Performative {
    Open(Open),
    Begin(Begin),
    Attach(Box<Attach>),
    Flow(Flow),
    Transfer(Transfer),
    Disposition(Disposition),
    Detach(Detach),
    End(End),
    Close(Close),
}

impl Performative {
    /// Reads a performative and returns it with the payload after it.
    pub(crate) fn decode(body: &Bytes) -> Result<(Self, Bytes), DecodeError> {
        let mut reader = Reader::new(body);
        let (code, fields) = list(&mut reader)?;
        let performative = Self::read(code, fields)?;
        Ok((performative, body.slice(reader.position()..)))
    }

    fn read(code: u64, mut fields: Fields) -> Result<Self, DecodeError> {
        let fields = &mut fields;
        Ok(match code {
            codes::OPEN => Self::Open(Open {
                container: text(fields, "container-id")?.ok_or(DecodeError::Missing("container-id"))?,
                hostname: text(fields, "hostname")?,
                frame_bytes_max: number(fields, "max-frame-size")?.unwrap_or(u32::MAX),
                channel_max: number(fields, "channel-max")?.unwrap_or(u16::MAX),
                idle_ms: number(fields, "idle-time-out")?,
                properties: after(fields, 4, "properties")?,
            }),
            codes::BEGIN => Self::Begin(Begin {
                remote_channel: number(fields, "remote-channel")?,
                next_outgoing_id: required(fields, "next-outgoing-id")?,
                incoming_window: required(fields, "incoming-window")?,
                outgoing_window: required(fields, "outgoing-window")?,
                handle_max: number(fields, "handle-max")?.unwrap_or(u32::MAX),
            }),
            codes::ATTACH => Self::Attach(Box::new(read_attach(fields)?)),
            codes::FLOW => Self::Flow(Flow {
                next_incoming_id: number(fields, "next-incoming-id")?,
                incoming_window: required(fields, "incoming-window")?,
                next_outgoing_id: required(fields, "next-outgoing-id")?,
                outgoing_window: required(fields, "outgoing-window")?,
                handle: number(fields, "handle")?,
                delivery_count: number(fields, "delivery-count")?,
                credit: number(fields, "link-credit")?,
                available: number(fields, "available")?,
                drain: truth(fields, "drain")?,
                echo: truth(fields, "echo")?,
            }),
            codes::TRANSFER => Self::Transfer(read_transfer(fields)?),
            codes::DISPOSITION => Self::Disposition(Disposition {
                receiver: role(fields)?,
                first: required(fields, "first")?,
                last: number(fields, "last")?,
                settled: truth(fields, "settled")?,
                state: State::read(fields.next().unwrap_or(Value::Null))?,
            }),
            codes::DETACH => Self::Detach(Detach {
                handle: required(fields, "handle")?,
                closed: truth(fields, "closed")?,
                error: ErrorInfo::read(fields.next().unwrap_or(Value::Null))?,
            }),
            codes::END => Self::End(End { error: ErrorInfo::read(fields.next().unwrap_or(Value::Null))? }),
            codes::CLOSE => {
                Self::Close(Close { error: ErrorInfo::read(fields.next().unwrap_or(Value::Null))? })
            }
            other => return Err(DecodeError::UnknownDescriptor(other)),
        })
    }

    /// Appends a frame with this performative and `payload`.
    pub(crate) fn encode(&self, output: &mut Vec<u8>, channel: u16, payload: &[u8]) {
        let start = begin_frame(output, FrameKind::Amqp, channel);
        self.value().encode(output);
        output.extend_from_slice(payload);
        finish_frame(output, start);
    }

    /// The bytes that a frame has besides its payload.
    pub(crate) fn value(&self) -> Value {
        match self {
            Self::Open(open) => open_value(open),
            Self::Begin(begin) => Value::composite(
                codes::BEGIN,
                vec![
                    optional(begin.remote_channel.map(Value::Ushort)),
                    Value::Uint(begin.next_outgoing_id),
                    Value::Uint(begin.incoming_window),
                    Value::Uint(begin.outgoing_window),
                    Value::Uint(begin.handle_max),
                    Value::Null,
                    Value::Null,
                    Value::Null,
                ],
            ),
            Self::Attach(attach) => attach_value(attach),
            Self::Flow(flow) => flow_value(flow),
            Self::Transfer(transfer) => transfer_value(transfer),
            Self::Disposition(disposition) => Value::composite(
                codes::DISPOSITION,
                vec![
                    Value::Bool(disposition.receiver),
                    Value::Uint(disposition.first),
                    optional(disposition.last.map(Value::Uint)),
                    Value::Bool(disposition.settled),
                    optional(disposition.state.as_ref().map(State::value)),
                    Value::Bool(false),
                ],
            ),
            Self::Detach(detach) => Value::composite(
                codes::DETACH,
                vec![
                    Value::Uint(detach.handle),
                    Value::Bool(detach.closed),
                    error_value(detach.error.as_ref()),
                ],
            ),
            Self::End(end) => Value::composite(codes::END, vec![error_value(end.error.as_ref())]),
            Self::Close(close) => Value::composite(codes::CLOSE, vec![error_value(close.error.as_ref())]),
        }
    }
}

fn read_attach(fields: &mut Fields) -> Result<Attach, DecodeError> {
    let attach = Attach {
        name: text(fields, "name")?.ok_or(DecodeError::Missing("name"))?,
        handle: required(fields, "handle")?,
        receiver: role(fields)?,
        sender_settles: SettleMode(number(fields, "snd-settle-mode")?.unwrap_or(SettleMode::MIXED.0)),
        receiver_settles: SettleMode(number(fields, "rcv-settle-mode")?.unwrap_or(SettleMode::FIRST.0)),
        source: Terminus::read(fields.next().unwrap_or(Value::Null))?,
        target: Terminus::read(fields.next().unwrap_or(Value::Null))?,
        // Behind the map of unsettled deliveries, and whether it is complete.
        initial_delivery_count: number(skipped(fields, 2), "initial-delivery-count")?,
        message_bytes_max: number(fields, "max-message-size")?,
        properties: after(fields, 2, "properties")?,
    };
    Ok(attach)
}

fn read_transfer(fields: &mut Fields) -> Result<Transfer, DecodeError> {
    Ok(Transfer {
        handle: required(fields, "handle")?,
        delivery_id: number(fields, "delivery-id")?,
        tag: match fields.next() {
            None | Some(Value::Null) => None,
            Some(Value::Binary(tag)) => Some(tag),
            Some(_) => return Err(DecodeError::Wrong("delivery-tag")),
        },
        format: number(fields, "message-format")?,
        settled: match fields.next() {
            None | Some(Value::Null) => None,
            Some(Value::Bool(settled)) => Some(settled),
            Some(_) => return Err(DecodeError::Wrong("settled")),
        },
        more: truth(fields, "more")?,
        state: State::read(skipped(fields, 1).next().unwrap_or(Value::Null))?,
        aborted: truth(skipped(fields, 1), "aborted")?,
    })
}

fn open_value(open: &Open) -> Value {
    let fields = vec![
        Value::string(&open.container),
        optional(open.hostname.clone().map(Value::String)),
        Value::Uint(open.frame_bytes_max),
        Value::Ushort(open.channel_max),
        optional(open.idle_ms.map(Value::Uint)),
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        map_value(&open.properties),
    ];
    Value::composite(codes::OPEN, fields)
}

fn attach_value(attach: &Attach) -> Value {
    let fields = vec![
        Value::string(&attach.name),
        Value::Uint(attach.handle),
        Value::Bool(attach.receiver),
        Value::Ubyte(attach.sender_settles.0),
        Value::Ubyte(attach.receiver_settles.0),
        optional(attach.source.as_ref().map(Terminus::value)),
        optional(attach.target.as_ref().map(Terminus::value)),
        Value::Null,
        Value::Null,
        optional(attach.initial_delivery_count.map(Value::Uint)),
        optional(attach.message_bytes_max.map(Value::Ulong)),
        Value::Null,
        Value::Null,
        map_value(&attach.properties),
    ];
    Value::composite(codes::ATTACH, fields)
}

fn flow_value(flow: &Flow) -> Value {
    let fields = vec![
        optional(flow.next_incoming_id.map(Value::Uint)),
        Value::Uint(flow.incoming_window),
        Value::Uint(flow.next_outgoing_id),
        Value::Uint(flow.outgoing_window),
        optional(flow.handle.map(Value::Uint)),
        optional(flow.delivery_count.map(Value::Uint)),
        optional(flow.credit.map(Value::Uint)),
        optional(flow.available.map(Value::Uint)),
        Value::Bool(flow.drain),
        Value::Bool(flow.echo),
        Value::Null,
    ];
    Value::composite(codes::FLOW, fields)
}

fn transfer_value(transfer: &Transfer) -> Value {
    let fields = vec![
        Value::Uint(transfer.handle),
        optional(transfer.delivery_id.map(Value::Uint)),
        optional(transfer.tag.clone().map(Value::Binary)),
        optional(transfer.format.map(Value::Uint)),
        optional(transfer.settled.map(Value::Bool)),
        Value::Bool(transfer.more),
        Value::Null,
        optional(transfer.state.as_ref().map(State::value)),
        Value::Bool(false),
        Value::Bool(transfer.aborted),
        Value::Bool(false),
    ];
    Value::composite(codes::TRANSFER, fields)
}

fn map_value(entries: &[(Value, Value)]) -> Value {
    if entries.is_empty() { Value::Null } else { Value::Map(entries.to_vec()) }
}

fn error_value(error: Option<&ErrorInfo>) -> Value {
    optional(error.map(ErrorInfo::value))
}
