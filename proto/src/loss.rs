//! The audit record of a named loss: what was let go, from where, and why.

use serde::{Deserialize, Serialize};

use crate::{Lane, Seq};

/// How the CloudEvents `type` of a loss record ends, after the configured type prefix.
pub const LOSS_TYPE_SUFFIX: &str = ".outbox.loss.v1";

/// The `data` of a loss record: a range of a lane that a named policy let go.
///
/// `penstock verify` subtracts these ranges from the gaps it finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The log the range belongs to, as 16 hexadecimal digits.
    pub log: String,
    /// The lane.
    pub lane: Lane,
    /// First position let go.
    pub first: Seq,
    /// Last position let go.
    pub last: Seq,
    /// The policy that let it go, for example `quarantine`.
    pub reason: String,
}
