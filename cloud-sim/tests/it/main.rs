//! Promises of cloud-sim, checked from outside: with librdkafka, with kcat, and with bytes of our own.

mod clients;
mod control;
mod faults;
mod limits;
mod program;
mod raw;
mod security;
mod sim;
