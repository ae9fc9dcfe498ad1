//! Penstock: an IoT edge gateway that never loses an acknowledged message.
//!
//! ```text
//! devices ──TLS──► mqtt ──append──► outbox (RocksDB) ──tail──► uplink ──Kafka──► Event Hubs
//!    ▲              │  ▲               ▲
//!    └──── ack ◄────┘  │               └ what becomes of them
//!         after the    └─── commands ──┘◄──AMQP── Service Bus
//!         commit                                                admin: health, metrics, status
//! ```
//!
//! The modules below stand in the order of that flow; [`app`] alone wires them together.

pub mod app;
mod site;

pub mod mqtt;
pub mod outbox;
pub mod uplink;

pub mod alerts;
pub mod commands;
pub mod dead_letter;

pub mod admin;
pub mod examine;
pub mod verify;

pub mod azure;
pub mod config;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod observe;
pub mod supervise;
pub mod tls;
