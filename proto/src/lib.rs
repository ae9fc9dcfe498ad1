//! The contracts that leave the process: lanes, identities, the record header and packed records.
//!
//! No I/O and no clock. The gateway writes these, `penstock verify`, the simulators and any
//! consumer read them. The layouts are documented byte by byte in `docs/formats/`.

pub mod base64;
mod identity;
pub mod json;
mod lane;
mod loss;
pub mod packed;
mod telemetry;
pub mod text;
pub mod wire;

pub use identity::{Epoch, GatewayId, Identity, IdentityError, LogId, NameError, Seq, Stream};
pub use lane::{Lane, UnknownLane};
pub use loss::{LOSS_TYPE_SUFFIX, Loss};
pub use packed::PACK_HEADER;
pub use telemetry::Reading;

/// Name of the one header that every Kafka record carries; its value is an [`Identity`].
pub const IDENTITY_HEADER: &str = "penstock";
