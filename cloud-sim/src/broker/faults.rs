//! The faults a test can switch on through the control API.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::protocol::ErrorCode;

/// Faults in force.
#[derive(Debug)]
pub(crate) struct Faults {
    accepting: AtomicBool,
    cuts: watch::Sender<u64>,
    lose_ack: Mutex<LoseAck>,
    throttle_ms: AtomicU32,
    produce_errors: Mutex<Option<ProduceErrors>>,
    /// Lets the produce path skip the mutex while nothing is injected.
    produce_errors_left: AtomicU64,
    /// Batches still to be confirmed and not stored.
    swallow: AtomicU64,
    listening: AtomicBool,
    unauthorized: RwLock<HashMap<String, Unauthorized>>,
    /// Lets the produce path skip the lock while every topic is authorized.
    any_unauthorized: AtomicBool,
}

/// What a client may not do with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unauthorized {
    /// It may not even ask where the topic lives.
    pub(crate) metadata: bool,
}

#[derive(Debug, Default)]
struct LoseAck {
    /// 0: off.
    every: u64,
    seen: u64,
}

/// An error that the next produce requests get instead of being stored.
#[derive(Debug, Clone)]
pub(crate) struct ProduceErrors {
    pub(crate) code: ErrorCode,
    pub(crate) times: u64,
    /// Only requests that write to this topic; all of them if `None`.
    pub(crate) topic: Option<String>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            accepting: AtomicBool::new(true),
            cuts: watch::Sender::new(0),
            lose_ack: Mutex::default(),
            throttle_ms: AtomicU32::new(0),
            produce_errors: Mutex::default(),
            produce_errors_left: AtomicU64::new(0),
            listening: AtomicBool::new(true),
            unauthorized: RwLock::default(),
            any_unauthorized: AtomicBool::new(false),
            swallow: AtomicU64::new(0),
        }
    }
}

impl Faults {
    pub(crate) fn accepting(&self) -> bool {
        self.accepting.load(Ordering::Relaxed)
    }

    pub(crate) fn set_accepting(&self, enabled: bool) {
        self.accepting.store(enabled, Ordering::Relaxed);
    }

    /// Cuts every connection there is. Returns how many were listening.
    pub(crate) fn cut(&self) -> usize {
        self.cuts.send_modify(|count| *count += 1);
        self.cuts.receiver_count()
    }

    /// Changes when connections are to be cut.
    pub(crate) fn cuts(&self) -> watch::Receiver<u64> {
        self.cuts.subscribe()
    }

    /// Whether clients may read.
    pub(crate) fn listening(&self) -> bool {
        self.listening.load(Ordering::Relaxed)
    }

    pub(crate) fn set_listening(&self, enabled: bool) {
        self.listening.store(enabled, Ordering::Relaxed);
    }

    /// What clients may not do with `topic`; `None` when they may do everything.
    pub(crate) fn unauthorized(&self, topic: &str) -> Option<Unauthorized> {
        if !self.any_unauthorized.load(Ordering::Relaxed) {
            return None;
        }
        self.unauthorized.read().get(topic).copied()
    }

    pub(crate) fn set_unauthorized(&self, topic: &str, refused: Option<Unauthorized>) {
        let mut topics = self.unauthorized.write();
        match refused {
            Some(refused) => topics.insert(topic.to_owned(), refused),
            None => topics.remove(topic),
        };
        self.any_unauthorized.store(!topics.is_empty(), Ordering::Relaxed);
    }

    pub(crate) fn set_lose_ack(&self, every: u64) {
        *self.lose_ack.lock() = LoseAck { every, seen: 0 };
    }

    /// Called once per produce request that was stored; true when its answer is to be lost.
    pub(crate) fn loses_ack(&self) -> bool {
        let mut lose = self.lose_ack.lock();
        if lose.every == 0 {
            return false;
        }
        lose.seen += 1;
        lose.seen.is_multiple_of(lose.every)
    }

    pub(crate) fn set_swallow(&self, batches: u64) {
        self.swallow.store(batches, Ordering::Relaxed);
    }

    /// Called once per batch; true when it is to be confirmed and not stored.
    pub(crate) fn swallows(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        self.swallow.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// How long answers to produce requests are held back, in milliseconds.
    pub(crate) fn throttle_ms(&self) -> u32 {
        self.throttle_ms.load(Ordering::Relaxed)
    }

    pub(crate) fn set_throttle_ms(&self, ms: u32) {
        self.throttle_ms.store(ms, Ordering::Relaxed);
    }

    pub(crate) fn set_produce_errors(&self, errors: ProduceErrors) {
        let mut current = self.produce_errors.lock();
        self.produce_errors_left.store(errors.times, Ordering::Relaxed);
        *current = (errors.times > 0).then_some(errors);
    }

    /// The error a produce request to these topics gets, if one is injected; uses it up.
    pub(crate) fn take_produce_error<'a>(
        &self,
        mut topics: impl Iterator<Item = &'a str>,
    ) -> Option<ErrorCode> {
        if self.produce_errors_left.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut current = self.produce_errors.lock();
        let errors = current.as_mut()?;
        if let Some(wanted) = &errors.topic
            && !topics.any(|topic| topic == wanted)
        {
            return None;
        }
        errors.times -= 1;
        let (code, left) = (errors.code, errors.times);
        if left == 0 {
            *current = None;
        }
        self.produce_errors_left.store(left, Ordering::Relaxed);
        Some(code)
    }
}

#[cfg(test)]
mod tests {
    use super::{Faults, ProduceErrors, Unauthorized};
    use crate::protocol::ErrorCode;

    #[test]
    fn every_third_ack_is_lost() {
        let faults = Faults::default();
        assert!(!faults.loses_ack());
        faults.set_lose_ack(3);
        let lost: Vec<bool> = (0..6).map(|_| faults.loses_ack()).collect();
        assert_eq!(lost, [false, false, true, false, false, true]);
        faults.set_lose_ack(0);
        assert!((0..6).all(|_| !faults.loses_ack()));
    }

    #[test]
    fn a_topic_is_refused_until_it_is_authorized_again() {
        let faults = Faults::default();
        let refused = Unauthorized { metadata: true };
        faults.set_unauthorized("a", Some(refused));
        faults.set_unauthorized("b", Some(Unauthorized { metadata: false }));
        faults.set_unauthorized("b", None);
        assert_eq!(["a", "b"].map(|topic| faults.unauthorized(topic)), [Some(refused), None]);
        faults.set_unauthorized("a", None);
        assert_eq!(faults.unauthorized("a"), None);
    }

    #[test]
    fn as_many_batches_are_swallowed_as_were_ordered() {
        let faults = Faults::default();
        assert!(!faults.swallows());
        faults.set_swallow(2);
        assert_eq!([faults.swallows(), faults.swallows(), faults.swallows()], [true, true, false]);
    }

    #[test]
    fn injected_errors_are_used_up_by_their_topic() {
        let faults = Faults::default();
        let topic = Some("a".to_owned());
        faults.set_produce_errors(ProduceErrors { code: ErrorCode(44), times: 2, topic });
        assert_eq!(faults.take_produce_error(["b"].into_iter()), None);
        assert_eq!(faults.take_produce_error(["b", "a"].into_iter()), Some(ErrorCode(44)));
        assert_eq!(faults.take_produce_error(["a"].into_iter()), Some(ErrorCode(44)));
        assert_eq!(faults.take_produce_error(["a"].into_iter()), None);
    }
}
