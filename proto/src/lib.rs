//! The contracts that leave the process: lanes, identities and the record header.
//!
//! No I/O and no clock. The gateway writes these, `penstock verify`, the simulators and any
//! consumer read them. The layouts are documented byte by byte in `docs/formats/`.

mod identity;
mod lane;
mod loss;
mod telemetry;

pub use identity::{Epoch, GatewayId, Identity, IdentityError, LogId, NameError, Seq, Stream};
pub use lane::{Lane, UnknownLane};
pub use loss::{LOSS_TYPE_SUFFIX, Loss};
pub use telemetry::Reading;

/// Name of the one header that every Kafka record carries; its value is an [`Identity`].
pub const IDENTITY_HEADER: &str = "penstock";
