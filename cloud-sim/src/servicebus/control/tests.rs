//! The control API of Service Bus over HTTP, with a client that is not ours.

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::servicebus::broker::{Broker, Outcome, Wish};
use crate::servicebus::{Entities, QueueSpec, ServiceBus};
use crate::{Config, Running};

struct Sim {
    runtime: Runtime,
    running: Option<Running>,
    _data: TempDir,
}

impl Sim {
    fn start() -> Self {
        let data = TempDir::new().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let bus = ServiceBus::new(Entities::queues([QueueSpec::with_sessions("q")]));
        let config = Config::new(data.path()).with_service_bus(bus);
        let running = runtime.block_on(crate::start(config)).unwrap();
        Self { runtime, running: Some(running), _data: data }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running.as_ref().unwrap().control)
    }

    fn get(&self, path: &str) -> (u16, Value) {
        let mut answer = agent().get(self.url(path)).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let mut answer = agent().post(self.url(path)).send(body.to_string()).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
    }

    fn delete(&self, path: &str) -> u16 {
        agent().delete(self.url(path)).call().unwrap().status().as_u16()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.stop());
        }
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

#[test]
fn entities_come_get_messages_and_go() {
    let sim = Sim::start();
    assert_eq!(sim.get("/servicebus/entities"), (200, json!({ "entities": ["q"] })));
    let topic = json!({ "topics": [{ "name": "t", "subscriptions": [{ "name": "s" }] }] });
    assert_eq!(sim.post("/servicebus/entities", &topic), (200, json!({ "created": 2 })));
    let messages = json!([
        { "message_id": "1", "body": "x", "properties": { "n": 1, "s": "t", "b": true, "d": 1.5 } },
        { "message_id": "2", "body_base64": "AAE=", "subject": "cmd", "scheduled_in_seconds": 60, "ttl_seconds": 5 }
    ]);
    let sent = sim.post("/servicebus/entities/t/messages", &messages);
    assert_eq!(sent, (200, json!({ "sequence_numbers": [1, 2] })));
    let (_status, view) = sim.get("/servicebus/entities/t/Subscriptions/s");
    assert_eq!((&view["active"], &view["messages"][0]["message_id"]), (&json!(1), &json!("1")), "{view}");
    assert_eq!(sim.get("/servicebus/entities/t").1["scheduled"], 1);
    assert_eq!(sim.get("/servicebus/entities/t/Subscriptions/s/dead").1["active"], 0);
    assert_eq!([sim.delete("/servicebus/entities/t"), sim.delete("/servicebus/entities/t")], [200, 404]);
    assert_eq!(sim.get("/servicebus/entities/t").0, 404);
    assert_eq!(sim.get("/servicebus/counters").1["messages_in"], 2);
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    let sim = Sim::start();
    for (path, body, status, reason) in [
        ("/servicebus/entities", json!({ "queues": [{ "name": "" }] }), 400, "not a name"),
        ("/servicebus/entities", json!({ "lists": [] }), 400, "unknown field"),
        ("/servicebus/entities/q/messages", json!([{}]), 400, "SessionId"),
        ("/servicebus/entities/q/messages", json!([{ "body": "a", "body_base64": "" }]), 400, "both given"),
        ("/servicebus/entities/q/messages", json!([{ "ttl_seconds": -1 }]), 400, "ttl_seconds"),
        ("/servicebus/entities/q/messages", json!([{ "properties": { "a": [] } }]), 400, "neither"),
        ("/servicebus/entities/x/messages", json!([]), 404, "could not be found"),
        ("/servicebus/entities/q", json!([]), 404, "no such path"),
        ("/servicebus/faults", json!({ "fault": "rain" }), 400, "unknown variant"),
        ("/servicebus/faults", json!({ "fault": "busy", "operations": 1, "x": 1 }), 400, "unknown field"),
        ("/servicebus/faults", json!({ "fault": "detach-all", "condition": "x" }), 400, "is not one of"),
        ("/servicebus/faults", json!({ "fault": "delay-attach", "ms": 500_000 }), 400, "too long"),
    ] {
        let (got, answer) = sim.post(path, &body);
        assert_eq!(got, status, "{path} {body} {answer}");
        assert!(answer["error"].as_str().unwrap().contains(reason), "{path} {body} {answer}");
    }
    let expire = json!({ "fault": "expire-lock", "entity": "q", "session": "a" });
    assert_eq!(sim.post("/servicebus/faults", &expire).0, 410);
}

#[test]
fn faults_are_carried_out_and_settlements_are_in_the_log() {
    let broker = {
        let entities = Entities::queues([QueueSpec::new("q")]);
        Broker::new(&entities, crate::servicebus::broker::Clock::system()).unwrap()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let app = super::router(broker.clone());
    let served = runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { drop(axum::serve(listener, app).await) });
        tasks
    });
    let post = |path: &str, body: Value| {
        agent().post(format!("{base}{path}")).send(body.to_string()).unwrap().status().as_u16()
    };
    assert_eq!(post("/servicebus/entities/q/messages", json!([{ "message_id": "m" }])), 200);
    assert_eq!(post("/servicebus/faults", json!({ "fault": "busy", "operations": 1 })), 200);
    assert_eq!(post("/servicebus/entities/q/messages", json!([{ "message_id": "n" }])), 503);
    let (sender, _notices) = tokio::sync::mpsc::channel(4);
    let connection = broker.connect(sender);
    broker.attach_receiver(connection, 7, "q", Wish::Plain).unwrap();
    let delivery = broker.next(7).unwrap();
    let rejected = Outcome::Rejected { reason: Some("r".to_owned()), description: None };
    broker.settle(7, delivery.lock, &rejected).unwrap();
    let mut answer = agent().get(format!("{base}/servicebus/wire-log?after=1")).call().unwrap();
    let page: Value = answer.body_mut().read_json().unwrap();
    assert_eq!((&page["first"], &page["next"]), (&json!(1), &json!(3)));
    let entry = &page["entries"][0];
    assert_eq!((&entry["event"], &entry["reason"]), (&json!("dead-lettered"), &json!("r")), "{page}");
    assert_eq!(
        (&entry["link"], &entry["message_id"], &entry["entity"]),
        (&json!(7), &json!("m"), &json!("q"))
    );
    assert_eq!(agent().get(format!("{base}/servicebus/wire-log?before=1")).call().unwrap().status(), 400);
    drop(served);
}
