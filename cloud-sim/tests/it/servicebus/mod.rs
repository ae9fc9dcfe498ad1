//! The stand-in for Service Bus as Microsoft's own libraries see it.
//!
//! Each test runs once with every library that is installed, each time on a cloud-sim of its own. What the service does
//! is judged here; the libraries only carry out orders (`testkit::azure_clients`).

mod browsing;
mod faults;
mod security;
mod sending;
mod sessions;
mod settling;
mod times;
mod topics;

use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::azure_clients::{Client, Library, Namespace};
use testkit::cloud::Cloud;
use testkit::cloud::service_bus::{Entities, Queue};

/// The libraries that most tests run with: asyncio differs from the other Python in its sockets only.
const TWO: [Library; 2] = [Library::Python, Library::JavaScript];
/// Longest wait for a message that comes.
const SOON: Duration = Duration::from_secs(20);
/// Wait for a message that does not come.
const BRIEF: Duration = Duration::from_millis(300);

/// A cloud-sim with entities.
struct Sim {
    cloud: Cloud,
    // Removed last.
    _folder: TempDir,
}

impl Sim {
    /// Starts one with queues and topics as they stand in a configuration.
    fn start(entities: &Value) -> Self {
        Self::start_with(entities, &[])
    }

    fn start_with(entities: &Value, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("servicebus.json");
        std::fs::write(&file, entities.to_string()).unwrap();
        let file = file.display().to_string();
        let own = ["--servicebus", "127.0.0.1:0", "--servicebus-config", &file];
        let cloud = Cloud::start_with(folder.path(), &[], &[&own[..], arguments].concat()).unwrap();
        Self { cloud, _folder: folder }
    }

    fn namespace(&self) -> Namespace {
        Namespace::new(self.cloud.ready().servicebus_connection_string.as_deref().unwrap())
    }

    fn client(&self, library: Library) -> Client {
        Client::start(library, &self.namespace()).unwrap()
    }

    /// A client that gives up waiting for a session after so long.
    fn impatient(&self, library: Library, timeout: Duration) -> Client {
        Client::start_patient(library, &self.namespace(), timeout).unwrap()
    }

    /// Deletes a queue with sessions and makes it again.
    fn remake(&self, name: &str) {
        let service = self.cloud.control().service_bus();
        service.delete(name).unwrap();
        service.create(&Entities::queues([Queue::with_sessions(name)])).unwrap();
    }
}

/// Runs `test` with each library on a cloud-sim of its own.
fn each(entities: &Value, test: impl Fn(&Sim, Library)) {
    for library in Library::installed(&TWO) {
        test(&Sim::start(entities), library);
    }
}

/// A queue `commands` with sessions, with these settings beside the defaults.
fn commands(settings: &Value) -> Value {
    json!({ "queues": [queue("commands", true, settings)] })
}

/// A queue of a configuration.
fn queue(name: &str, sessions: bool, settings: &Value) -> Value {
    let mut queue = json!({ "name": name, "sessions": sessions });
    for (key, value) in settings.as_object().into_iter().flatten() {
        queue[key] = value.clone();
    }
    queue
}

/// Sends messages of one session, one after the other.
fn send(client: &mut Client, entity: &str, session: &str, bodies: &[&str]) {
    let messages: Vec<Value> =
        bodies.iter().map(|body| json!({ "session": session, "body": body, "id": body })).collect();
    client.ok(json!({ "do": "send", "entity": entity, "messages": messages }));
}

/// Accepts a session by its id.
fn accept(client: &mut Client, receiver: &str, entity: &str, session: &str) -> Value {
    client.ok(accepting(receiver, entity, session))
}

/// The order that accepts a session by its id.
fn accepting(receiver: &str, entity: &str, session: &str) -> Value {
    json!({ "do": "accept", "receiver": receiver, "entity": entity, "session": session })
}

/// Accepts the next session and returns which it is.
fn accept_next(client: &mut Client, receiver: &str, entity: &str) -> String {
    let accepted = client.ok(accepting_next(receiver, entity));
    accepted["session"].as_str().unwrap_or_default().to_owned()
}

/// The order that accepts the next session.
fn accepting_next(receiver: &str, entity: &str) -> Value {
    json!({ "do": "accept", "receiver": receiver, "entity": entity })
}

/// Receives one message, which must come.
fn one(client: &mut Client, receiver: &str) -> Value {
    let mut messages = client.receive(receiver, 1, SOON);
    assert_eq!(messages.len(), 1, "{:?}: a message", client.library());
    messages.remove(0)
}

/// Receives and completes messages until there are so many; returns them.
fn drain(client: &mut Client, receiver: &str, many: usize) -> Vec<Value> {
    let mut drained = Vec::new();
    while drained.len() < many {
        let messages = client.receive(receiver, 50.min(many - drained.len()), SOON);
        assert!(!messages.is_empty(), "{:?}: {} of {many}", client.library(), drained.len());
        messages.iter().for_each(|message| client.settle(receiver, message, "complete"));
        drained.extend(messages);
    }
    drained
}

/// There is no message for a receiver.
fn nothing(client: &mut Client, receiver: &str) {
    let messages = client.receive(receiver, 1, BRIEF);
    assert_eq!(messages, Vec::<Value>::new(), "{:?}", client.library());
}

/// The bodies of messages.
fn bodies(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["body"].as_str().unwrap_or_default()).collect()
}

/// The messages of a dead-letter queue, all of them, completed.
fn dead(client: &mut Client, entity: &str) -> Vec<Value> {
    client.ok(json!({ "do": "open", "receiver": "dead", "entity": entity, "dead": true }));
    let mut messages = Vec::new();
    loop {
        let more = client.receive("dead", 50, BRIEF);
        if more.is_empty() {
            break;
        }
        more.iter().for_each(|message| client.settle("dead", message, "complete"));
        messages.extend(more);
    }
    client.ok(json!({ "do": "close", "receiver": "dead" }));
    messages
}

/// Orders of the same receiver that take only its name.
fn order(what: &str, receiver: &str) -> Value {
    json!({ "do": what, "receiver": receiver })
}
