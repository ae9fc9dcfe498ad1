//! The stage from the outside: sockets on one end, the outbox on the other.

mod backpressure;
mod client;
mod commands;
mod config;
mod connect;
mod gateway;
mod hostile;
mod lifecycle;
mod limits;
mod outbox;
mod publish;
mod publisher;
mod reload;
mod spec;
mod subscribe;
mod websocket;
mod wire;
