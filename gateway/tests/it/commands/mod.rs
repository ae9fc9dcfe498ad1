//! Commands, end to end: Microsoft's own libraries send them and read what was refused, MQTT clients that we did not
//! write get them, and what the gateway says of them arrives in the event hub.

mod answers;
mod control;
mod delivery;
mod page;
mod refusals;
mod replies;
mod watcher;

use std::path::Path;

use serde_json::{Value, json};
use testkit::azure_clients::{Client, Library, Namespace};
use testkit::cloud::Cloud;
use testkit::cloud::service_bus::{Entities, Queue, View};
use testkit::gateway::{Config, Gateway};

use crate::clients::agent::{Agent, Library as Mqtt};
use crate::hub;

/// The libraries that send commands.
const SENDERS: [Library; 2] = [Library::Python, Library::JavaScript];
/// The queue of the tests, one session for each device.
const QUEUE: &str = "commands";

/// A gateway between a namespace with a queue for commands and an event hub.
struct Site {
    gateway: Gateway,
    cloud: Cloud,
    // Removed last.
    _folder: tempfile::TempDir,
}

impl Site {
    /// One whose queue and whose section `commands` have these settings beside the defaults.
    fn start(queue: &Value, settings: &[&str]) -> Self {
        Self::start_with(queue, settings, &[])
    }

    /// The same with settings of other sections.
    fn start_with(queue: &Value, settings: &[&str], others: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cloud = cloud(folder.path(), queue);
        let secret = folder.path().join("servicebus");
        std::fs::write(&secret, connection(&cloud)).expect("written");
        let mut config = Config::default()
            .id("edge-01")
            .uplink(&cloud.ready().kafka, hub::TOPIC)
            .set("commands.connection", &format!("connection_string_file = {secret:?}"));
        for line in [&["entity = \"commands\""], settings].concat() {
            config = config.set("commands", line);
        }
        for (section, line) in others {
            config = config.set(section, line);
        }
        let gateway = Gateway::start(folder.path(), config).expect("the gateway starts");
        Self { gateway, cloud, _folder: folder }
    }

    /// A sender of commands.
    fn sender(&self, library: Library) -> Client {
        Client::start(library, &Namespace::new(connection(&self.cloud))).expect("it is installed")
    }

    /// A device that is connected with MQTT 5 and listens for its commands.
    fn device(&self, library: Mqtt, name: &str) -> Agent {
        let order = json!({ "client": name, "version": 5, "clean": true });
        let mut agent = Agent::connect(library, self.gateway.mqtt(), &order);
        agent.connected();
        assert_eq!(agent.subscribe(&format!("devices/{name}/commands/+"), 1), json!([1]), "{library:?}");
        agent
    }

    /// What the control API says of the queue.
    fn queue(&self) -> View {
        self.cloud.control().service_bus().entity(QUEUE).expect("it answers")
    }

    /// Deletes the queue and makes it again: its sequence numbers start again.
    fn remake_queue(&self) {
        let service = self.cloud.control().service_bus();
        service.delete(QUEUE).expect("it is there");
        service.create(&Entities::queues([Queue::with_sessions(QUEUE)])).expect("it is made");
    }

    /// Waits until the queue has so many messages that are neither completed nor dead.
    fn wait_for_active(&self, count: u64) {
        hub::wait_for("the queue", || (self.queue().active == count).then_some(()));
    }

    /// The events about commands of a device in the event hub, oldest first, once there are so many final ones.
    fn events(&self, device: &str, finals: usize) -> Vec<Value> {
        hub::wait_for("the events about commands", || {
            let events = self.events_now(device);
            let found = events.iter().filter(|event| event["data"]["final"] == true).count();
            (found >= finals).then_some(events)
        })
    }

    fn events_now(&self, device: &str) -> Vec<Value> {
        let records = hub::records(&self.cloud).into_iter().filter(|record| record.key == device);
        let events = records.filter_map(|record| serde_json::from_str::<Value>(&record.payload).ok());
        events.filter(|event| event["type"].as_str().is_some_and(|kind| kind.contains(".command."))).collect()
    }
}

fn cloud(folder: &Path, settings: &Value) -> Cloud {
    let data = folder.join("cloud");
    std::fs::create_dir_all(&data).expect("a folder for the cloud");
    let mut queue = json!({ "name": QUEUE, "sessions": true });
    for (key, value) in settings.as_object().into_iter().flatten() {
        queue[key] = value.clone();
    }
    let file = folder.join("servicebus.json");
    std::fs::write(&file, json!({ "queues": [queue] }).to_string()).expect("written");
    let file = file.display().to_string();
    let arguments = ["--servicebus", "127.0.0.1:0", "--servicebus-config", &file];
    Cloud::start_with(&data, &[(hub::TOPIC, hub::PARTITIONS)], &arguments).expect("cloud-sim starts")
}

fn connection(cloud: &Cloud) -> &str {
    cloud.ready().servicebus_connection_string.as_deref().expect("asked for")
}

/// Sends commands to the session of a device, one after the other.
fn send(sender: &mut Client, messages: &[Value]) {
    sender.ok(json!({ "do": "send", "entity": QUEUE, "messages": messages }));
}

/// A command for a device.
fn command(device: &str, id: &str, body: &str) -> Value {
    json!({ "session": device, "id": id, "body": body, "subject": "set-speed" })
}

/// Reads the dead-letter queue until it had so many messages, which are completed.
fn dead(client: &mut Client, many: usize) -> Vec<Value> {
    client.ok(json!({ "do": "open", "receiver": "dead", "entity": QUEUE, "dead": true }));
    let mut found = Vec::new();
    while found.len() < many {
        let messages = client.receive("dead", many - found.len(), std::time::Duration::from_secs(20));
        assert!(!messages.is_empty(), "{} of {many} dead letters", found.len());
        messages.iter().for_each(|message| client.settle("dead", message, "complete"));
        found.extend(messages);
    }
    client.ok(json!({ "do": "close", "receiver": "dead" }));
    found
}
