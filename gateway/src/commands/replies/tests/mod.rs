//! Where replies may go, how they are tried, and what is remembered of entities.

mod sending;

pub(crate) use sending::reply;

use std::time::Duration;

use super::failure::{Failure, Next, TRIES, Tried};
use super::rules::{Pattern, Rules};
use crate::commands::amqp::{Cause, LinkError};

fn rules(to: &[&str]) -> Rules {
    let to = to.iter().map(|name| name.parse().expect("a pattern")).collect();
    Rules::new(
        "contoso.servicebus.windows.net",
        to,
        vec!["commands".into(), "jobs/Subscriptions/edge".into()],
    )
}

fn check(reply_to: &str, expected: Result<&str, Failure>) {
    let found = rules(&["replies", "desk-*", "a/b"]).entity(reply_to, None);
    assert_eq!(found.as_deref().map_err(|failure| *failure), expected, "{reply_to:?}");
}

#[test]
fn replies_go_to_what_is_allowed_in_the_same_namespace() {
    for same in [
        "replies",
        "/replies",
        "Replies",
        "replies/",
        "sb://contoso.servicebus.windows.net/replies",
        "sb://CONTOSO.servicebus.windows.net:5671/replies/",
        "amqps://contoso.servicebus.windows.net/replies",
        "https://contoso.servicebus.windows.net/replies",
    ] {
        check(same, Ok("replies"));
    }
    check("desk-7", Ok("desk-7"));
    check("desk-", Ok("desk-"));
    check("a/b", Ok("a/b"));
}

#[test]
fn a_sender_of_commands_cannot_send_elsewhere_by_the_gateway() {
    for (reply_to, expected) in [
        ("answers", Failure::NotAllowed),
        ("desk", Failure::NotAllowed),
        ("xdesk-7", Failure::NotAllowed),
        ("sb://fabrikam.servicebus.windows.net/replies", Failure::Foreign),
        ("sb://contoso.servicebus.windows.net.evil.example/replies", Failure::Foreign),
        ("sb://replies", Failure::Foreign),
        ("file:///replies", Failure::Malformed),
        ("sb://contoso.servicebus.windows.net/", Failure::Malformed),
        ("", Failure::Malformed),
        ("/", Failure::Malformed),
        ("//replies", Failure::Malformed),
        ("a//b", Failure::Malformed),
        ("replies/$DeadLetterQueue", Failure::Malformed),
        ("$management", Failure::Malformed),
        ("replies?x=1", Failure::Malformed),
        ("repl%69es", Failure::Malformed),
        ("desk-\u{0}", Failure::Malformed),
        ("desk-ö", Failure::Malformed),
    ] {
        check(reply_to, Err(expected));
    }
    check(&format!("desk-{}", "x".repeat(255)), Ok(&format!("desk-{}", "x".repeat(255))));
    check(&format!("desk-{}", "x".repeat(256)), Err(Failure::Malformed));
}

#[test]
fn a_reply_never_becomes_a_command() {
    let all = rules(&["*"]);
    assert_eq!(all.entity("Commands", None), Err(Failure::NotAllowed));
    assert_eq!(all.entity("jobs", None), Err(Failure::NotAllowed), "a topic that commands come through");
    assert_eq!(all.entity("other", None).as_deref(), Ok("other"));
}

#[test]
fn sessions_have_names_that_service_bus_takes() {
    let session = |name: &str| rules(&["replies"]).entity("replies", Some(name)).map(drop);
    assert_eq!(session(&"ö".repeat(128)), Ok(()));
    assert_eq!(session(&"x".repeat(129)), Err(Failure::Malformed));
    // Texts are cut there: this one may have been longer.
    assert_eq!(session(&"\u{1F600}".repeat(128)), Err(Failure::Malformed));
}

#[test]
fn patterns_have_one_star_at_most() {
    for bad in ["", "*a*", "a b", "a/", "/a", "sb://x/y", "$default", "ä"] {
        assert!(bad.parse::<Pattern>().is_err(), "{bad:?}");
    }
    let pattern: Pattern = "Site-*-Replies".parse().expect("a pattern");
    assert!(pattern.matches("site-7-replies") && pattern.matches("SITE--REPLIES"));
    assert!(!pattern.matches("site-replies"), "the star stands between both parts");
}

fn cause(condition: &str) -> Cause {
    Cause { condition: condition.to_owned(), text: String::new(), retry_after: None }
}

#[test]
fn only_what_may_pass_is_tried_again() {
    const GIVE_UP: Next = Next::GiveUp { pause: None };
    let pause = |seconds| Next::GiveUp { pause: Some(Duration::from_secs(seconds)) };
    let again = |after_ms| Next::Again { after: Duration::from_millis(after_ms) };
    let lost = || Tried::Message(LinkError::Lost(cause("amqp:link:detach-forced")));
    let busy = || Tried::Message(LinkError::Busy(cause("com.microsoft:server-busy")));
    for (tried, tries, expected) in [
        (lost(), 1, again(0)),
        (lost(), 2, again(200)),
        (lost(), TRIES, pause(1)),
        (Tried::Gone, 1, again(0)),
        (Tried::TooLong, 1, pause(10)),
        (busy(), 1, again(10_000)),
        (busy(), TRIES, pause(10)),
        (Tried::Link(LinkError::NotFound(cause(""))), 1, pause(30)),
        (Tried::Link(LinkError::Refused(cause(""))), 1, pause(30)),
        (Tried::Message(LinkError::Refused(cause("amqp:not-allowed"))), 1, GIVE_UP),
        (Tried::Message(LinkError::Other(cause(""))), 1, GIVE_UP),
        (Tried::Message(LinkError::Quota(cause(""))), 1, pause(30)),
        (Tried::Link(LinkError::Other(cause(""))), 1, pause(10)),
    ] {
        assert_eq!(tried.next(tries), expected, "{tried:?} after {tries}");
    }
}
