//! What the control API counts, since the start of the process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use crate::protocol::ApiKey;

/// One count.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections_opened: Count,
    pub(crate) connections_closed: Count,
    pub(crate) connections_refused: Count,
    pub(crate) connections_cut: Count,
    pub(crate) connections_idle_closed: Count,
    pub(crate) authentication_failures: Count,
    pub(crate) authentications_plain: Count,
    pub(crate) authentications_oauthbearer: Count,
    pub(crate) reauthentications: Count,
    pub(crate) sessions_expired: Count,
    pub(crate) tokens_issued: Count,
    pub(crate) tokens_refused: Count,
    pub(crate) malformed_requests: Count,
    pub(crate) oversized_requests: Count,
    requests: [Count; ApiKey::ALL.len()],
    pub(crate) batches_appended: Count,
    pub(crate) records_appended: Count,
    pub(crate) bytes_appended: Count,
    pub(crate) batches_refused: Count,
    pub(crate) duplicates_recognised: Count,
    pub(crate) out_of_order_refused: Count,
    pub(crate) batches_swallowed: Count,
    pub(crate) acks_lost: Count,
    pub(crate) errors_injected: Count,
    pub(crate) throttled_requests: Count,
    pub(crate) throttled_ms: Count,
    pub(crate) policy_violations: Count,
    pub(crate) gzip_refused: Count,
    pub(crate) listen_refused: Count,
    pub(crate) authorization_refused: Count,
    pub(crate) producers_forgotten: Count,
    pub(crate) bytes_fetched: Count,
}

/// The counts at one moment, as the control API answers them.
#[derive(Debug, Serialize)]
pub(crate) struct Snapshot {
    connections_open: u64,
    connections_opened: u64,
    connections_refused: u64,
    connections_cut: u64,
    connections_idle_closed: u64,
    authentication_failures: u64,
    authentications_plain: u64,
    authentications_oauthbearer: u64,
    reauthentications: u64,
    sessions_expired: u64,
    tokens_issued: u64,
    tokens_refused: u64,
    malformed_requests: u64,
    oversized_requests: u64,
    requests: BTreeMap<&'static str, u64>,
    batches_appended: u64,
    records_appended: u64,
    bytes_appended: u64,
    batches_refused: u64,
    duplicates_recognised: u64,
    out_of_order_refused: u64,
    batches_swallowed: u64,
    acks_lost: u64,
    errors_injected: u64,
    throttled_requests: u64,
    throttled_ms: u64,
    policy_violations: u64,
    gzip_refused: u64,
    listen_refused: u64,
    authorization_refused: u64,
    producers_forgotten: u64,
    bytes_fetched: u64,
}

impl Counters {
    pub(crate) fn request(&self, api: ApiKey) {
        if let Some(count) = self.requests.get(api.index()) {
            count.add(1);
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let closed = self.connections_closed.get();
        let opened = self.connections_opened.get();
        Snapshot {
            connections_open: opened.saturating_sub(closed),
            connections_opened: opened,
            connections_refused: self.connections_refused.get(),
            connections_cut: self.connections_cut.get(),
            connections_idle_closed: self.connections_idle_closed.get(),
            authentication_failures: self.authentication_failures.get(),
            authentications_plain: self.authentications_plain.get(),
            authentications_oauthbearer: self.authentications_oauthbearer.get(),
            reauthentications: self.reauthentications.get(),
            sessions_expired: self.sessions_expired.get(),
            tokens_issued: self.tokens_issued.get(),
            tokens_refused: self.tokens_refused.get(),
            malformed_requests: self.malformed_requests.get(),
            oversized_requests: self.oversized_requests.get(),
            requests: ApiKey::ALL
                .iter()
                .zip(&self.requests)
                .map(|(api, count)| (api.name(), count.get()))
                .collect(),
            batches_appended: self.batches_appended.get(),
            records_appended: self.records_appended.get(),
            bytes_appended: self.bytes_appended.get(),
            batches_refused: self.batches_refused.get(),
            duplicates_recognised: self.duplicates_recognised.get(),
            out_of_order_refused: self.out_of_order_refused.get(),
            batches_swallowed: self.batches_swallowed.get(),
            acks_lost: self.acks_lost.get(),
            errors_injected: self.errors_injected.get(),
            throttled_requests: self.throttled_requests.get(),
            throttled_ms: self.throttled_ms.get(),
            policy_violations: self.policy_violations.get(),
            gzip_refused: self.gzip_refused.get(),
            listen_refused: self.listen_refused.get(),
            authorization_refused: self.authorization_refused.get(),
            producers_forgotten: self.producers_forgotten.get(),
            bytes_fetched: self.bytes_fetched.get(),
        }
    }
}
