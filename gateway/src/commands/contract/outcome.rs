//! What became of a command: the status that the cloud is told, and what becomes of the message.

use super::answer::Answer;
use crate::commands::message::Disposition;

/// What became of a command, for good; or, as [`Self::delivered`] where an answer is due, so far.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Outcome {
    pub(crate) status: Status,
    /// Why, if the gateway has a word for it.
    pub(crate) reason: Option<Reason>,
    /// The device's number, or the reason code of its PUBACK.
    pub(crate) code: Option<i64>,
    /// The device's detail, as JSON.
    pub(crate) detail: Option<Box<str>>,
    /// How long the device's detail was, in bytes, if it was left out.
    pub(crate) detail_bytes: Option<u32>,
    /// The gateway's own sentence, or that of whoever dead-lettered the message.
    pub(crate) note: Option<Box<str>>,
    /// The reason in the dead-letter queue, if somebody else than a gateway moved the message there.
    pub(crate) dead_letter: Option<Box<str>>,
}

/// The status of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Status {
    /// The device has it. Final where nothing more is asked for.
    Delivered,
    Succeeded,
    Failed,
    Rejected,
    /// It was not delivered in time.
    Expired,
}

/// Why a command came to its end. The word is the label of a counter; with `penstock-` before it the reason of a dead
/// letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// No answer by the deadline.
    NoAnswer,
    /// The device refused it in its PUBACK, for good.
    Refused,
    /// It is no command.
    Malformed,
    /// It is larger than what the device, the gateway or MQTT takes.
    TooLarge,
    /// Its deadline or time to live passed before it was delivered.
    Expired,
    /// Service Bus, or somebody else than a gateway, gave its message up.
    DeadLettered,
}

/// Longest sentence of a dead letter, in bytes.
const NOTE_BYTES_MAX: usize = 512;
/// Stands before the word of a reason in a dead letter.
pub(super) const PREFIX: &str = "penstock-";
/// The reason of Service Bus for a message whose time to live is over ("Service Bus dead-letter queues").
const TTL_EXPIRED: &str = "TTLExpiredException";

// === impl Outcome ===

impl Outcome {
    const fn new(status: Status) -> Self {
        Self {
            status,
            reason: None,
            code: None,
            detail: None,
            detail_bytes: None,
            note: None,
            dead_letter: None,
        }
    }

    fn because(status: Status, reason: Reason, note: &str) -> Self {
        let note = note.get(..note.floor_char_boundary(NOTE_BYTES_MAX)).map(Into::into);
        Self { reason: Some(reason), note, ..Self::new(status) }
    }

    /// The device acknowledged it, and that is all that was asked for.
    pub(crate) const fn delivered() -> Self {
        Self::new(Status::Delivered)
    }

    pub(super) fn answered(answer: &Answer) -> Self {
        let Answer { status, code, detail, detail_bytes } = answer.clone();
        Self { code, detail, detail_bytes, ..Self::new(status.into()) }
    }

    /// The device did not answer in time.
    pub(crate) fn no_answer() -> Self {
        Self::because(Status::Failed, Reason::NoAnswer, "the device has not answered by the deadline")
    }

    /// The device refused it with this reason code of PUBACK.
    pub(crate) fn refused(code: u8) -> Self {
        let note = format!("the device refused it with reason code 0x{code:02X}");
        Self { code: Some(code.into()), ..Self::because(Status::Rejected, Reason::Refused, &note) }
    }

    /// The message is no command.
    pub(crate) fn malformed(why: &str) -> Self {
        Self::because(Status::Rejected, Reason::Malformed, why)
    }

    /// It does not fit.
    pub(crate) fn too_large(bytes: usize, most: usize) -> Self {
        let note = format!("{bytes} bytes, where the device takes at most {most}");
        Self::because(Status::Rejected, Reason::TooLarge, &note)
    }

    /// It is too late to deliver it.
    pub(crate) fn expired() -> Self {
        Self::because(
            Status::Expired,
            Reason::Expired,
            "its deadline or time to live passed before it was delivered",
        )
    }

    /// Its message is in the dead-letter queue with this reason and description, and no gateway put it there.
    pub(crate) fn dead_lettered(reason: Option<&str>, description: Option<&str>) -> Self {
        let (status, why) = match reason {
            Some(TTL_EXPIRED) => (Status::Expired, Reason::Expired),
            _ => (Status::Failed, Reason::DeadLettered),
        };
        let told = Self::because(status, why, description.unwrap_or_default());
        let note = told.note.filter(|note| !note.is_empty());
        Self { note, reason: Some(why), dead_letter: reason.map(Into::into), ..Self::new(status) }
    }

    /// What becomes of the message.
    pub(crate) fn disposition(&self) -> Disposition {
        match self.reason {
            Some(reason @ (Reason::Refused | Reason::Malformed | Reason::TooLarge | Reason::Expired)) => {
                let description = self.note.as_deref().unwrap_or_default().to_owned();
                Disposition::DeadLetter { reason: format!("{PREFIX}{}", reason.word()), description }
            }
            _ => Disposition::Complete,
        }
    }
}

// === impl Status ===

impl Status {
    /// Its word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
        }
    }

    pub(super) const fn severity(self) -> &'static str {
        match self {
            Self::Delivered | Self::Succeeded => "info",
            Self::Failed | Self::Rejected | Self::Expired => "warning",
        }
    }
}

// === impl Reason ===

impl Reason {
    /// Its word.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::NoAnswer => "no-answer",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
            Self::Expired => "expired",
            Self::DeadLettered => "dead-lettered",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outcome: &Outcome, status: &str, disposition: Option<&str>) {
        let found = match outcome.disposition() {
            Disposition::Complete => None,
            Disposition::DeadLetter { reason, description } => {
                assert!(!description.is_empty());
                Some(reason)
            }
            Disposition::Abandon => panic!("an outcome is no reason to abandon"),
        };
        assert_eq!((outcome.status.word(), found.as_deref()), (status, disposition));
    }

    #[test]
    fn every_outcome_has_its_disposition() {
        check(&Outcome::delivered(), "delivered", None);
        check(&Outcome::no_answer(), "failed", None);
        check(&Outcome::refused(0x87), "rejected", Some("penstock-refused"));
        check(&Outcome::malformed("no body"), "rejected", Some("penstock-malformed"));
        check(&Outcome::too_large(9, 8), "rejected", Some("penstock-too-large"));
        check(&Outcome::expired(), "expired", Some("penstock-expired"));
        for (word, status) in [("succeeded", "succeeded"), ("failed", "failed"), ("rejected", "rejected")] {
            let answer = Answer::read(format!(r#"{{"status":"{word}"}}"#).as_bytes()).expect("an answer");
            check(&answer.outcome(), status, None);
        }
    }

    #[test]
    fn what_others_dead_lettered_has_failed_unless_its_time_was_over() {
        let check = |reason: Option<&str>, description, status, word, note: Option<&str>| {
            let outcome = Outcome::dead_lettered(reason, description);
            assert_eq!((outcome.status.word(), outcome.reason.map(Reason::word)), (status, Some(word)));
            assert_eq!((outcome.dead_letter.as_deref(), outcome.note.as_deref()), (reason, note));
        };
        check(Some("TTLExpiredException"), Some("too late"), "expired", "expired", Some("too late"));
        check(Some("MaxDeliveryCountExceeded"), Some(""), "failed", "dead-lettered", None);
        check(Some("operator"), None, "failed", "dead-lettered", None);
        check(None, None, "failed", "dead-lettered", None);
    }

    #[test]
    fn a_long_sentence_is_cut_between_characters() {
        let outcome = Outcome::malformed(&"ö".repeat(400));
        assert_eq!(outcome.note.as_deref().map(str::len), Some(512));
    }
}
