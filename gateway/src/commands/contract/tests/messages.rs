use super::{ENQUEUED_MS, property, received};
use crate::commands::contract::{Command, Completion, Defaults, Identity, Poison};
use crate::commands::message::{Body, Received, Value};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn read(received: &Received) -> Result<Command, Box<Poison>> {
    let defaults = Defaults { completion: Completion::Delivered, tenant: Some("acme") };
    Command::read(received, "commands", &defaults)
}

fn command(change: impl FnOnce(&mut Received)) -> Command {
    let mut received = received();
    change(&mut received);
    read(&received).expect("a command")
}

/// What the device gets, in the words of this test: everything but the payload, in a line.
fn told(command: &Command, redelivered: bool, now_ms: u64) -> String {
    command.message(redelivered, now_ms).with(|message| {
        let user: Vec<_> = message.user.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let correlation = String::from_utf8_lossy(message.correlation);
        let (name, kind) = (message.name.unwrap_or("-"), message.content_type.unwrap_or("-"));
        let expiry = message.expiry_seconds.map_or("-".to_owned(), |seconds| seconds.to_string());
        format!("{} {name} {kind} {correlation} {expiry} {}", message.id, user.join(","))
    })
}

/// What a message is refused for.
fn check_poison(change: impl FnOnce(&mut Received), expected: &str) {
    let mut received = received();
    change(&mut received);
    let poison = read(&received).expect_err(expected);
    assert!(poison.why.contains(expected), "{} is not {expected}", poison.why);
    assert_eq!(poison.about.identity.sequence, 42);
}

#[test]
fn a_plain_message_is_a_command() {
    let command = command(|_| {});
    let about = &command.about;
    assert_eq!((&*about.device, &*about.id, &*about.identity.entity), ("press-7", "c-1", "commands"));
    assert_eq!((command.completion, command.deadline_ms), (Completion::Delivered, None));
    assert_eq!(about.tenant.as_deref(), Some("acme"));
    assert_eq!(told(&command, false, ENQUEUED_MS), "c-1 - - c-1 - completion=delivered");
    assert_eq!(command.message(false, 0).with(|message| message.payload.to_vec()), b"{}");
}

#[test]
fn a_rich_message_goes_to_the_device_with_everything() {
    let command = command(|message| {
        message.message_id = Some("order 5/7".to_owned());
        message.subject = Some("open".to_owned());
        message.content_type = Some("application/json".to_owned());
        message.body = Body::Text("on".to_owned());
        message.expires_ms = Some(ENQUEUED_MS + 3_600_000);
        message.properties = vec![
            property("unit", "C"),
            ("penstock-deadline".to_owned(), Value::Integer(90)),
            property("penstock-completion", "answered"),
            property("penstock-origin", "site-7/00c0ffee12345678/3/2/1041"),
            property("tracestate", "k=v"),
            property("traceparent", TRACEPARENT),
            ("n".to_owned(), Value::Integer(-7)),
            ("ok".to_owned(), Value::Bool(true)),
            ("ratio".to_owned(), Value::Double(0.5)),
            ("at".to_owned(), Value::Time(ENQUEUED_MS)),
            ("raw".to_owned(), Value::Binary(b"AB".to_vec())),
        ];
    });
    assert_eq!(
        told(&command, true, ENQUEUED_MS + 500),
        format!(
            "order%205%2F7 open application/json order%205%2F7 90 redelivered=true,completion=answered,\
             deadline=2026-09-21T14:14:50Z,origin=site-7/00c0ffee12345678/3/2/1041,traceparent={TRACEPARENT},\
             tracestate=k=v,unit=C,n=-7,ok=true,ratio=0.5,at=2026-09-21T14:13:20Z,raw=QUI="
        )
    );
    assert_eq!(command.message(false, 0).with(|message| message.payload.to_vec()), b"on");
    assert_eq!(command.deadline_ms, Some(ENQUEUED_MS + 90_000));
}

#[test]
fn a_message_without_an_id_is_known_by_its_sequence_number() {
    for id in [None, Some(String::new())] {
        assert_eq!(&*command(|message| message.message_id = id).about.id, "42");
    }
}

#[test]
fn a_command_expires_with_the_first_of_deadline_and_time_to_live() {
    let check = |deadline: Option<i64>, ttl_ms: Option<u64>, at_ms: u64, expected: (bool, Option<u32>)| {
        let command = command(|message| {
            message.expires_ms = ttl_ms.map(|ttl| ENQUEUED_MS + ttl);
            let deadline = deadline.map(|seconds| ("penstock-deadline".to_owned(), Value::Integer(seconds)));
            message.properties.extend(deadline);
        });
        let now_ms = ENQUEUED_MS + at_ms;
        let expiry = command.message(false, now_ms).with(|message| message.expiry_seconds);
        assert_eq!((command.is_expired(now_ms), expiry), expected);
    };
    check(None, None, 1 << 40, (false, None));
    check(Some(10), None, 9_999, (false, Some(1)));
    check(Some(10), None, 10_000, (true, Some(0)));
    check(Some(10), Some(5_000), 1, (false, Some(5)));
    check(Some(5), Some(10_000), 5_000, (true, Some(0)));
    check(None, Some(u64::MAX - ENQUEUED_MS), 0, (false, Some(u32::MAX)));
    // A clock that was never set says nothing.
    let late = command(|message| message.expires_ms = Some(1));
    assert!(late.is_expired(ENQUEUED_MS) && !late.is_expired(86_400_000));
    assert_eq!(late.message(false, 86_400_000).with(|message| message.expiry_seconds), None);
}

#[test]
fn trace_context_is_taken_where_azure_puts_it_and_never_harms() {
    let check = |properties: &[(&str, &str)], expected: (Option<&str>, Option<&str>)| {
        let properties = properties.iter().map(|(name, value)| property(name, value)).collect();
        let command = command(|message| message.properties = properties);
        let about = &command.about;
        assert_eq!((about.traceparent.as_deref(), about.tracestate.as_deref()), expected);
        assert!(!told(&command, false, 0).contains("Diagnostic-Id"));
    };
    let other = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b8-01";
    check(&[("traceparent", TRACEPARENT), ("tracestate", "a=b")], (Some(TRACEPARENT), Some("a=b")));
    check(&[("Diagnostic-Id", TRACEPARENT)], (Some(TRACEPARENT), None));
    check(&[("Diagnostic-Id", other), ("traceparent", TRACEPARENT)], (Some(TRACEPARENT), None));
    check(&[("Diagnostic-Id", other), ("traceparent", "junk"), ("tracestate", "a=b")], (Some(other), None));
    check(&[("Diagnostic-Id", "|old.style.")], (None, None));
    check(&[("tracestate", "a=b")], (None, None));
}

#[test]
fn senders_do_not_speak_for_the_gateway() {
    let command = command(|message| {
        message.properties = ["command-id", "name", "redelivered", "DeadLetterReason"]
            .iter()
            .map(|name| property(name, "true"))
            .collect();
        message.properties.push(property("deadline", "never"));
    });
    // What may repeat stands behind the gateway's own, of which the device looks at the first.
    assert_eq!(told(&command, false, 0), "c-1 - - c-1 - completion=delivered,deadline=never");
}

#[test]
fn what_is_no_command_is_poison_and_says_why() {
    check_poison(|message| message.session_id = None, "no session id");
    check_poison(|message| message.session_id = Some(String::new()), "no session id");
    check_poison(|message| message.body = Body::Other("a list"), "a list");
    check_poison(|message| message.message_id = Some("ö".repeat(128)), "768 bytes");
    check_poison(|message| message.subject = Some("a\0".to_owned()), "subject");
    check_poison(|message| message.subject = Some("a".repeat(257)), "subject");
    check_poison(|message| message.content_type = Some("a".repeat(257)), "content type");
    let with = |name: &str, value: Value| {
        let property = (name.to_owned(), value);
        move |message: &mut Received| message.properties.push(property)
    };
    check_poison(with("penstock-completion", Value::Text("done".to_owned())), "delivered or answered");
    check_poison(with("penstock-completion", Value::Bool(true)), "delivered or answered");
    check_poison(with("penstock-deadline", Value::Text("30".to_owned())), "RFC 3339");
    check_poison(with("penstock-deadline", Value::Integer(0)), "RFC 3339");
    check_poison(with("penstock-origin", Value::Integer(1)), "penstock-origin");
    check_poison(with("penstock-deadlin", Value::Integer(1)), "penstock-deadlin is no property");
    check_poison(with("Penstock-Deadline", Value::Integer(1)), "Penstock-Deadline is no property");
    check_poison(with("map", Value::Other("map")), "holds a map");
    check_poison(with("large", Value::Text("x".repeat(8 << 10))), "8197 bytes");
    check_poison(
        |message| message.properties = (0..33).map(|n| property(&n.to_string(), "")).collect(),
        "more than 32",
    );
}

#[test]
fn the_longest_id_of_service_bus_fits() {
    let command = command(|message| message.message_id = Some("/".repeat(128)));
    assert_eq!(command.about.id.len(), 384);
}

#[test]
fn of_poison_everything_is_told_that_can_be() {
    let mut message = received();
    message.message_id = Some("ö".repeat(128));
    message.subject = Some("x".repeat(1000));
    message.properties = vec![property("penstock-bad", ""), property("traceparent", TRACEPARENT)];
    let poison = read(&message).expect_err("poison");
    assert_eq!((&*poison.about.id, poison.about.traceparent.as_deref()), ("42", Some(TRACEPARENT)));
    assert_eq!(poison.about.name.as_deref().map(str::len), Some(512));
}

#[test]
fn an_identity_is_all_four_and_entities_are_named_in_any_case() {
    let of = |change: &dyn Fn(&mut Received), entity: &str| {
        let mut received = received();
        change(&mut received);
        Identity::of(&received, entity)
    };
    let known = of(&|_| {}, "commands");
    assert_eq!(known, of(&|received| received.delivery_count = 3, "Commands"));
    assert_ne!(known, of(&|_| {}, "commands-2"));
    assert_ne!(known, of(&|received| received.sequence = 43, "commands"));
    assert_ne!(known, of(&|received| received.enqueued_ms += 1, "commands"));
    assert_ne!(known, of(&|received| received.message_id = Some("C-1".to_owned()), "commands"));
}
