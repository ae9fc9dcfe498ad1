//! The sink on an outbox, beside a front end that nobody is connected to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use penstock_proto::Lane;

use super::{Sink, Status, consumer};
use crate::alerts::nouns::Severity;
use crate::alerts::reaction::{Occasion, Reaction, Target};
use crate::mqtt;
use crate::outbox::{CloudEvent, Completion, Encoded, Handle, Memory, StateOps, open_in_memory};
use crate::supervise::{Phase, Supervisor, TaskKind, clock};

const PATIENCE: Duration = Duration::from_secs(30);

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !condition() {
        assert!(clock::now() < deadline, "waited too long until {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn front_end() -> mqtt::Config {
    mqtt::Config {
        limits: mqtt::Limits::default(),
        listeners: vec![mqtt::Listener {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            websocket: None,
            receive_buffer: None,
            send_buffer: None,
            on_full: mqtt::OnFull::default(),
        }],
        access: mqtt::Access { anonymous: true, ..mqtt::Access::default() },
        topics: mqtt::Topic::defaults(),
        commands: Some("devices/{device}/commands/{command_id}".parse().expect("a topic")),
    }
}

fn reaction(topic: &str, expires_ms: u64) -> Reaction<'_> {
    Reaction {
        id: "a1-0:1:stop".into(),
        alert: "a1-0".into(),
        transition: 1,
        action: "stop".into(),
        rule: "hot".into(),
        on: Occasion::Raised,
        severity: Severity::Critical,
        device: "boiler-7".into(),
        tenant: None,
        traceparent: None,
        origin: None,
        decided_ms: 1,
        expires_ms,
        target: Target::Mqtt {
            topic: topic.into(),
            payload: "{}".into(),
            qos: 1,
            retain: false,
            content_type: "application/json".into(),
        },
    }
}

fn submit(outbox: &Handle, entries: &Encoded) {
    let done = Arc::new(Completion::new());
    let permit = outbox.appender().reserve(Lane::Alerts, entries.bytes()).expect("room");
    let ticket = outbox.appender().submit(permit, entries, &StateOps::default(), &done);
    assert_eq!(done.wait(ticket, clock::now() + PATIENCE), Some(Ok(())));
}

#[tokio::test]
async fn what_cannot_be_published_is_passed_over_and_everything_else_goes_out() {
    let (directory, memory) = (tempfile::tempdir().expect("a folder"), Memory::default());
    let outbox = open_in_memory(&memory, directory.path(), &[consumer()]);
    let supervisor = Supervisor::new();
    let (_service, mqtt) =
        mqtt::Service::bind(&front_end(), outbox.appender(), &supervisor).expect("it is bound");
    let sink = Sink::start(&outbox, mqtt.publisher(), &supervisor).expect("it starts");
    let even = || {
        let lane = &outbox.status().lanes[Lane::Alerts.index()];
        lane.low == lane.next && sink.status().backlog == 0
    };
    let later = clock::unix_ms() + 60_000;
    let mut entries = Encoded::default();
    let name = ("a1-0:1".to_owned(), "io.penstock.alert.raised.v1".to_owned());
    CloudEvent::new("site-7", name, "critical", 1, ()).push(Lane::Alerts, "boiler-7", &mut entries);
    for (topic, expires_ms) in [
        ("devices/valve-9/commands/a1-0", later),
        ("devices/valve-9/commands/a1-0", 2),
        ("devices/valve-9/commands/a1-0/status", later),
        ("devices/valve-9/telemetry", later),
        ("$SYS/lamps", later),
        ("site/lamps/1", later),
    ] {
        reaction(topic, expires_ms).push("site-7", &mut entries);
    }
    let target = Target::ServiceBus {
        queue: "site-commands".into(),
        payload: "{}".into(),
        subject: None,
        content_type: "application/json".into(),
    };
    Reaction { target, ..reaction("a", later) }.push("site-7", &mut entries);
    submit(&outbox, &entries);
    until("everything is looked at", even);
    assert_eq!(sink.status(), Status { published: 2, backlog: 0 });

    // More than may be on their way at once.
    entries.clear();
    for _ in 0..600 {
        reaction("site/lamps/1", later).push("site-7", &mut entries);
    }
    submit(&outbox, &entries);
    until("all are published", even);
    assert_eq!(sink.status().published, 602);

    supervisor.enter(Phase::DrainUplink);
    until("it ends", || supervisor.live(TaskKind::Reactions) == 0);
    assert!(outbox.close(clock::now() + PATIENCE), "closed in time");
}
