//! The bodies of orders. Unknown keys are errors; ranges are checked here.

use serde::{Deserialize, Serialize};

use crate::protocol::ErrorCode;

/// Longest time an answer can be held back, in milliseconds.
const THROTTLE_MS_MAX: u32 = 120_000;
/// Kafka's error codes run from -1 to here; 0 is success.
const ERROR_CODE_MAX: i16 = 133;

/// No body, or `{}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

/// Makes a topic, or gives it more partitions.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateTopic {
    pub(super) name: String,
    pub(super) partitions: usize,
}

/// Loses the answer to every N-th stored produce request; 0 ends it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoseAck {
    pub(super) every: u64,
}

/// Confirms the next batches and does not store them; 0 ends it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Swallow {
    pub(super) batches: u64,
}

/// Whether new connections are taken.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Accepting {
    pub(super) enabled: bool,
}

/// Refuses the next produce requests.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProduceError {
    pub(super) code: i16,
    pub(super) times: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) topic: Option<String>,
}

impl ProduceError {
    pub(super) fn error_code(&self) -> Result<ErrorCode, String> {
        match self.code {
            -1 | 1..=ERROR_CODE_MAX => Ok(ErrorCode(self.code)),
            code => Err(format!("code {code} is not an error: -1 or 1 to {ERROR_CODE_MAX}")),
        }
    }
}

/// Holds back answers to produce requests; 0 ends it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Throttle {
    ms: u32,
}

impl Throttle {
    pub(super) fn checked_ms(&self) -> Result<u32, String> {
        if self.ms <= THROTTLE_MS_MAX {
            Ok(self.ms)
        } else {
            Err(format!("{} ms is too long: 0 to {THROTTLE_MS_MAX}", self.ms))
        }
    }
}

/// What may come in per second, over all topics; 0 sets no limit. The buckets are full afterwards.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetQuota {
    #[serde(default)]
    pub(super) events: u64,
    #[serde(default)]
    pub(super) bytes: u64,
    /// Delays above this are refused; as before if it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) policy_violation_ms: Option<u64>,
}

/// Whether clients may read.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listen {
    pub(super) enabled: bool,
}

/// Whether clients may write to a topic, and whether a refusal covers its metadata.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Authorize {
    pub(super) topic: String,
    pub(super) enabled: bool,
    #[serde(default = "yes")]
    pub(super) metadata: bool,
}

fn yes() -> bool {
    true
}

/// Forgets idempotent producers; one that goes on gets `code`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ForgetProducers {
    code: Option<i16>,
}

impl ForgetProducers {
    pub(super) fn error_code(&self) -> Result<ErrorCode, String> {
        let possible = [ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode::UNKNOWN_PRODUCER_ID];
        let wanted = self.code.map_or(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode);
        if possible.contains(&wanted) {
            Ok(wanted)
        } else {
            Err(format!("code {} is not what a forgotten producer gets: 45 or 59", wanted.0))
        }
    }
}
