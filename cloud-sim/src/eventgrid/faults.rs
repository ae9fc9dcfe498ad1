//! Faults on order. Each lasts until it is used up, changed, or cleared.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::time::Instant;

use super::refusal::Refusal;
use super::request::Event;

/// Longest time an answer or a handshake is held back.
const DELAY_MS_MAX: u64 = 120_000;
/// Most ids that are refused.
const IDS_MAX: usize = 10_000;

/// An order of the control API.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Fault {
    /// The next requests get this status. With `accept` their events are accepted all the same.
    Status {
        status: u16,
        requests: u64,
        #[serde(default)]
        retry_after: Option<u64>,
        #[serde(default)]
        accept: bool,
    },
    /// Answers are held back; 0 ends it.
    Delay { ms: u64 },
    /// The next requests are read and their connections cut; nothing is accepted.
    CutRequests { requests: u64 },
    /// The next requests are accepted and their connections cut instead of an answer: the maker of duplicates.
    LoseAnswers { requests: u64 },
    /// The next requests are read and never answered; nothing is accepted.
    BlackHole { requests: u64 },
    /// Every open connection is cut now.
    CutConnections {},
    /// Requests with one of these events are refused with 400, all of them; an empty list ends it.
    RejectIds { ids: BTreeSet<String> },
    /// The so-manieth event from now on is such a one; 0 ends it.
    RejectNth { nth: u64 },
    /// Events per second that are taken; above that 429. 0 sets no limit.
    Rate {
        events_per_second: u64,
        #[serde(default)]
        retry_after: Option<u64>,
    },
    /// Connections are closed at once, open ones too, until it is ended.
    Away { enabled: bool },
    /// New connections wait before the TLS handshake; 0 ends it.
    SlowTls { ms: u64 },
    /// The first key is replaced: what is signed with it or shows it is refused.
    RotateKey { key: String },
    /// All of the above is ended, but for the keys.
    Clear {},
}

/// What becomes of a request before it is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Before {
    Go,
    Cut,
    Silence,
    Refuse(Refusal),
}

/// What becomes of a request whose events were accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum After {
    Answer,
    Cut,
    Refuse(Refusal),
}

#[derive(Debug, Clone)]
struct Status {
    refusal: Refusal,
    requests: u64,
    accept: bool,
}

/// A bucket of events that is full after a second.
#[derive(Debug, Clone)]
struct Rate {
    events_per_second: u64,
    retry_after: Option<u64>,
    /// Thousandths of events that may come now.
    left_milli: u64,
    filled: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    status: Option<Status>,
    delay: Duration,
    cut: u64,
    lose: u64,
    silent: u64,
    ids: BTreeSet<String>,
    nth: u64,
    rate: Option<Rate>,
    away: bool,
    slow_tls: Duration,
}

impl Faults {
    /// Carries an order out, but for what concerns connections and keys. An order that is wrong changes nothing.
    pub(super) fn set(&mut self, fault: &Fault, now: Instant) -> Result<(), String> {
        match fault {
            Fault::Status { status, requests, retry_after, accept } => {
                let status = StatusCode::from_u16(*status)
                    .ok()
                    .filter(|status| status.as_u16() >= 300 && status.as_u16() <= 599)
                    .ok_or_else(|| format!("status {status} is not a refusal: 300 to 599"))?;
                let refusal = Refusal::ordered(status, *retry_after);
                self.status = Some(Status { refusal, requests: *requests, accept: *accept });
            }
            Fault::Delay { ms } => self.delay = milliseconds(*ms)?,
            Fault::CutRequests { requests } => self.cut = *requests,
            Fault::LoseAnswers { requests } => self.lose = *requests,
            Fault::BlackHole { requests } => self.silent = *requests,
            Fault::RejectIds { ids } if ids.len() > IDS_MAX => {
                return Err(format!("more than {IDS_MAX} ids"));
            }
            Fault::RejectIds { ids } => self.ids.clone_from(ids),
            Fault::RejectNth { nth } => self.nth = *nth,
            Fault::Rate { events_per_second, retry_after } => {
                let rate = Rate {
                    events_per_second: *events_per_second,
                    retry_after: *retry_after,
                    left_milli: events_per_second.saturating_mul(1_000),
                    filled: now,
                };
                self.rate = Some(rate).filter(|rate| rate.events_per_second > 0);
            }
            Fault::Away { enabled } => self.away = *enabled,
            Fault::SlowTls { ms } => self.slow_tls = milliseconds(*ms)?,
            Fault::RotateKey { key } if key.is_empty() || STANDARD.decode(key).is_err() => {
                return Err("a key is Base64".to_owned());
            }
            Fault::CutConnections {} | Fault::RotateKey { .. } => {}
            Fault::Clear {} => *self = Self::default(),
        }
        Ok(())
    }

    /// Called once per request.
    pub(super) fn before(&mut self) -> Before {
        if take(&mut self.silent) {
            return Before::Silence;
        }
        if take(&mut self.cut) {
            return Before::Cut;
        }
        self.take_status(false).map_or(Before::Go, Before::Refuse)
    }

    /// Whether events are refused though nothing is wrong with them.
    pub(super) fn judge(&mut self, events: &[Event], now: Instant) -> Result<(), Refusal> {
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        if self.nth > 0 {
            let chosen = usize::try_from(self.nth - 1).ok().and_then(|index| events.get(index));
            if let Some(event) = chosen {
                self.ids.insert(event.id.clone());
            }
            self.nth = self.nth.saturating_sub(count);
        }
        if let Some(at) = events.iter().position(|event| self.ids.contains(&event.id)) {
            return Err(Refusal::input(format!("Event [{at}] is refused on order.")));
        }
        if let Some(rate) = &mut self.rate
            && !rate.take(count, now)
        {
            return Err(Refusal::ordered(StatusCode::TOO_MANY_REQUESTS, rate.retry_after));
        }
        Ok(())
    }

    /// The ordered status, if one more request is to get it, before or after its events were accepted.
    fn take_status(&mut self, accept: bool) -> Option<Refusal> {
        let status = self.status.as_mut().filter(|status| status.accept == accept)?;
        take(&mut status.requests).then(|| status.refusal.clone())
    }

    /// Called once per request whose events were accepted.
    pub(super) fn after(&mut self) -> After {
        if take(&mut self.lose) {
            return After::Cut;
        }
        self.take_status(true).map_or(After::Answer, After::Refuse)
    }

    pub(super) fn delay(&self) -> Duration {
        self.delay
    }

    pub(super) fn is_away(&self) -> bool {
        self.away
    }

    pub(super) fn slow_tls(&self) -> Duration {
        self.slow_tls
    }
}

impl Rate {
    fn take(&mut self, events: u64, now: Instant) -> bool {
        let milli = self.events_per_second.saturating_mul(1_000);
        let passed_ms = u64::try_from(now.duration_since(self.filled).as_millis()).unwrap_or(u64::MAX);
        self.filled += Duration::from_millis(passed_ms);
        let gained = passed_ms.saturating_mul(self.events_per_second);
        self.left_milli = self.left_milli.saturating_add(gained).min(milli);
        // A batch above a second's worth would never come through: a full bucket lets it.
        let price = events.saturating_mul(1_000).min(milli);
        let left = self.left_milli.checked_sub(price);
        self.left_milli = left.unwrap_or(self.left_milli);
        left.is_some()
    }
}

fn take(left: &mut u64) -> bool {
    let one_less = left.checked_sub(1);
    *left = one_less.unwrap_or(0);
    one_less.is_some()
}

fn milliseconds(ms: u64) -> Result<Duration, String> {
    if ms <= DELAY_MS_MAX {
        Ok(Duration::from_millis(ms))
    } else {
        Err(format!("{ms} ms is too long: 0 to {DELAY_MS_MAX}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn order(order: serde_json::Value) -> Fault {
        serde_json::from_value(order).unwrap()
    }

    fn events(ids: &[&str]) -> Vec<Event> {
        let event = |id: &&str| Event {
            topic: None,
            source: "/gw".to_owned(),
            id: (*id).to_owned(),
            event: json!({}),
            bytes: 2,
        };
        ids.iter().map(event).collect()
    }

    #[tokio::test]
    async fn faults_are_used_up() {
        let mut faults = Faults::default();
        let now = Instant::now();
        faults.set(&order(json!({"fault": "black-hole", "requests": 1})), now).unwrap();
        faults.set(&order(json!({"fault": "cut-requests", "requests": 1})), now).unwrap();
        let status = json!({"fault": "status", "status": 503, "requests": 1, "retry_after": 9});
        faults.set(&order(status), now).unwrap();
        faults.set(&order(json!({"fault": "lose-answers", "requests": 1})), now).unwrap();
        assert_eq!([faults.before(), faults.before()], [Before::Silence, Before::Cut]);
        assert!(matches!(faults.before(), Before::Refuse(refusal) if refusal.retry_after == Some(9)));
        assert_eq!(faults.before(), Before::Go);
        assert_eq!([faults.after(), faults.after()], [After::Cut, After::Answer]);
        let status = json!({"fault": "status", "status": 500, "requests": 1, "accept": true});
        faults.set(&order(status), now).unwrap();
        assert_eq!(faults.before(), Before::Go);
        assert!(matches!(faults.after(), After::Refuse(_)));
        assert_eq!(faults.after(), After::Answer);
    }

    #[tokio::test]
    async fn wrong_orders_change_nothing() {
        let mut faults = Faults::default();
        let now = Instant::now();
        for wrong in [
            json!({"fault": "status", "status": 200, "requests": 1}),
            json!({"fault": "delay", "ms": 120_001}),
            json!({"fault": "slow-tls", "ms": 120_001}),
            json!({"fault": "rotate-key", "key": ""}),
            json!({"fault": "rotate-key", "key": "no Base64"}),
        ] {
            assert!(faults.set(&order(wrong.clone()), now).is_err(), "{wrong}");
        }
        assert_eq!((faults.before(), faults.delay()), (Before::Go, Duration::ZERO));
    }

    #[tokio::test]
    async fn an_event_is_refused_by_its_id_or_its_turn() {
        let mut faults = Faults::default();
        let now = Instant::now();
        faults.set(&order(json!({"fault": "reject-nth", "nth": 4})), now).unwrap();
        assert!(faults.judge(&events(&["a", "b"]), now).is_ok());
        let refused = faults.judge(&events(&["c", "d", "e"]), now).unwrap_err();
        assert!(refused.message.contains("Event [1]"), "{refused:?}");
        assert!(faults.judge(&events(&["c"]), now).is_ok());
        assert!(faults.judge(&events(&["d"]), now).is_err(), "it stays so");
        faults.set(&order(json!({"fault": "reject-ids", "ids": []})), now).unwrap();
        assert!(faults.judge(&events(&["d"]), now).is_ok());
    }

    #[tokio::test]
    async fn a_rate_is_kept_over_time() {
        let mut faults = Faults::default();
        let now = Instant::now();
        faults.set(&order(json!({"fault": "rate", "events_per_second": 2, "retry_after": 1})), now).unwrap();
        let one = events(&["a"]);
        assert!(faults.judge(&one, now).is_ok() && faults.judge(&one, now).is_ok());
        let refused = faults.judge(&one, now + Duration::from_millis(499)).unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.retry_after), (429, Some(1)));
        assert!(faults.judge(&one, now + Duration::from_millis(500)).is_ok());
        let many = events(&["a", "b", "c", "d"]);
        assert!(
            faults.judge(&many, now + Duration::from_secs(60)).is_ok(),
            "a full bucket lets a batch through"
        );
        assert!(faults.judge(&one, now + Duration::from_secs(60)).is_err());
    }
}
