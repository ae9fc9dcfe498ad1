//! Topics: one message in, a copy for every subscription whose filter it fits.

use serde_json::{Value, json};

use super::{accept, bodies, drain, each, nothing, send};

/// A subscription.
fn subscription(name: &str, filter: &Value) -> Value {
    let mut subscription = json!({ "name": name, "sessions": true });
    if !filter.is_null() {
        subscription["filter"] = filter.clone();
    }
    subscription
}

#[test]
fn each_subscription_gets_what_its_filter_fits() {
    let subscriptions = [
        subscription("all", &Value::Null),
        subscription("north", &json!({ "properties": { "site": "north" } })),
        subscription("stops", &json!({ "subject": "stop" })),
        subscription("one", &json!({ "correlation_id": "c-1" })),
        subscription("north-stops", &json!({ "subject": "stop", "properties": { "site": "north" } })),
        subscription("pump-8", &json!({ "session_id": "pump-8" })),
    ];
    let entities = json!({ "topics": [{ "name": "orders", "subscriptions": subscriptions }] });
    let message = |body: &str, subject: &str, site: &str, correlation: &str| {
        json!({
            "session": "pump-7", "body": body, "subject": subject, "correlation": correlation,
            "properties": { "site": site },
        })
    };
    let messages = [
        message("a", "start", "north", "c-1"),
        message("b", "stop", "north", "c-2"),
        message("c", "stop", "south", "c-1"),
        message("d", "start", "south", "c-2"),
    ];
    let expected: [(&str, &[&str]); 6] = [
        ("all", &["a", "b", "c", "d"]),
        ("north", &["a", "b"]),
        ("stops", &["b", "c"]),
        ("one", &["a", "c"]),
        ("north-stops", &["b"]),
        ("pump-8", &[]),
    ];
    each(&entities, |sim, library| {
        let mut client = sim.client(library);
        client.ok(json!({ "do": "send", "entity": "orders", "messages": messages }));
        for (name, expected) in expected {
            accept(&mut client, name, &format!("orders/{name}"), "pump-7");
            assert_eq!(bodies(&drain(&mut client, name, expected.len())), expected, "{library:?}: {name}");
            nothing(&mut client, name);
        }
        send(&mut client, "orders", "pump-8", &["e"]);
        accept(&mut client, "other", "orders/pump-8", "pump-8");
        assert_eq!(bodies(&drain(&mut client, "other", 1)), ["e"], "{library:?}");
    });
}

#[test]
fn what_one_subscription_does_with_its_copy_does_not_concern_the_others() {
    let subscriptions = [subscription("a", &Value::Null), subscription("b", &Value::Null)];
    let entities = json!({ "topics": [{ "name": "orders", "subscriptions": subscriptions }] });
    each(&entities, |sim, library| {
        let mut client = sim.client(library);
        send(&mut client, "orders", "pump-7", &["1"]);
        for (name, how) in [("a", "dead_letter"), ("b", "complete")] {
            accept(&mut client, name, &format!("orders/{name}"), "pump-7");
            let message = super::one(&mut client, name);
            assert_eq!(
                (&message["body"], &message["delivery_count"]),
                (&json!("1"), &json!(0)),
                "{library:?}"
            );
            client.settle(name, &message, how);
        }
        assert_eq!(bodies(&super::dead(&mut client, "orders/a")), ["1"], "{library:?}");
        assert_eq!(super::dead(&mut client, "orders/b"), Vec::<Value>::new(), "{library:?}");
    });
}
