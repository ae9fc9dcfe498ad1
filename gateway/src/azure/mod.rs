//! What is Azure's own: connection strings. Tokens and clouds follow.

mod connection_string;

pub use connection_string::{ConnectionString, ConnectionStringError};
