//! Kafka's error codes, as far as this broker uses them.

/// An error code as it travels on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ErrorCode(pub(crate) i16);

impl ErrorCode {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const OFFSET_OUT_OF_RANGE: Self = Self(1);
    pub(crate) const CORRUPT_MESSAGE: Self = Self(2);
    pub(crate) const UNKNOWN_TOPIC_OR_PARTITION: Self = Self(3);
    pub(crate) const MESSAGE_TOO_LARGE: Self = Self(10);
    pub(crate) const INVALID_REQUIRED_ACKS: Self = Self(21);
    pub(crate) const TOPIC_AUTHORIZATION_FAILED: Self = Self(29);
    pub(crate) const UNSUPPORTED_SASL_MECHANISM: Self = Self(33);
    pub(crate) const ILLEGAL_SASL_STATE: Self = Self(34);
    pub(crate) const UNSUPPORTED_VERSION: Self = Self(35);
    pub(crate) const UNSUPPORTED_FOR_MESSAGE_FORMAT: Self = Self(43);
    pub(crate) const POLICY_VIOLATION: Self = Self(44);
    pub(crate) const OUT_OF_ORDER_SEQUENCE_NUMBER: Self = Self(45);
    pub(crate) const DUPLICATE_SEQUENCE_NUMBER: Self = Self(46);
    pub(crate) const INVALID_PRODUCER_EPOCH: Self = Self(47);
    pub(crate) const TRANSACTIONAL_ID_AUTHORIZATION_FAILED: Self = Self(53);
    pub(crate) const KAFKA_STORAGE_ERROR: Self = Self(56);
    pub(crate) const SASL_AUTHENTICATION_FAILED: Self = Self(58);
    pub(crate) const UNKNOWN_PRODUCER_ID: Self = Self(59);
    pub(crate) const INVALID_RECORD: Self = Self(87);
}
