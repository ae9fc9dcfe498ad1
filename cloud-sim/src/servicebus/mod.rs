//! A stand-in for Azure Service Bus: queues, topics and sessions over AMQP 1.0, with faults on order.
//!
//! ```text
//! client --> listener, connection, link (AMQP) --> broker (entities, sessions, locks; pure)
//!            cbs, management                         ^
//!                              control (HTTP) -------+
//! ```
//!
//! The broker is state with a clock that tests can drive; the AMQP side and the control API call it, and it tells
//! connections what concerns them by notices.

pub(crate) mod broker;
mod cbs;
mod config;
mod connection;
pub(crate) mod control;
mod link;
mod listener;
mod management;
mod service;
mod websocket;

pub(crate) use self::cbs::unescape;
pub use self::config::{
    ENTITIES_MAX, Entities, Filter, KEY_DEFAULT, KEY_NAME_DEFAULT, QueueSpec, ServiceBus, SpecError,
    TopicSpec,
};
pub use self::service::Addresses;
pub(crate) use self::service::Service;
