//! A connection as a client sees it, over a pipe instead of a socket.

mod client;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::client::{
    Client, KEY, KEY_NAME, Server, attach_receiver, attach_sender, message, sas, text_message,
};
use crate::amqp::{
    Detach, Disposition, ErrorInfo, Flow, Performative, Sasl, Sections, State, Terminus, Transfer, Value,
};

use crate::broker::{Broker as Hubs, Limits, Quota};
use crate::servicebus::broker::Fault;
use crate::tokens::{OAuth, Tokens};

const SESSION: &str = "com.microsoft:session-filter";

#[tokio::test]
async fn sasl_offers_what_azure_offers_and_plain_needs_the_right_key() {
    let server = Server::start();
    for (response, code) in [(format!("\0{KEY_NAME}\0{KEY}"), 0), (format!("\0{KEY_NAME}\0wrong"), 1)] {
        let mut client = server.connect();
        let offered = ["MSSBCBS", "PLAIN", "ANONYMOUS", "EXTERNAL"].map(str::to_owned).to_vec();
        assert_eq!(client.greet().await, Sasl::Mechanisms(offered));
        assert_eq!(client.sign_in("PLAIN", Some(&response)).await, Sasl::Outcome(code));
        if code != 0 {
            assert!(client.ended().await);
        }
    }
    let mut client = server.connect();
    client.greet().await;
    assert_eq!(client.sign_in("EXTERNAL", None).await, Sasl::Outcome(1));
}

#[tokio::test]
async fn a_client_that_skips_sasl_hears_what_is_spoken() {
    let mut client = Server::start().connect();
    client.write(b"AMQP\0\x01\0\0").await;
    assert_eq!(client.read_exact(8).await, b"AMQP\x03\x01\0\0");
    assert!(client.ended().await);
}

/// Expects the attach without termini, and the detach with this condition.
async fn refused(client: &mut Client, condition: &str) {
    let attach = client.attach().await;
    assert!(attach.source.is_none() && attach.target.is_none(), "termini of a link that is refused are null");
    let detach = client.detach().await;
    assert!(detach.closed);
    assert_eq!(detach.error.map(|error| error.condition).as_deref(), Some(condition));
}

#[tokio::test]
async fn links_need_a_token_for_their_entity() {
    let server = Server::start();
    let mut client = server.anonymous().await;
    client.send(0, &Performative::Attach(Box::new(attach_sender(0, "q")))).await;
    refused(&mut client, "amqp:unauthorized-access").await;
    client.send(0, &Performative::Detach(Detach { handle: 0, closed: true, error: None })).await;

    client.open_cbs().await;
    let audience = "sb://127.0.0.1:5672/Q";
    let put = [
        ("sb://127.0.0.1:5672/q", KEY_NAME, KEY, 60, 202),
        // The key, its name, the end, and what it is for.
        ("sb://127.0.0.1:5672/q", KEY_NAME, "wrong", 60, 401),
        ("sb://127.0.0.1:5672/q", "stranger", KEY, 60, 401),
        ("sb://127.0.0.1:5672/q", KEY_NAME, KEY, -60, 401),
        ("sb://127.0.0.1:5672/other", KEY_NAME, KEY, 60, 401),
        ("sb://127.0.0.1:5672/", KEY_NAME, KEY, 60, 202),
    ];
    for (resource, name, key, life, status) in put.into_iter().rev() {
        let answered = client.put_token(audience, &sas(resource, name, key, life)).await;
        assert_eq!(answered, status, "{resource} {name} {key} {life}");
    }
    assert_eq!(client.put_token(audience, "SharedAccessSignature junk").await, 401);

    client.send(0, &Performative::Attach(Box::new(attach_sender(0, "amqps://127.0.0.1:5672/q")))).await;
    let attach = client.attach().await;
    assert!(attach.target.is_some());
    assert_eq!(client.flow().await.credit, Some(1_000));
    client.send(0, &Performative::Attach(Box::new(attach_sender(9, "plain")))).await;
    refused(&mut client, "amqp:unauthorized-access").await;
}

#[tokio::test]
async fn tokens_of_the_endpoints_are_taken_if_they_are_for_service_bus() {
    let folder = tempfile::tempdir().unwrap();
    let limits =
        Limits { batch_bytes_max: 1, gzip: false, quota: Quota::default(), quota_delay_max: Duration::ZERO };
    let hubs = Arc::new(Hubs::open(folder.path(), &[], limits).unwrap());
    let tokens = Arc::new(Tokens::open(OAuth::new(), folder.path(), hubs).unwrap());
    let server = Server::with_tokens(&tokens);
    let mut client = server.anonymous().await;
    client.open_cbs().await;
    let audience = "amqps://h/q";
    for (resource, status) in [
        ("https://servicebus.azure.net", 202),
        (&*format!("https://{}", OAuth::AUDIENCE), 202),
        ("https://eventgrid.azure.net", 401),
    ] {
        let token = tokens.token(resource);
        assert_eq!(client.put_token_of("jwt", audience, &token).await, status, "{resource}");
    }
    assert_eq!(client.put_token_of("jwt", audience, "junk").await, 401);
    // Signatures come as `jwt` too, as Microsoft's Python client puts them.
    assert_eq!(client.put_token_of("jwt", audience, &sas("amqps://h/q", KEY_NAME, KEY, 60)).await, 202);
    assert_eq!(
        client.put_token_of("amqp:swt", audience, &tokens.token("https://servicebus.azure.net")).await,
        401
    );
    client.sender(0, "q").await;

    let token = tokens.token("https://servicebus.azure.net");
    tokens.revoke_all();
    assert!(client.ended().await);
    let mut client = server.anonymous().await;
    client.open_cbs().await;
    assert_eq!(client.put_token_of("jwt", audience, &token).await, 401);
}

#[tokio::test]
async fn a_token_that_ends_takes_its_links_along() {
    let server = Server::start();
    server.order(Fault::TokenLifeMax { ms: Some(300) });
    let mut client = server.anonymous().await;
    client.open_cbs().await;
    let audience = "sb://h/plain";
    assert_eq!(client.put_token(audience, &sas(audience, KEY_NAME, KEY, 60)).await, 202);
    client.send(0, &Performative::Attach(Box::new(attach_sender(0, "plain")))).await;
    client.attach().await;
    client.flow().await;
    let detach = client.detach().await;
    let error = detach.error.unwrap();
    assert_eq!((detach.handle, error.condition.as_str()), (0, "amqp:unauthorized-access"));
}

#[tokio::test]
async fn a_session_is_received_in_order_and_settled_with_an_echo() {
    let server = Server::start();
    let mut client = server.signed_in().await;
    client.sender(0, "q").await;
    for number in 0..3 {
        let payload = text_message("dev-1", &format!("m{number}"));
        assert_eq!(client.publish(0, number, 0, &payload).await, State::Accepted);
    }
    let filter = vec![(Value::symbol(SESSION), Value::Null)];
    let mut attach = attach_receiver(1, "q", filter);
    attach.properties.push((Value::symbol("com.microsoft:timeout"), Value::Uint(5_000)));
    client.send(0, &Performative::Attach(Box::new(attach))).await;
    let attach = client.attach().await;
    let found = attach.source.as_ref().and_then(|source| source.filter(SESSION)).cloned();
    assert_eq!(found, Some(Value::string("dev-1")));
    assert_eq!(attach.initial_delivery_count, Some(0));
    let Some(&Value::Long(ticks)) = attach.property("com.microsoft:locked-until-utc") else {
        panic!("no ticks")
    };
    assert!(ticks > 638_000_000_000_000_000, "{ticks} are not ticks of this century");

    client.credit(1, 0, 2, false).await;
    let states = [
        State::Accepted,
        State::Rejected(Some(ErrorInfo {
            condition: "com.microsoft:dead-letter".to_owned(),
            description: None,
            info: vec![(Value::symbol("DeadLetterReason"), Value::string("bad"))],
        })),
    ];
    for number in 0..2 {
        let (transfer, payload) = client.transfer().await;
        assert_eq!(transfer.delivery_id, Some(number));
        assert_eq!(transfer.tag.as_ref().map(Bytes::len), Some(16));
        let sections = Sections::decode(&payload).unwrap();
        assert_eq!(sections.properties.message_id, Some(Value::string(format!("m{number}"))));
        let sequence = crate::amqp::entry(&sections.annotations, "x-opt-sequence-number").cloned();
        assert_eq!(sequence, Some(Value::Long(i64::from(number) + 1)));
    }
    for (number, state) in (0..).zip(states) {
        client.settle(number, state.clone()).await;
        let Performative::Disposition(echo) = client.next().await else { panic!("not a disposition") };
        assert!(echo.settled && !echo.receiver);
        // Dead-lettering that worked comes back without an error.
        let expected = if state == State::Accepted { state } else { State::Rejected(None) };
        assert_eq!((echo.first, echo.state), (number, Some(expected)));
    }

    // Where it went, and why.
    let dead = attach_receiver(2, "q/$DeadLetterQueue", Vec::new());
    client.send(0, &Performative::Attach(Box::new(dead))).await;
    client.attach().await;
    client.credit(2, 0, 1, false).await;
    let (_transfer, payload) = client.transfer().await;
    let sections = Sections::decode(&payload).unwrap();
    assert_eq!(sections.application_property("DeadLetterReason"), Some(&Value::string("bad")));
    assert_eq!(sections.application_property("kind"), Some(&Value::string("test")));
}

#[tokio::test]
async fn a_locked_session_and_an_unknown_entity_are_refused() {
    let server = Server::start();
    let mut client = server.signed_in().await;
    let filter = || vec![(Value::symbol(SESSION), Value::string("dev-1"))];
    client.send(0, &Performative::Attach(Box::new(attach_receiver(0, "q", filter())))).await;
    assert!(client.attach().await.source.is_some());
    client.send(0, &Performative::Attach(Box::new(attach_receiver(1, "q", filter())))).await;
    refused(&mut client, "com.microsoft:session-cannot-be-locked").await;
    client.send(0, &Performative::Attach(Box::new(attach_receiver(2, "nowhere", filter())))).await;
    refused(&mut client, "amqp:not-found").await;
    client.send(0, &Performative::Attach(Box::new(attach_receiver(3, "q", Vec::new())))).await;
    refused(&mut client, "amqp:not-allowed").await;
    // The one that holds it lets go, and the lock is free at once.
    client.send(0, &Performative::Detach(Detach { handle: 0, closed: true, error: None })).await;
    assert_eq!(client.detach().await.handle, 0);
    client.send(0, &Performative::Attach(Box::new(attach_receiver(4, "q", filter())))).await;
    assert!(client.attach().await.source.is_some());
}

#[tokio::test]
async fn nobody_waits_longer_for_a_session_than_it_said() {
    let server = Server::start();
    let mut client = server.signed_in().await;
    let mut attach = attach_receiver(0, "q", vec![(Value::symbol(SESSION), Value::Null)]);
    attach.properties.push((Value::symbol("com.microsoft:timeout"), Value::Uint(100)));
    client.send(0, &Performative::Attach(Box::new(attach))).await;
    refused(&mut client, "com.microsoft:timeout").await;
}

#[tokio::test]
async fn a_large_message_crosses_in_many_frames_through_a_small_window() {
    let server = Server::start();
    let mut client = server.opened(512, 3).await;
    client.sender(0, "plain").await;
    let body: Vec<u8> = (0..10_000_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
    let payload = message(None, "large", &body);
    assert_eq!(client.publish(0, 0, 0, &payload).await, State::Accepted);

    let attach = attach_receiver(1, "plain", Vec::new());
    client.send(0, &Performative::Attach(Box::new(attach))).await;
    client.attach().await;
    client.credit(1, 0, 1, false).await;
    let mut received = Vec::new();
    for frame in 1.. {
        let (performative, part) = client.next_with_payload().await;
        let Performative::Transfer(transfer) = performative else { panic!("{performative:?}") };
        assert_eq!(transfer.delivery_id, (frame == 1).then_some(0));
        received.extend_from_slice(&part);
        if !transfer.more {
            break;
        }
        // After three frames it has to wait for a new window.
        if frame % 3 == 0 {
            assert!(client.silent().await);
            client.window(frame, 3).await;
        }
    }
    assert_eq!(Sections::decode(&received).unwrap().data().unwrap(), [Bytes::from(body)]);
}

#[tokio::test]
async fn a_batch_is_as_many_messages() {
    let server = Server::start();
    let mut client = server.signed_in().await;
    client.sender(0, "plain").await;
    let parts = ["a", "b", "c"].map(|id| Value::Binary(message(None, id, b"x").into()));
    let mut batch = Vec::new();
    for part in parts {
        Value::described(0x75, part).encode(&mut batch);
    }
    assert_eq!(client.publish(0, 0, 0x8001_3700, &batch).await, State::Accepted);
    let attach = attach_receiver(1, "plain", Vec::new());
    client.send(0, &Performative::Attach(Box::new(attach))).await;
    client.attach().await;
    client.credit(1, 0, 10, false).await;
    for id in ["a", "b", "c"] {
        let (_transfer, payload) = client.transfer().await;
        let sections = Sections::decode(&payload).unwrap();
        assert_eq!(sections.properties.message_id, Some(Value::string(id)));
    }
}

#[tokio::test]
async fn drained_credit_is_given_back() {
    let server = Server::start();
    let mut client = server.signed_in().await;
    client.sender(0, "plain").await;
    client.publish(0, 0, 0, &message(None, "only", b"x")).await;
    let attach = attach_receiver(1, "plain", Vec::new());
    client.send(0, &Performative::Attach(Box::new(attach))).await;
    client.attach().await;
    client.credit(1, 0, 10, true).await;
    client.transfer().await;
    let flow = client.flow().await;
    assert_eq!((flow.handle, flow.delivery_count, flow.credit), (Some(1), Some(10), Some(0)));
    // What comes later waits for new credit.
    client.publish(0, 1, 0, &message(None, "later", b"x")).await;
    assert!(client.silent().await);
    client.credit(1, 10, 1, false).await;
    client.transfer().await;
}

#[tokio::test]
async fn junk_is_rejected_and_a_message_without_a_session_too() {
    let server = Server::start();
    let mut client = server.signed_in().await;
    client.sender(0, "q").await;
    let conditions = [(&b"junk"[..], "amqp:decode-error"), (&*message(None, "a", b"x"), "amqp:not-allowed")];
    for (number, (payload, condition)) in (0..).zip(conditions) {
        let State::Rejected(Some(error)) = client.publish(0, number, 0, payload).await else {
            panic!("it was taken")
        };
        assert_eq!(error.condition, condition);
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_costs_the_link() {
    let server = Server::start();
    let mut client = server.signed_in().await;
    client.sender(0, "plain").await;
    let chunk = vec![0; 60_000];
    for number in 0..20 {
        let first = number == 0;
        client.send_transfer(&part(first, true), &chunk).await;
    }
    let detach = client.detach().await;
    assert_eq!(detach.error.unwrap().condition, "amqp:link:message-size-exceeded");
}

fn part(first: bool, more: bool) -> Transfer {
    Transfer {
        handle: 0,
        delivery_id: first.then_some(0),
        tag: first.then(|| Bytes::from_static(b"t")),
        format: None,
        settled: None,
        more,
        state: None,
        aborted: false,
    }
}

#[tokio::test]
async fn a_wrong_handle_ends_the_session_and_a_wrong_channel_the_connection() {
    let server = Server::start();
    let mut client = server.signed_in().await;
    client.send_transfer(&part(true, false), b"").await;
    let Performative::End(end) = client.next().await else { panic!("not an end") };
    assert_eq!(end.error.unwrap().condition, "amqp:session:unattached-handle");
    let flow = Performative::Flow(Flow {
        next_incoming_id: None,
        incoming_window: 1,
        next_outgoing_id: 0,
        outgoing_window: 1,
        handle: None,
        delivery_count: None,
        credit: None,
        available: None,
        drain: false,
        echo: false,
    });
    // The session that is ending hears nothing more.
    client.send(0, &flow).await;
    client.send(7, &flow).await;
    let Performative::Close(close) = client.next().await else { panic!("not a close") };
    assert_eq!(close.error.unwrap().condition, "amqp:not-allowed");
    assert!(client.ended().await);
}

#[tokio::test]
async fn a_frame_that_is_too_large_closes_the_connection() {
    let mut client = Server::start().signed_in().await;
    client.write(b"\0\x01\0\x01\x02\0\0\0").await;
    let Performative::Close(close) = client.next().await else { panic!("not a close") };
    assert_eq!(close.error.unwrap().condition, "amqp:connection:framing-error");
}

#[tokio::test]
async fn silence_is_broken_by_empty_frames_and_ends_the_connection_of_the_silent() {
    let server = Server::with_idle(Duration::from_millis(600));
    let mut client = server.idle_after(200).await;
    // Twice in the client's time-out at least, and the client says nothing.
    let mut beats = 0;
    let close = loop {
        match client.frame().await {
            None => beats += 1,
            Some((Performative::Close(close), _)) => break close,
            Some(other) => panic!("{other:?}"),
        }
    };
    assert!(beats >= 3, "{beats} signs of life in 600 ms");
    assert_eq!(close.error.unwrap().condition, "amqp:resource-limit-exceeded");
}

#[tokio::test]
async fn requests_about_a_session_are_answered_with_their_id() {
    let server = Server::start();
    let mut client = server.signed_in().await;
    let filter = vec![(Value::symbol(SESSION), Value::string("dev-1"))];
    client.send(0, &Performative::Attach(Box::new(attach_receiver(0, "q", filter)))).await;
    client.attach().await;
    client.open_requests("q/$management").await;
    let entries = |entries: &[(&str, Value)]| {
        Value::Map(entries.iter().map(|(name, value)| (Value::string(*name), value.clone())).collect())
    };
    let of_session = entries(&[("session-id", Value::string("dev-1"))]);

    let (status, body) = client.request("com.microsoft:renew-session-lock", of_session.clone()).await;
    assert_eq!(status, 200);
    assert!(matches!(body.entry("expiration"), Some(Value::Timestamp(1_600_000_000_000..))));

    let state = Value::Binary(Bytes::from_static(b"state"));
    let set = entries(&[("session-id", Value::string("dev-1")), ("session-state", state.clone())]);
    assert_eq!(client.request("com.microsoft:set-session-state", set).await.0, 200);
    let (status, body) = client.request("com.microsoft:get-session-state", of_session).await;
    assert_eq!((status, body.entry("session-state")), (200, Some(&state)));

    let other = entries(&[("session-id", Value::string("dev-2"))]);
    assert_eq!(client.request("com.microsoft:renew-session-lock", other).await.0, 410);
    let peek = entries(&[("from-sequence-number", Value::Long(0)), ("message-count", Value::Int(9))]);
    assert_eq!(client.request("com.microsoft:peek-message", peek).await, (204, Value::Null));
    assert_eq!(client.request("com.microsoft:unheard-of", entries(&[])).await.0, 500);
    assert_eq!(client.request("com.microsoft:renew-lock", entries(&[])).await.0, 400);
}

#[tokio::test]
async fn an_unsettled_disposition_of_a_lost_lock_is_refused() {
    let server = Server::start();
    let mut client = server.signed_in().await;
    client.sender(0, "short").await;
    client.publish(0, 0, 0, &message(None, "m", b"x")).await;
    let attach = attach_receiver(1, "short", Vec::new());
    client.send(0, &Performative::Attach(Box::new(attach))).await;
    client.attach().await;
    client.credit(1, 0, 2, false).await;
    client.transfer().await;
    // The lock runs out, and the message comes again.
    let (again, payload) = client.transfer().await;
    assert_eq!((again.delivery_id, Sections::decode(&payload).unwrap().header.delivery_count), (Some(1), 1));
    client.settle(0, State::Accepted).await;
    let Performative::Disposition(Disposition { state, .. }) = client.next().await else {
        panic!("no answer")
    };
    let Some(State::Rejected(Some(error))) = state else { panic!("{state:?}") };
    assert_eq!(error.condition, "com.microsoft:message-lock-lost");
}

#[tokio::test]
async fn a_target_is_needed() {
    let mut client = Server::start().signed_in().await;
    let mut attach = attach_sender(0, "q");
    attach.target = None;
    attach.source = Some(Terminus::source("q", Vec::new()));
    client.send(0, &Performative::Attach(Box::new(attach))).await;
    refused(&mut client, "amqp:not-implemented").await;
}

#[tokio::test]
async fn faults_are_carried_out() {
    let server = Server::start();
    let mut client = server.signed_in().await;
    let attach = attach_receiver(0, "plain", Vec::new());
    client.send(0, &Performative::Attach(Box::new(attach))).await;
    client.attach().await;
    server.order(Fault::DetachAll { condition: "amqp:link:detach-forced".to_owned() });
    let detach = client.detach().await;
    assert_eq!(detach.error.unwrap().condition, "amqp:link:detach-forced");
    server.order(Fault::CutConnections {});
    assert!(client.ended().await, "it is cut without a word");
}

#[tokio::test]
async fn a_frozen_connection_is_silent_and_stays() {
    let server = Server::start();
    let mut client = server.idle_after(40).await;
    assert!(client.frame().await.is_none(), "a sign of life");
    server.order(Fault::FreezeConnections {});
    // What was on its way comes; then nothing, though three signs of life are due.
    while !client.silent().await {
        client.discard();
    }
    client.send(0, &Performative::Close(crate::amqp::Close { error: None })).await;
    assert!(client.silent().await);
}

#[tokio::test]
async fn an_attach_that_is_held_back_can_be_taken_back() {
    let server = Server::start();
    server.order(Fault::DelayAttach { ms: 300 });
    let mut client = server.signed_in().await;
    let started = tokio::time::Instant::now();
    for handle in 0..2 {
        let attach = attach_receiver(handle, "plain", Vec::new());
        client.send(0, &Performative::Attach(Box::new(attach))).await;
    }
    client.send(0, &Performative::Detach(Detach { handle: 0, closed: true, error: None })).await;
    let attach = client.attach().await;
    assert!(attach.handle == 0 && attach.source.is_none());
    assert_eq!(client.detach().await.handle, 0);
    assert!(started.elapsed() < Duration::from_millis(300));
    let attach = client.attach().await;
    assert!(attach.handle == 1 && attach.source.is_some());
    assert!(started.elapsed() >= Duration::from_millis(290));
}

#[tokio::test]
async fn a_disposition_that_is_held_back_counts_later() {
    let server = Server::start();
    let mut client = server.signed_in().await;
    client.sender(0, "plain").await;
    client.publish(0, 0, 0, &message(None, "m", b"x")).await;
    let attach = attach_receiver(1, "plain", Vec::new());
    client.send(0, &Performative::Attach(Box::new(attach))).await;
    client.attach().await;
    client.credit(1, 0, 1, false).await;
    client.transfer().await;
    server.order(Fault::DelayDisposition { ms: 200 });
    let started = tokio::time::Instant::now();
    client.settle(0, State::Accepted).await;
    let Performative::Disposition(echo) = client.next().await else { panic!("not a disposition") };
    assert_eq!(echo.state, Some(State::Accepted));
    assert!(started.elapsed() >= Duration::from_millis(190));
}

#[tokio::test]
async fn a_receiver_that_settles_nothing_gets_everything_settled() {
    let server = Server::start();
    let mut client = server.signed_in().await;
    client.sender(0, "plain").await;
    client.publish(0, 0, 0, &message(None, "m", b"x")).await;
    let mut attach = attach_receiver(1, "plain", Vec::new());
    attach.sender_settles = crate::amqp::SettleMode::SETTLED;
    client.send(0, &Performative::Attach(Box::new(attach))).await;
    client.attach().await;
    client.credit(1, 0, 1, false).await;
    let (transfer, _payload) = client.transfer().await;
    assert_eq!(transfer.settled, Some(true));
    client.send(0, &Performative::Detach(Detach { handle: 1, closed: true, error: None })).await;
    client.detach().await;
    // It is gone with that.
    let attach = attach_receiver(2, "plain", Vec::new());
    client.send(0, &Performative::Attach(Box::new(attach))).await;
    client.attach().await;
    client.credit(2, 0, 1, false).await;
    assert!(client.silent().await);
}
