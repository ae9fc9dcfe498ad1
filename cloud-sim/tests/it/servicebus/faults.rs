//! Faults that are set through the control API, as the libraries see them.

use serde_json::{Value, json};
use testkit::azure_clients::Code;

use super::{Sim, accept, bodies, commands, drain, each, one, send};

fn fault(sim: &Sim, fault: &Value) {
    sim.cloud.control().service_bus().fault(fault).unwrap();
}

#[test]
fn what_was_in_flight_when_connections_are_cut_comes_again() {
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.client(library);
        send(&mut client, "commands", "pump-7", &["1", "2"]);
        accept(&mut client, "it", "commands", "pump-7");
        assert_eq!(one(&mut client, "it")["body"], "1", "{library:?}");
        fault(sim, &json!({ "fault": "cut-connections" }));
        let mut other = sim.client(library);
        accept(&mut other, "it", "commands", "pump-7");
        let drained = drain(&mut other, "it", 2);
        assert_eq!(bodies(&drained), ["1", "2"], "{library:?}");
        assert_eq!(drained[0]["delivery_count"], 0, "{library:?}");
    });
}

#[test]
fn a_lock_can_be_taken_away() {
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.client(library);
        send(&mut client, "commands", "pump-7", &["1"]);
        accept(&mut client, "it", "commands", "pump-7");
        let message = one(&mut client, "it");
        fault(sim, &json!({ "fault": "expire-lock", "entity": "commands", "session": "pump-7" }));
        // One more round trip: a library that has one connection and did not hear of the detach yet would wait a
        // minute for the echo of its disposition.
        send(&mut client, "commands", "pump-8", &["2"]);
        let settle =
            json!({ "do": "settle", "receiver": "it", "sequence": message["sequence"], "how": "complete" });
        let refused = client.ask(&settle).unwrap_err();
        // It depends on the library whether it still has the link or asks by another way.
        let codes = [Code::SessionLockLost, Code::MessageLockLost].map(|code| code.name(library));
        assert!(codes.contains(&refused.code.as_str()), "{library:?}: {refused:?}");
        accept(&mut client, "again", "commands", "pump-7");
        assert_eq!(one(&mut client, "again")["delivery_count"], 1, "{library:?}");
    });
}

#[test]
fn a_busy_service_says_so_and_recovers() {
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.client(library);
        send(&mut client, "commands", "pump-7", &["1"]);
        fault(sim, &json!({ "fault": "busy", "operations": 1 }));
        // Asked for by id, one of the libraries takes every refusal for a lock of somebody else.
        client.refused(Code::Busy, super::accepting_next("it", "commands"));
        accept(&mut client, "it", "commands", "pump-7");
    });
}
