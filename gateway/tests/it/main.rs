//! Promises across stages, shown on the real binary with real clients.

mod alerts;
mod backpressure;
mod client;
mod clients;
mod cloud_faults;
mod command_line;
mod commands;
mod crash_points;
mod crash_recovery;
mod dead_letter;
mod descriptors;
mod entra_uplink;
mod fleet;
mod hub;
mod losses;
mod outbox_format;
mod outbox_tool;
mod readers;
mod real_clients;
mod reload;
mod secured_uplink;
mod shutdown;
mod site;
mod state;
