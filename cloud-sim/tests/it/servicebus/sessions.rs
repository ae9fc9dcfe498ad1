//! Sessions: who has one, for how long, and what is kept with it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use testkit::azure_clients::{Code, Library};

use super::{
    SOON, Sim, accept, accept_next, accepting, accepting_next, bodies, commands, drain, each, nothing, one,
    order, send,
};

#[test]
fn a_session_has_one_receiver_at_a_time() {
    each(&commands(&json!({})), |sim, library| {
        let (mut first, mut second) = (sim.client(library), sim.client(library));
        send(&mut first, "commands", "pump-7", &["1"]);
        accept(&mut first, "it", "commands", "pump-7");
        second.refused(Code::SessionCannotBeLocked, accepting("it", "commands", "pump-7"));
        // Another session, also one without messages, is not concerned.
        accept(&mut second, "other", "commands", "pump-8");
        nothing(&mut second, "other");
        first.ok(order("close", "it"));
        accept(&mut second, "it", "commands", "pump-7");
        assert_eq!(bodies(&drain(&mut second, "it", 1)), ["1"], "{library:?}");
        first.refused(Code::SessionCannotBeLocked, accepting("it", "commands", "pump-7"));
    });
}

#[test]
fn a_session_is_free_when_the_machine_of_its_receiver_dies() {
    each(&commands(&json!({})), |sim, library| {
        let (mut first, mut second) = (sim.client(library), sim.client(library));
        send(&mut second, "commands", "pump-7", &["1"]);
        accept(&mut first, "it", "commands", "pump-7");
        assert_eq!(one(&mut first, "it")["delivery_count"], 0, "{library:?}");
        first.kill().unwrap();
        // The system closes the connection; when cloud-sim notices is not for this test to say.
        while second.ask(&accepting("it", "commands", "pump-7")).is_err() {}
        let message = one(&mut second, "it");
        assert_eq!((&message["body"], &message["delivery_count"]), (&json!("1"), &json!(0)), "{library:?}");
    });
}

#[test]
fn who_waits_for_a_session_in_vain_is_told_in_time() {
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.impatient(library, Duration::from_secs(2));
        client.refused(Code::Timeout, accepting_next("it", "commands"));
        // What was refused stands in nobody's way.
        send(&mut client, "commands", "pump-7", &["1"]);
        assert_eq!(accept_next(&mut client, "it", "commands"), "pump-7", "{library:?}");
        assert_eq!(bodies(&drain(&mut client, "it", 1)), ["1"], "{library:?}");
    });
}

#[test]
fn who_waits_for_a_session_gets_the_first_that_has_a_message() {
    each(&commands(&json!({})), |sim, library| {
        let (mut sender, mut waiting) = (sim.client(library), sim.client(library));
        waiting.tell(&accepting_next("it", "commands"));
        send(&mut sender, "commands", "pump-7", &["1"]);
        let accepted = waiting.answer("a session").unwrap();
        assert_eq!(accepted["session"], "pump-7", "{library:?}");
        assert_eq!(bodies(&drain(&mut waiting, "it", 1)), ["1"], "{library:?}");
    });
}

#[test]
fn the_next_session_is_one_that_nobody_has() {
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.impatient(library, Duration::from_secs(2));
        for session in ["pump-1", "pump-2"] {
            send(&mut client, "commands", session, &["1"]);
        }
        let mut sessions =
            [accept_next(&mut client, "a", "commands"), accept_next(&mut client, "b", "commands")];
        sessions.sort();
        assert_eq!(sessions, ["pump-1", "pump-2"], "{library:?}");
        client.refused(Code::Timeout, accepting_next("c", "commands"));
        client.ok(order("close", "b"));
        accept_next(&mut client, "c", "commands");
    });
}

#[test]
fn workers_that_take_what_is_next_share_the_sessions_and_keep_their_order() {
    const SESSIONS: usize = 20;
    const EACH: usize = 30;
    for library in Library::installed(&Library::ALL) {
        let sim = Sim::start(&commands(&json!({})));
        let mut client = sim.impatient(library, Duration::from_secs(3));
        let message = |place: usize| json!({ "session": format!("pump-{}", place % SESSIONS), "body": (place / SESSIONS).to_string() });
        let messages: Vec<_> = (0..SESSIONS * EACH).map(message).collect();
        client.ok(json!({ "do": "send", "entity": "commands", "messages": messages, "batch": true }));
        let done = client.ok(json!({ "do": "workers", "entity": "commands", "count": 8, "max": 7 }));
        let mut found: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for visit in done["visits"].as_array().unwrap() {
            let of = found.entry(visit["session"].as_str().unwrap().to_owned()).or_default();
            let numbers = visit["bodies"].as_array().unwrap().iter();
            of.extend(numbers.map(|body| body.as_str().unwrap().parse::<usize>().unwrap()));
        }
        assert_eq!(found.len(), SESSIONS, "{library:?}");
        let expected: Vec<usize> = (0..EACH).collect();
        assert!(found.values().all(|numbers| *numbers == expected), "{library:?}: {found:?}");
    }
}

#[test]
fn state_stays_with_its_session() {
    each(&commands(&json!({})), |sim, library| {
        let (mut first, mut second) = (sim.client(library), sim.client(library));
        let set = |state: Option<&str>| json!({ "do": "set_state", "receiver": "it", "state": state });
        // 0x00 0xff 0x10, which is no text.
        let state = "AP8Q";
        accept(&mut first, "it", "commands", "pump-7");
        assert!(first.ok(order("state", "it"))["state"].is_null(), "{library:?}");
        first.ok(set(Some(state)));
        assert_eq!(first.ok(order("state", "it"))["state"], state, "{library:?}");
        first.ok(order("close", "it"));

        accept(&mut second, "it", "commands", "pump-7");
        assert_eq!(second.ok(order("state", "it"))["state"], state, "{library:?}");
        accept(&mut first, "it", "commands", "pump-8");
        assert!(first.ok(order("state", "it"))["state"].is_null(), "of another session, {library:?}");
        second.ok(set(None));
        assert!(second.ok(order("state", "it"))["state"].is_null(), "{library:?}");
    });
}

#[test]
fn a_renewed_lock_lasts_longer() {
    each(&commands(&json!({ "lock_seconds": 5 })), |sim, library| {
        let (mut first, mut second) = (sim.client(library), sim.client(library));
        send(&mut first, "commands", "pump-7", &["1"]);
        let accepted = accept(&mut first, "it", "commands", "pump-7");
        let until = accepted["locked_until_ms"].as_i64().unwrap();
        let message = one(&mut first, "it");
        // Three seconds pass.
        assert!(first.receive("it", 1, Duration::from_secs(3)).is_empty(), "{library:?}");
        let renewed = first.ok(order("renew", "it"))["locked_until_ms"].as_i64().unwrap();
        assert!((2_500..30_000).contains(&(renewed - until)), "{library:?}: {}", renewed - until);
        // Past the first end, before the second.
        assert!(first.receive("it", 1, Duration::from_secs(3)).is_empty(), "{library:?}");
        second.refused(Code::SessionCannotBeLocked, accepting("it", "commands", "pump-7"));
        first.settle("it", &message, "complete");
        nothing(&mut first, "it");
    });
}

#[test]
fn the_libraries_keep_a_lock_by_themselves() {
    // Not shorter: on a busy machine the blocking library gets round to it late, since it waits for messages too.
    each(&commands(&json!({ "lock_seconds": 12 })), |sim, library| {
        let mut client = sim.client(library);
        send(&mut client, "commands", "pump-7", &["1"]);
        let mut order = accepting("it", "commands", "pump-7");
        order["renew_ms"] = json!(60_000);
        client.ok(order);
        let message = one(&mut client, "it");
        // Longer than the lock.
        assert!(client.receive("it", 1, Duration::from_secs(14)).is_empty(), "{library:?}");
        client.settle("it", &message, "complete");
        nothing(&mut client, "it");
    });
}

#[test]
fn a_lock_that_expires_is_lost_and_counts_as_a_delivery() {
    each(&commands(&json!({ "lock_seconds": 1 })), |sim, library| {
        let (mut first, mut second) = (sim.client(library), sim.client(library));
        send(&mut first, "commands", "pump-7", &["1", "2"]);
        accept(&mut first, "it", "commands", "pump-7");
        let message = one(&mut first, "it");
        assert_eq!(message["delivery_count"], 0, "{library:?}");
        // It can be taken by another once it is over.
        while second.ask(&accepting("it", "commands", "pump-7")).is_err() {}
        let settle =
            json!({ "do": "settle", "receiver": "it", "sequence": message["sequence"], "how": "complete" });
        first.refused(Code::SessionLockLost, settle);
        let again = one(&mut second, "it");
        assert_eq!((&again["body"], &again["delivery_count"]), (&json!("1"), &json!(1)), "{library:?}");
        assert_eq!(again["sequence"], message["sequence"], "{library:?}");
        second.settle("it", &again, "complete");
        let next = one(&mut second, "it");
        assert_eq!((&next["body"], &next["delivery_count"]), (&json!("2"), &json!(0)), "{library:?}");
    });
}

#[test]
fn a_receiver_that_waits_hears_that_its_lock_is_lost() {
    each(&commands(&json!({ "lock_seconds": 1 })), |sim, library| {
        let mut client = sim.client(library);
        accept(&mut client, "it", "commands", "pump-7");
        let wait = u64::try_from(SOON.as_millis()).unwrap();
        client.refused(
            Code::SessionLockLost,
            json!({ "do": "receive", "receiver": "it", "max": 1, "wait_ms": wait }),
        );
        // By id it can be had again.
        accept(&mut client, "again", "commands", "pump-7");
    });
}
