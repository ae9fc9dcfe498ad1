//! What the stage counts. Every message that was received is settled, left without being settled for a named reason, or
//! pending: `received = settlements + left + pending`.

use metrics::{Counter, Gauge, Histogram};

use std::time::Duration;

use super::control::Operation;
use super::dispatch::{Counts, Refusal};
use super::replies::Failure;
use crate::observe::{Kind, Metric, counter, counter_with, counter_with_two, gauge, gauge_with, histogram};

const STATUSES: &[&str] = &["delivered", "succeeded", "failed", "rejected", "expired"];
const DISPOSITIONS: &[&str] = &["complete", "abandon", "dead-letter"];
const REASONS: &[&str] = &["refused", "malformed", "too-large", "expired"];
const ABANDONS: &[&str] = &["refused", "no-ack"];
const LEFT: &[&str] = &["disconnected", "lock-lost", "lost", "stopped", "no-room", "failed"];
const LINKS: &[&str] = &["linked", "accepting", "closing", "asking", "parked"];
const WAITING: &[&str] = &["ready", "pausing", "passive"];
const ACCEPTS: &[&str] = &["accepted", "locked", "busy", "quota", "lost", "timed-out", "forbidden", "other"];
const FINDS: &[&str] = &["served", "parked", "closed", "none", "refused"];
const RENEWALS: &[&str] = &["renewed", "lock-lost", "failed"];
const UNREPLIED: &[&str] = &[
    "off",
    "malformed",
    "foreign",
    "not-allowed",
    "not-found",
    "refused",
    "full",
    "busy",
    "timed-out",
    "lost",
    "other",
];
/// What a look at a dead-letter queue found, in the order of [`Metrics::dead_letters`].
const LETTERS: &[&str] = &["told", "own", "open", "held", "unreadable"];
/// How something asked of Service Bus can end; all but the first are words of errors.
const RESULTS: &[&str] =
    &["done", "locked", "timed-out", "lock-lost", "busy", "not-found", "refused", "quota", "lost", "other"];
/// The words of errors.
const ERRORS: &[&str] =
    &["locked", "timed-out", "lock-lost", "busy", "not-found", "refused", "quota", "lost", "other"];
const OPERATIONS: &[&str] = &Operation::NAMES;
const TIMES: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0,
    86_400.0,
];

const RECEIVED: Metric = Metric {
    name: "penstock_commands_received_total",
    kind: Kind::Counter,
    help: "Messages received from Service Bus, those delivered again included.",
    labels: &[],
};
const REPEATS: Metric = Metric {
    name: "penstock_commands_repeats_total",
    kind: Kind::Counter,
    help: "Messages received whose command was in flight or done already, and which were not published again for that.",
    labels: &[],
};
const PUBLISHED: Metric = Metric {
    name: "penstock_commands_published_total",
    kind: Kind::Counter,
    help: "Commands given to the connection of their device, each time it happened.",
    labels: &[],
};
const ACKNOWLEDGED: Metric = Metric {
    name: "penstock_commands_acknowledged_total",
    kind: Kind::Counter,
    help: "Commands that their device acknowledged without refusing them.",
    labels: &[],
};
const REFUSED: Metric = Metric {
    name: "penstock_commands_refused_total",
    kind: Kind::Counter,
    help: "Commands that their device refused with a reason code, for now or for good.",
    labels: &[],
};
const FINALS: Metric = Metric {
    name: "penstock_commands_finals_total",
    kind: Kind::Counter,
    help: "Commands that came to their end, by final status.",
    labels: &[("status", STATUSES)],
};
const SETTLEMENTS: Metric = Metric {
    name: "penstock_commands_settlements_total",
    kind: Kind::Counter,
    help: "Messages settled at Service Bus, by what became of them.",
    labels: &[("disposition", DISPOSITIONS)],
};
const DEAD_LETTERED: Metric = Metric {
    name: "penstock_commands_dead_lettered_total",
    kind: Kind::Counter,
    help: "Messages given to the dead-letter queue, by reason; Service Bus knows it as `penstock-` and this word.",
    labels: &[("reason", REASONS)],
};
const ABANDONED: Metric = Metric {
    name: "penstock_commands_abandoned_total",
    kind: Kind::Counter,
    help: "Messages abandoned, so that they come again: the device refused them for now, did not acknowledge in time, or the outbox could not keep what became of them.",
    labels: &[("reason", ABANDONS)],
};
const LEFT_TOTAL: Metric = Metric {
    name: "penstock_commands_left_total",
    kind: Kind::Counter,
    help: "Messages left without being settled, which Service Bus delivers again: the device went, the lock or the connection was lost, the gateway stopped, or `commands.memory_bytes_max` was in use.",
    labels: &[("reason", LEFT)],
};
const PENDING: Metric = Metric {
    name: "penstock_commands_pending",
    kind: Kind::Gauge,
    help: "Messages received and neither settled nor left.",
    labels: &[],
};
const IN_FLIGHT: Metric = Metric {
    name: "penstock_commands_in_flight",
    kind: Kind::Gauge,
    help: "Commands on their way to devices, of at most `commands.in_flight_max`.",
    labels: &[],
};
const MEMORY: Metric = Metric {
    name: "penstock_commands_memory_bytes",
    kind: Kind::Gauge,
    help: "Memory of messages in hand, of at most `commands.memory_bytes_max`.",
    labels: &[],
};
const LINKS_NOW: Metric = Metric {
    name: "penstock_commands_links",
    kind: Kind::Gauge,
    help: "Links to Service Bus: those of devices, those being opened and closed, receivers that wait for any session, and sessions held whose devices are not here.",
    labels: &[("state", LINKS)],
};
const WAITING_NOW: Metric = Metric {
    name: "penstock_commands_waiting_devices",
    kind: Kind::Gauge,
    help: "Connected devices without a link: it is their turn next, they were refused, or there is no place.",
    labels: &[("state", WAITING)],
};
const PRESENT: Metric = Metric {
    name: "penstock_commands_present_devices",
    kind: Kind::Gauge,
    help: "Connected devices that subscribe to their commands.",
    labels: &[],
};
const KEYS_TOO_LONG: Metric = Metric {
    name: "penstock_commands_keys_too_long_total",
    kind: Kind::Counter,
    help: "Times a device connected that gets no commands, because its key is longer than the 128 characters of a session's id.",
    labels: &[],
};
const DOWN: Metric = Metric {
    name: "penstock_commands_down_entities",
    kind: Kind::Gauge,
    help: "Entities where nothing is accepted for now: they refused, or are out of reach.",
    labels: &[],
};
const ACCEPTED: Metric = Metric {
    name: "penstock_commands_accepts_total",
    kind: Kind::Counter,
    help: "Sessions of devices asked for, by result. `locked` is another gateway's, or not free yet.",
    labels: &[("result", ACCEPTS)],
};
const FOUND: Metric = Metric {
    name: "penstock_commands_discoveries_total",
    kind: Kind::Counter,
    help: "What became of receivers that waited for any session.",
    labels: &[("result", FINDS)],
};
const RENEWED: Metric = Metric {
    name: "penstock_commands_renewals_total",
    kind: Kind::Counter,
    help: "Locks renewed, by result.",
    labels: &[("result", RENEWALS)],
};
const LOCKS_LOST: Metric = Metric {
    name: "penstock_commands_locks_lost_total",
    kind: Kind::Counter,
    help: "Links that ended because their lock was lost.",
    labels: &[],
};
const REPLIED: Metric = Metric {
    name: "penstock_commands_replies_sent_total",
    kind: Kind::Counter,
    help: "Replies that the entity named by the command has taken, those sent again included.",
    labels: &[],
};
const NOT_REPLIED: Metric = Metric {
    name: "penstock_commands_replies_failed_total",
    kind: Kind::Counter,
    help: "Replies that commands asked for and that were given up, by reason. Their messages are settled all the same.",
    labels: &[("reason", UNREPLIED)],
};
const REPLY_TIME: Metric = Metric {
    name: "penstock_commands_reply_seconds",
    kind: Kind::Histogram(TIMES),
    help: "How long it took to send a reply, those given up not among them.",
    labels: &[],
};
const ACCEPT_TIME: Metric = Metric {
    name: "penstock_commands_accept_seconds",
    kind: Kind::Histogram(TIMES),
    help: "How long it took to accept a session, refused ones not among them.",
    labels: &[],
};
const AGE: Metric = Metric {
    name: "penstock_commands_age_seconds",
    kind: Kind::Histogram(TIMES),
    help: "How long a message had been in Service Bus when it was received for the first time.",
    labels: &[],
};
const ACK_TIME: Metric = Metric {
    name: "penstock_commands_ack_seconds",
    kind: Kind::Histogram(TIMES),
    help: "From giving a command to its connection to the PUBACK.",
    labels: &[],
};
const SETTLE_TIME: Metric = Metric {
    name: "penstock_commands_settle_seconds",
    kind: Kind::Histogram(TIMES),
    help: "From receiving a message to settling it.",
    labels: &[],
};
const CONTROLLED: Metric = Metric {
    name: "penstock_commands_control_total",
    kind: Kind::Counter,
    help: "Commands for the gateway itself that it carried out or rejected, by operation (`docs/control.md`).",
    labels: &[("operation", OPERATIONS), ("status", &["succeeded", "rejected"])],
};
const RENEWAL_LATE: Metric = Metric {
    name: "penstock_commands_renewal_delay_seconds",
    kind: Kind::Histogram(TIMES),
    help: "How much later than planned a lock was renewed.",
    labels: &[],
};

const DEAD_LETTERS: Metric = Metric {
    name: "penstock_commands_dead_letters",
    kind: Kind::Gauge,
    help: "Messages in the dead-letter queues that are watched, as the last look at each found them: told of, given up by a gateway (which has told), still in hand here, not told of since too many are remembered, and not AMQP.",
    labels: &[("state", LETTERS)],
};
const DEAD_LETTERS_TOLD: Metric = Metric {
    name: "penstock_commands_dead_letters_told_total",
    kind: Kind::Counter,
    help: "Commands that no gateway brought to their end and that were found in a dead-letter queue, by the final status that was told.",
    labels: &[("status", STATUSES)],
};
const DEAD_LETTER_PEEKS: Metric = Metric {
    name: "penstock_commands_dead_letter_peeks_total",
    kind: Kind::Counter,
    help: "Pages of dead-letter queues asked for, by result.",
    labels: &[("result", RESULTS)],
};
const CONNECTIONS: Metric = Metric {
    name: "penstock_commands_connections",
    kind: Kind::Gauge,
    help: "AMQP connections to Service Bus that are open.",
    labels: &[],
};
const CONNECTS: Metric = Metric {
    name: "penstock_commands_connects_total",
    kind: Kind::Counter,
    help: "AMQP connections asked for, by result.",
    labels: &[("result", RESULTS)],
};
const MANAGEMENT_FAILURES: Metric = Metric {
    name: "penstock_commands_management_failures_total",
    kind: Kind::Counter,
    help: "Requests to the management of an entity (renewing locks, session states, looking at dead letters) that failed, by reason.",
    labels: &[("reason", ERRORS)],
};
const TOKEN_FAILURES: Metric = Metric {
    name: "penstock_commands_token_failures_total",
    kind: Kind::Counter,
    help: "Tokens for an entity that Service Bus did not take, or that there were none of, by reason.",
    labels: &[("reason", ERRORS)],
};

/// Every metric of the stage.
pub(crate) const METRICS: &[Metric] = &[
    RECEIVED,
    REPEATS,
    PUBLISHED,
    ACKNOWLEDGED,
    REFUSED,
    FINALS,
    SETTLEMENTS,
    DEAD_LETTERED,
    ABANDONED,
    LEFT_TOTAL,
    PENDING,
    IN_FLIGHT,
    KEYS_TOO_LONG,
    MEMORY,
    LINKS_NOW,
    WAITING_NOW,
    PRESENT,
    DOWN,
    ACCEPTED,
    FOUND,
    RENEWED,
    LOCKS_LOST,
    REPLIED,
    NOT_REPLIED,
    REPLY_TIME,
    ACCEPT_TIME,
    AGE,
    ACK_TIME,
    SETTLE_TIME,
    RENEWAL_LATE,
    DEAD_LETTERS,
    DEAD_LETTERS_TOLD,
    DEAD_LETTER_PEEKS,
    CONNECTIONS,
    CONNECTS,
    MANAGEMENT_FAILURES,
    TOKEN_FAILURES,
    CONTROLLED,
];

/// Handles, made once.
pub(super) struct Metrics {
    pub(super) received: Counter,
    pub(super) repeats: Counter,
    pub(super) published: Counter,
    pub(super) acknowledged: Counter,
    pub(super) refused: Counter,
    pub(super) pending: Gauge,
    pub(super) in_flight: Gauge,
    pub(super) keys_too_long: Counter,
    pub(super) memory: Gauge,
    pub(super) present: Gauge,
    pub(super) down: Gauge,
    pub(super) locks_lost: Counter,
    pub(super) renewed: Counter,
    pub(super) accept_time: Histogram,
    pub(super) age: Histogram,
    pub(super) ack_time: Histogram,
    pub(super) settle_time: Histogram,
    pub(super) renewal_late: Histogram,
}

/// An open connection; it is counted out when this is dropped.
pub(super) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl std::fmt::Debug for OpenConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenConnection")
    }
}

/// Why a message was left without being settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The device is gone.
    Disconnected,
    /// The lock was lost.
    LockLost,
    /// The link was lost.
    Lost,
    /// The gateway stops.
    Stopped,
    /// Messages in hand take all the memory that they may.
    NoRoom,
    /// A failure of our own.
    Failed,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    pub(super) fn new() -> Self {
        Self {
            received: counter(&RECEIVED),
            repeats: counter(&REPEATS),
            published: counter(&PUBLISHED),
            acknowledged: counter(&ACKNOWLEDGED),
            refused: counter(&REFUSED),
            pending: gauge(&PENDING),
            in_flight: gauge(&IN_FLIGHT),
            keys_too_long: counter(&KEYS_TOO_LONG),
            memory: gauge(&MEMORY),
            present: gauge(&PRESENT),
            down: gauge(&DOWN),
            locks_lost: counter(&LOCKS_LOST),
            renewed: counter_with(&RENEWED, "result", "renewed"),
            accept_time: histogram(&ACCEPT_TIME),
            age: histogram(&AGE),
            ack_time: histogram(&ACK_TIME),
            settle_time: histogram(&SETTLE_TIME),
            renewal_late: histogram(&RENEWAL_LATE),
        }
    }

    /// A command came to its end with one of the declared statuses.
    pub(super) fn ended(status: &'static str) {
        counter_with(&FINALS, "status", status).increment(1);
    }

    pub(super) fn completed() {
        counter_with(&SETTLEMENTS, "disposition", "complete").increment(1);
    }

    /// For one of the declared reasons.
    pub(super) fn abandoned(reason: &'static str) {
        counter_with(&SETTLEMENTS, "disposition", "abandon").increment(1);
        counter_with(&ABANDONED, "reason", reason).increment(1);
    }

    /// With the reason that Service Bus is told.
    pub(super) fn dead_lettered(reason: &str) {
        counter_with(&SETTLEMENTS, "disposition", "dead-letter").increment(1);
        if let Some(word) = REASONS.iter().find(|word| reason.strip_prefix("penstock-") == Some(word)) {
            counter_with(&DEAD_LETTERED, "reason", word).increment(1);
        }
    }

    pub(super) fn left(reason: Left) {
        counter_with(&LEFT_TOTAL, "reason", reason.name()).increment(1);
    }

    /// A reply was taken after this long.
    pub(super) fn replied(took: Duration) {
        counter(&REPLIED).increment(1);
        histogram(&REPLY_TIME).record(took);
    }

    pub(super) fn not_replied(failure: Failure) {
        counter_with(&NOT_REPLIED, "reason", failure.name()).increment(1);
    }

    pub(super) fn accepted(refusal: Option<Refusal>) {
        counter_with(&ACCEPTED, "result", refusal.map_or("accepted", Refusal::name)).increment(1);
    }

    /// The gateway carried one of the declared operations out, or rejected it.
    pub(super) fn controlled(operation: &'static str, status: &'static str) {
        counter_with_two(&CONTROLLED, [("operation", operation), ("status", status)]).increment(1);
    }

    /// A receiver that waited for any session ended with one of the declared results.
    pub(super) fn found(result: &'static str) {
        counter_with(&FOUND, "result", result).increment(1);
    }

    pub(super) fn not_renewed(lock_lost: bool) {
        counter_with(&RENEWED, "result", if lock_lost { "lock-lost" } else { "failed" }).increment(1);
    }

    /// A command came to its end with one of the declared statuses, found in a dead-letter queue.
    pub(super) fn dead_letter_told(status: &'static str) {
        Self::ended(status);
        counter_with(&DEAD_LETTERS_TOLD, "status", status).increment(1);
    }

    /// A connection is open.
    pub(super) fn connection() -> OpenConnection {
        let open = gauge(&CONNECTIONS);
        open.increment(1.0);
        OpenConnection(open)
    }

    /// A connection was asked for; it is open, or failed with the word of an error.
    pub(super) fn connected(result: Result<(), &'static str>) {
        counter_with(&CONNECTS, "result", result.err().unwrap_or("done")).increment(1);
    }

    /// A request to `$management` failed, with the word of an error.
    pub(super) fn management_failed(word: &'static str) {
        counter_with(&MANAGEMENT_FAILURES, "reason", word).increment(1);
    }

    /// A token was not taken, with the word of an error.
    pub(super) fn token_failed(word: &'static str) {
        counter_with(&TOKEN_FAILURES, "reason", word).increment(1);
    }

    /// A page of a dead-letter queue was asked for, with one of the declared results.
    pub(super) fn peeked(result: &'static str) {
        counter_with(&DEAD_LETTER_PEEKS, "result", result).increment(1);
    }

    /// What is in the dead-letter queues, in the order of the declared states.
    pub(super) fn dead_letters(found: [u64; LETTERS.len()]) {
        for (state, count) in LETTERS.iter().zip(found) {
            gauge_with(&DEAD_LETTERS, "state", state)
                .set(lossy(usize::try_from(count).unwrap_or(usize::MAX)));
        }
    }

    /// The links and devices of all entities together.
    pub(super) fn counts(&self, all: &Counts) {
        let links = [all.linked, all.accepting, all.closing, all.asking, all.parked];
        for (state, count) in LINKS.iter().zip(links) {
            gauge_with(&LINKS_NOW, "state", state).set(lossy(count));
        }
        for (state, count) in WAITING.iter().zip([all.ready, all.pausing, all.passive]) {
            gauge_with(&WAITING_NOW, "state", state).set(lossy(count));
        }
    }
}

impl Left {
    const fn name(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::LockLost => "lock-lost",
            Self::Lost => "lost",
            Self::Stopped => "stopped",
            Self::NoRoom => "no-room",
            Self::Failed => "failed",
        }
    }
}

impl Refusal {
    const fn name(self) -> &'static str {
        match self {
            Self::Locked => "locked",
            Self::Busy(_) => "busy",
            Self::Quota => "quota",
            Self::Lost => "lost",
            Self::TimedOut => "timed-out",
            Self::Forbidden => "forbidden",
            Self::Other => "other",
        }
    }
}

/// A gauge is a float; exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; exact up to 2^53")]
pub(super) const fn lossy(count: usize) -> f64 {
    count as f64
}
