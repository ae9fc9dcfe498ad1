//! Why Event Grid does not get an event: the words that its letter in lane `dead` has.

use super::disposition::{Cause, Words};
use super::envelope::{EVENT_BYTES_MAX, Unusable};
use crate::alerts::burial::Reason;

const MALFORMED: &str = "malformed";
/// Every reason in the metrics.
pub(super) const REASONS: &[&str] = &[MALFORMED, Cause::TooLarge.name(), Cause::Refused.name()];

// === impl Reason ===

impl Reason {
    /// It was never sent.
    pub(super) fn of_unusable(why: &Unusable) -> Self {
        let (name, text) = match why {
            Unusable::Malformed(reason) => (MALFORMED, format!("it is no CloudEvent: {reason}")),
            Unusable::TooLarge(bytes) => (
                Cause::TooLarge.name(),
                format!("the event has {bytes} bytes, and the service takes {EVENT_BYTES_MAX}"),
            ),
        };
        Self { name, code: String::new(), text }
    }

    /// The service refused it.
    pub(super) fn of_refusal(cause: Cause, said: String, body: &[u8]) -> Self {
        Self { name: cause.name(), code: Words::of(body).code, text: said }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_service_said() {
        let body =
            br#"{"error":{"code":"BadRequest","message":"m","details":[{"code":"InputJsonInvalid"}]}}"#;
        let reason = Reason::of_refusal(Cause::Refused, "it answered 400".to_owned(), body);
        assert_eq!((reason.name, reason.code.as_str()), ("refused", "InputJsonInvalid"));
    }

    #[test]
    fn what_is_never_sent_says_why() {
        let check = |why, name: &str, text: &str| {
            let reason = Reason::of_unusable(&why);
            assert!(REASONS.contains(&reason.name));
            assert_eq!((reason.name, reason.text.as_str()), (name, text));
        };
        check(Unusable::Malformed("id is empty".to_owned()), "malformed", "it is no CloudEvent: id is empty");
        let text = "the event has 2000000 bytes, and the service takes 1048574";
        check(Unusable::TooLarge(2_000_000), "too-large", text);
    }
}
