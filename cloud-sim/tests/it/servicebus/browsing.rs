//! Looking without taking.

use serde_json::{Value, json};

use super::{accept, bodies, commands, drain, each, send};

#[test]
fn who_peeks_sees_the_messages_of_its_session_and_takes_none() {
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.client(library);
        send(&mut client, "commands", "pump-7", &["1", "2", "3"]);
        send(&mut client, "commands", "pump-8", &["of another"]);
        send(&mut client, "commands", "pump-7", &["4"]);
        accept(&mut client, "it", "commands", "pump-7");
        let mut peek = |from: i64, max: usize| -> Vec<Value> {
            let found = client.ok(json!({ "do": "peek", "receiver": "it", "max": max, "from": from }));
            found["messages"].as_array().unwrap().clone()
        };
        assert_eq!(bodies(&peek(1, 10)), ["1", "2", "3", "4"], "{library:?}");
        assert_eq!(bodies(&peek(1, 2)), ["1", "2"], "{library:?}");
        assert_eq!(bodies(&peek(3, 10)), ["3", "4"], "{library:?}");
        assert_eq!(peek(100, 10), Vec::<Value>::new(), "{library:?}");
        assert_eq!(peek(5, 1)[0]["sequence"], 5, "{library:?}");
        let drained = drain(&mut client, "it", 4);
        assert_eq!(bodies(&drained), ["1", "2", "3", "4"], "{library:?}");
        assert!(drained.iter().all(|message| message["delivery_count"] == 0), "{library:?}");
    });
}

#[test]
fn who_peeks_into_the_dead_letter_queue_leaves_it_as_it_is() {
    each(&commands(&json!({ "max_delivery_count": 1 })), |sim, library| {
        let mut client = sim.client(library);
        send(&mut client, "commands", "pump-7", &["1"]);
        accept(&mut client, "it", "commands", "pump-7");
        let message = super::one(&mut client, "it");
        client.settle("it", &message, "abandon");
        client.ok(json!({ "do": "open", "receiver": "dead", "entity": "commands", "dead": true }));
        for _ in 0..2 {
            let found = client.ok(json!({ "do": "peek", "receiver": "dead", "max": 10 }));
            assert_eq!(bodies(found["messages"].as_array().unwrap()), ["1"], "{library:?}");
            assert_eq!(found["messages"][0]["dead_reason"], "MaxDeliveryCountExceeded", "{library:?}");
        }
        assert_eq!(bodies(&drain(&mut client, "dead", 1)), ["1"], "{library:?}");
    });
}
