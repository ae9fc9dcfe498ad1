//! The types of the schema files in `proto/penstock/`, as prost has them.
//!
//! `cargo xtask proto` writes the generated files here; `cargo xtask proto --check` compares them.

pub use prost::{DecodeError, Message};

/// Package `penstock.v1`.
pub mod v1 {
    include!("penstock.v1.rs");
}
