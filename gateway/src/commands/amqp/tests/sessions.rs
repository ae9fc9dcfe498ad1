//! Sessions: taken, read, settled, lost, given back.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::sim::{QUEUE, Sim, accept, receive, soon};
use crate::commands::amqp::{LinkError, SessionLink, Wish};
use crate::commands::message::{Body, Disposition, LockToken, Outgoing, Received, Value};
use crate::supervise::clock;

fn text(body: &Body) -> &str {
    match body {
        Body::Data(octets) => std::str::from_utf8(octets).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn messages_of_a_session_come_in_order_one_by_one_and_are_settled() {
    let sim = Sim::start().await;
    let namespace = sim.namespace();
    for message in ["one", "two", "three"] {
        sim.send("device-1", message).await;
    }
    sim.send("device-2", "other").await;
    let mut link = accept(&namespace, "device-1").await.unwrap();
    assert_eq!(link.session(), "device-1");
    let lock_left = link.locked_until_ms().saturating_sub(clock::unix_ms());
    assert!((50_000..=61_000).contains(&lock_left), "{lock_left}");

    let one = receive(&mut link).await.unwrap();
    assert_eq!((text(&one.body), one.delivery_count), ("one", 0));
    assert_eq!((one.message_id.as_deref(), one.session_id.as_deref()), (Some("one"), Some("device-1")));
    assert!(clock::unix_ms().abs_diff(one.enqueued_ms) < 60_000, "{}", one.enqueued_ms);
    // No other comes while this one is held, so an abandoned one is not overtaken.
    tokio::select! {
        biased;
        early = link.receive() => panic!("{early:?}"),
        () = sim.until("one is out", |view| view["locked"] == json!(1)) => {}
    }
    soon(link.settle(one.lock, &Disposition::Abandon)).await.unwrap();
    let again = receive(&mut link).await.unwrap();
    assert_eq!((text(&again.body), again.delivery_count, again.sequence), ("one", 1, one.sequence));
    assert_ne!(again.lock, one.lock);
    soon(link.settle(again.lock, &Disposition::Complete)).await.unwrap();

    let two = receive(&mut link).await.unwrap();
    assert_eq!((text(&two.body), two.delivery_count), ("two", 0));
    assert!(two.sequence > one.sequence);
    let dead = Disposition::DeadLetter {
        reason: "penstock-refused".into(),
        description: "the device said no".into(),
    };
    soon(link.settle(two.lock, &dead)).await.unwrap();
    let three = receive(&mut link).await.unwrap();
    assert_eq!(text(&three.body), "three");
    link.close().await;

    let dead = soon(namespace.peek(&format!("{QUEUE}/$DeadLetterQueue"), 0, 10)).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!((text(&dead[0].body), dead[0].sequence), ("two", two.sequence));
    let reason = ("DeadLetterReason".to_owned(), Value::Text("penstock-refused".into()));
    assert!(dead[0].properties.contains(&reason), "{:?}", dead[0].properties);

    // What was not settled when the link closed is delivered again, and that is no failed delivery.
    let mut link = accept(&namespace, "device-1").await.unwrap();
    let three = receive(&mut link).await.unwrap();
    assert_eq!((text(&three.body), three.delivery_count), ("three", 0));
}

#[tokio::test]
async fn three_hundred_refused_accepts_say_so_and_those_behind_them_work() {
    let sim = Sim::start().await;
    let namespace = sim.namespace();
    sim.send("device-1", "one").await;
    let holder = accept(&namespace, "device-1").await.unwrap();
    for round in 0..30 {
        let refused: Vec<_> = (0..10).map(|_| namespace.accept(QUEUE, Wish::Session("device-1"))).collect();
        for refused in refused {
            let error = soon(refused).await.unwrap_err();
            assert!(matches!(error, LinkError::Locked(_)), "round {round}: {error}");
        }
        let link = accept(&namespace, &format!("free-{round}")).await.unwrap();
        link.close().await;
    }
    holder.close().await;
    let mut link = accept(&namespace, "device-1").await.unwrap();
    assert_eq!(text(&receive(&mut link).await.unwrap().body), "one");
    assert_eq!((namespace.status().connections, namespace.status().links), (1, 1));
}

#[tokio::test]
async fn waiting_for_the_next_session_ends_in_time_or_with_one() {
    let sim = Sim::start().await;
    let namespace = sim.namespace();
    for _ in 0..20 {
        let wish = Wish::Next { wait: Duration::from_millis(20) };
        let error = soon(namespace.accept(QUEUE, wish)).await.unwrap_err();
        assert!(matches!(error, LinkError::TimedOut(_)), "{error}");
    }
    let wish = Wish::Next { wait: Duration::from_secs(20) };
    let (link, ()) = tokio::join!(soon(namespace.accept(QUEUE, wish)), sim.send("device-9", "one"));
    let mut link = link.unwrap();
    assert_eq!(link.session(), "device-9");
    assert_eq!(text(&receive(&mut link).await.unwrap().body), "one");
}

#[tokio::test]
async fn a_wish_that_is_dropped_gives_back_what_comes() {
    let sim = Sim::start().await;
    let namespace = sim.namespace();
    for _ in 0..10 {
        let waiting = namespace.accept(QUEUE, Wish::Next { wait: Duration::from_secs(60) });
        tokio::select! {
            biased;
            early = waiting => panic!("{early:?}"),
            () = sim.until("nobody yet", |_| true) => {}
        }
    }
    sim.send("device-1", "one").await;
    // Those that were dropped may be given the session first; they give it back.
    let mut link = loop {
        match accept(&namespace, "device-1").await {
            Ok(link) => break link,
            Err(LinkError::Locked(_)) => {}
            Err(error) => panic!("{error}"),
        }
    };
    let one = receive(&mut link).await.unwrap();
    assert_eq!((text(&one.body), one.delivery_count), ("one", 0));
    assert_eq!(namespace.status().links, 1);
}

#[tokio::test]
async fn the_end_of_a_lock_is_seen_with_and_without_a_message() {
    let sim = Sim::start_with(2.0, |_| ()).await;
    let namespace = sim.namespace();
    let mut idle = accept(&namespace, "device-1").await.unwrap();
    let error = receive(&mut idle).await.unwrap_err();
    assert!(matches!(error, LinkError::LockLost(_)), "{error}");
    assert_eq!(receive(&mut idle).await.unwrap_err(), error, "and it stays so");
    idle.close().await;

    sim.send("device-1", "one").await;
    let mut busy = accept(&namespace, "device-1").await.unwrap();
    let one = receive(&mut busy).await.unwrap();
    let error = soon(busy.lost()).await;
    assert!(matches!(error, LinkError::LockLost(_)), "{error}");
    let error = soon(busy.settle(one.lock, &Disposition::Complete)).await.unwrap_err();
    assert!(matches!(error, LinkError::LockLost(_)), "{error}");
    let mut again = accept(&namespace, "device-1").await.unwrap();
    assert_eq!(receive(&mut again).await.unwrap().delivery_count, 1);
}

#[tokio::test]
async fn a_message_that_comes_while_nobody_asks_is_kept() {
    let sim = Sim::start().await;
    let namespace = sim.namespace();
    let mut link = accept(&namespace, "device-1").await.unwrap();
    // It was asked for, and then nobody waited for it any more.
    tokio::select! {
        biased;
        early = link.receive() => panic!("{early:?}"),
        () = std::future::ready(()) => {}
    }
    sim.send("device-1", "one").await;
    tokio::select! {
        biased;
        error = link.lost() => panic!("{error}"),
        () = sim.until("it is out", |view| view["locked"] == json!(1)) => {}
    }
    assert_eq!(text(&receive(&mut link).await.unwrap().body), "one");
}

#[tokio::test]
async fn a_lock_that_is_renewed_outlives_its_end() {
    /// A machine that stands still for three seconds loses a lock that would be renewed. A lock that is not renewed
    /// is lost in every turn.
    const TURNS: usize = 6;
    let sim = Sim::start_with(3.0, |_| ()).await;
    let namespace = sim.namespace();
    for turn in 0..TURNS {
        let session = format!("device-{turn}");
        sim.send(&session, "one").await;
        let mut link = accept(&namespace, &session).await.unwrap();
        let Ok(one) = outlive(&mut link).await else { continue };
        soon(link.settle(one.lock, &Disposition::Complete)).await.unwrap();
        sim.fault(json!({ "fault": "expire-lock", "entity": QUEUE, "session": session })).await;
        let error = soon(link.renew()).await.unwrap_err();
        assert!(matches!(error, LinkError::LockLost(_)), "{error}");
        return;
    }
    panic!("no lock outlived its end");
}

/// Receives a message and renews the lock until it has lasted longer than it was given for.
async fn outlive(link: &mut SessionLink) -> Result<Received, LinkError> {
    let one = receive(link).await?;
    let first_end = link.locked_until_ms();
    while clock::unix_ms() <= first_end + 300 {
        let before = link.locked_until_ms();
        let until = soon(link.renew()).await?;
        assert!(until >= before && until == link.locked_until_ms());
        if let Ok(error) = timeout(Duration::from_millis(200), link.lost()).await {
            return Err(error);
        }
    }
    Ok(one)
}

#[tokio::test]
async fn a_settlement_is_done_when_it_returns() {
    let sim = Sim::start().await;
    let namespace = sim.namespace();
    for message in ["one", "two"] {
        sim.send("device-1", message).await;
    }
    // The service takes its time; whoever does not wait for it sees both messages.
    sim.fault(json!({ "fault": "delay-disposition", "ms": 200 })).await;
    let mut link = accept(&namespace, "device-1").await.unwrap();
    let one = receive(&mut link).await.unwrap();
    let stranger = LockToken([9; 16]);
    let error = soon(link.settle(stranger, &Disposition::Complete)).await.unwrap_err();
    assert!(matches!(error, LinkError::LockLost(_)), "{error}");
    soon(link.settle(one.lock, &Disposition::Complete)).await.unwrap();
    assert_eq!(sim.view().await["active"], json!(1));
    let two = receive(&mut link).await.unwrap();
    let dead = Disposition::DeadLetter { reason: "penstock-expired".into(), description: "late".into() };
    soon(link.settle(two.lock, &dead)).await.unwrap();
    assert_eq!(sim.view().await["active"], json!(0));
    assert!(sim.dead().await.to_string().contains("penstock-expired"));
    let error = soon(link.settle(two.lock, &dead)).await.unwrap_err();
    assert!(matches!(error, LinkError::LockLost(_)), "{error}");
}

#[tokio::test]
async fn answers_find_their_callers_however_many_gave_up() {
    let sim = Sim::start().await;
    let namespace = sim.namespace();
    let mut links = Vec::new();
    for place in 0..40 {
        let mut link = accept(&namespace, &format!("device-{place}")).await.unwrap();
        assert_eq!(soon(link.state()).await.unwrap(), None);
        soon(link.set_state(Some(link.session().to_owned().as_bytes()))).await.unwrap();
        links.push(link);
    }
    for _ in 0..5 {
        for link in &mut links {
            // The question leaves, and whoever asked it goes away.
            tokio::select! {
                biased;
                renewed = link.renew() => assert!(renewed.is_ok()),
                () = tokio::task::yield_now() => {}
            }
        }
        let asked: Vec<_> = links
            .drain(..)
            .map(|mut link| async move {
                let state = soon(link.state()).await.unwrap();
                assert_eq!(state.as_deref(), Some(link.session().as_bytes()));
                link
            })
            .collect();
        for link in asked {
            links.push(link.await);
        }
    }
    soon(links[0].set_state(None)).await.unwrap();
    assert_eq!(soon(links[0].state()).await.unwrap(), None);
}

#[tokio::test]
async fn what_is_not_there_or_not_allowed_is_told_apart() {
    let sim = Sim::start().await;
    let namespace = sim.namespace();
    let error = soon(namespace.accept("nowhere", Wish::Session("a"))).await.unwrap_err();
    assert!(matches!(error, LinkError::NotFound(_)), "{error}");
    let error = soon(namespace.accept("plain", Wish::Session("a"))).await.unwrap_err();
    assert!(matches!(error, LinkError::Refused(_)), "{error}");
    sim.fault(json!({ "fault": "busy", "operations": 1 })).await;
    let error = accept(&namespace, "device-1").await.unwrap_err();
    assert!(matches!(error, LinkError::Busy(_)), "{error}");
    assert!(error.retry_after() >= Some(Duration::from_secs(10)));
    accept(&namespace, "device-1").await.unwrap();
}

#[tokio::test]
async fn what_is_sent_arrives_with_everything() {
    let sim = Sim::start().await;
    let namespace = sim.namespace();
    let mut sender = soon(namespace.sender(QUEUE)).await.unwrap();
    let properties = vec![
        ("text".to_owned(), Value::Text("é".into())),
        ("number".to_owned(), Value::Integer(-1)),
        ("yes".to_owned(), Value::Bool(true)),
        ("half".to_owned(), Value::Double(0.5)),
        ("when".to_owned(), Value::Time(1_700_000_000_000)),
        ("octets".to_owned(), Value::Binary(vec![0, 255])),
    ];
    let body: Vec<u8> = (0..200_000_u32).map(|place| place.to_le_bytes()[1]).collect();
    let message = Outgoing {
        message_id: Some("m-1".into()),
        session_id: Some("device-1".into()),
        subject: Some("reboot".into()),
        content_type: Some("application/json".into()),
        correlation_id: Some("c-1".into()),
        reply_to: Some("answers".into()),
        reply_to_session_id: Some("a-1".into()),
        time_to_live: Some(Duration::from_secs(60)),
        properties: properties.clone(),
        body: body.clone(),
    };
    soon(async { sender.send(message).await.unwrap().await }).await.unwrap();
    let nowhere = Outgoing { message_id: Some("m-2".into()), ..Outgoing::default() };
    let refused = soon(async { sender.send(nowhere).await.unwrap().await }).await;
    assert!(refused.is_err(), "it belongs to no session");
    soon(sender.close()).await;

    let mut link = accept(&namespace, "device-1").await.unwrap();
    let seen = receive(&mut link).await.unwrap();
    assert_eq!(seen.message_id.as_deref(), Some("m-1"));
    assert_eq!(seen.subject.as_deref(), Some("reboot"));
    assert_eq!(seen.content_type.as_deref(), Some("application/json"));
    assert_eq!(seen.correlation_id.as_deref(), Some("c-1"));
    assert_eq!(seen.reply_to.as_deref(), Some("answers"));
    assert_eq!(seen.reply_to_session_id.as_deref(), Some("a-1"));
    assert_eq!(seen.expires_ms, Some(seen.enqueued_ms + 60_000));
    assert_eq!(seen.properties, properties);
    assert!(seen.body == Body::Data(body));
}
