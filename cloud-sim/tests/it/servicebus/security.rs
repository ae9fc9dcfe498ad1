//! Who gets in: keys, TLS, names.

use std::path::Path;

use serde_json::{Value, json};
use testkit::azure_clients::{Client, Code, Library, Namespace};

use super::{Sim, accept, accepting, bodies, commands, drain, each, queue, send};

/// How a listener with TLS is reached, as a namespace in Azure is: no port, no word of a development emulator.
fn secured(sim: &Sim, host: &str, authority: Option<&Path>) -> Namespace {
    let plain = sim.namespace().connection;
    let part = |name: &str| {
        let found = plain.split(';').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {name} in {plain}")).to_owned()
    };
    let (name, key) = (part("SharedAccessKeyName"), part("SharedAccessKey"));
    Namespace {
        connection: format!("Endpoint=sb://{host}/;SharedAccessKeyName={name};SharedAccessKey={key}"),
        address: None,
        websocket: false,
        authority: authority.map(Path::to_owned),
    }
}

/// An address of the loopback that is this process's own: the libraries know one port only.
fn own_host() -> String {
    let id = std::process::id();
    format!("127.{}.{}.{}", 1 + id / 62_500 % 250, 1 + id / 250 % 250, 1 + id % 250)
}

#[test]
fn a_wrong_key_opens_nothing() {
    each(&commands(&json!({})), |sim, library| {
        let mut namespace = sim.namespace();
        let (before, rest) = namespace.connection.split_once("SharedAccessKey=").unwrap();
        let rest = rest.split_once(';').map_or("", |(_, rest)| rest);
        namespace.connection = format!("{before}SharedAccessKey=d3Jvbmc=;{rest}");
        let mut stranger = Client::start(library, &namespace).unwrap();
        stranger.refused(Code::Unauthorized, accepting("it", "commands", "pump-7"));
        let message = json!({ "session": "pump-7", "body": "forged" });
        stranger.refused(
            Code::Unauthorized,
            json!({ "do": "send", "entity": "commands", "messages": [message] }),
        );
        let mut client = sim.client(library);
        accept(&mut client, "it", "commands", "pump-7");
        super::nothing(&mut client, "it");
    });
}

#[test]
fn with_tls_everything_is_as_without() {
    for library in Library::installed(&Library::ALL) {
        let host = own_host();
        let sim = Sim::start_with(&commands(&json!({})), &["--servicebus-tls", &format!("{host}:5671")]);
        let authority = sim.cloud.ready().ca_file.clone().unwrap();
        let mut client = Client::start(library, &secured(&sim, &host, Some(&authority))).unwrap();
        send(&mut client, "commands", "pump-7", &["1", "2"]);
        accept(&mut client, "it", "commands", "pump-7");
        assert_eq!(bodies(&drain(&mut client, "it", 2)), ["1", "2"], "{library:?}");

        // Without its authority the certificate is not believed.
        let mut suspicious = Client::start(library, &secured(&sim, &host, None)).unwrap();
        let refused = suspicious.ask(&accepting("it", "commands", "pump-8"));
        assert!(refused.is_err(), "{library:?}: {refused:?}");
    }
}

#[test]
fn in_a_websocket_everything_is_as_without() {
    // The blocking Python needs one more package for it.
    for library in Library::installed(&[Library::Asyncio, Library::JavaScript]) {
        let sim = Sim::start_with(&commands(&json!({})), &["--servicebus-websocket", "127.0.0.1:0"]);
        let ready = sim.cloud.ready();
        let authority = ready.ca_file.clone().unwrap();
        let port = ready.servicebus_websocket.as_deref().unwrap().rsplit_once(':').unwrap().1;
        let namespace = Namespace {
            address: Some(format!("sb://localhost:{port}")),
            websocket: true,
            ..secured(&sim, "localhost", Some(&authority))
        };
        let mut client = Client::start(library, &namespace).unwrap();
        let large = json!([{ "session": "pump-7", "size": 200_000 }]);
        client.ok(json!({ "do": "send", "entity": "commands", "messages": large }));
        send(&mut client, "commands", "pump-7", &["2"]);
        accept(&mut client, "it", "commands", "pump-7");
        let messages = drain(&mut client, "it", 2);
        assert_eq!(
            (&messages[0]["size"], &messages[1]["body"]),
            (&json!(200_000), &json!("2")),
            "{library:?}"
        );
    }
}

#[test]
fn an_entity_that_is_not_there_is_not_found() {
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.client(library);
        // Asked for by id, one of the libraries takes every refusal for a lock of somebody else.
        client.refused(Code::EntityNotFound, super::accepting_next("it", "nowhere"));
        let message = json!({ "session": "pump-7", "body": "1" });
        client.refused(
            Code::EntityNotFound,
            json!({ "do": "send", "entity": "nowhere", "messages": [message] }),
        );
        // Case does not matter.
        send(&mut client, "Commands", "pump-7", &["1"]);
        accept(&mut client, "it", "COMMANDS", "pump-7");
        assert_eq!(bodies(&drain(&mut client, "it", 1)), ["1"], "{library:?}");
    });
}

#[test]
fn sessions_and_queues_without_them_do_not_mix() {
    let entities =
        json!({ "queues": [queue("commands", true, &Value::Null), queue("plain", false, &Value::Null)] });
    each(&entities, |sim, library| {
        let mut client = sim.client(library);
        let refused = client.ask(&accepting("it", "plain", "pump-7"));
        assert!(refused.is_err(), "{library:?}: {refused:?}");
        // A library may open its receiver only when it is asked for a message.
        let open = json!({ "do": "open", "receiver": "it", "entity": "commands" });
        let receive = json!({ "do": "receive", "receiver": "it", "max": 1, "wait_ms": 1_000 });
        let refused = client.ask(&open).and_then(|_| client.ask(&receive));
        assert!(refused.is_err(), "{library:?}: {refused:?}");
    });
}

#[test]
fn a_queue_made_anew_counts_from_one_again() {
    each(&commands(&json!({})), |sim, library| {
        let mut client = sim.client(library);
        send(&mut client, "commands", "pump-7", &["1", "2", "3"]);
        accept(&mut client, "it", "commands", "pump-7");
        assert_eq!(drain(&mut client, "it", 3)[2]["sequence"], 3, "{library:?}");
        sim.remake("commands");
        let mut fresh = sim.client(library);
        send(&mut fresh, "commands", "pump-7", &["4"]);
        accept(&mut fresh, "it", "commands", "pump-7");
        let message = super::one(&mut fresh, "it");
        assert_eq!((&message["body"], &message["sequence"]), (&json!("4"), &json!(1)), "{library:?}");
    });
}
