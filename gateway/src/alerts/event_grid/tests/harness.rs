//! A site with its outbox, and cloud-sim in this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cloud_sim::OAuth;
use cloud_sim::eventgrid::{EventGrid, Kind as SimKind};
use penstock_proto::{GatewayId, Lane};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::cloud::Control;
use testkit::cloud::event_grid::{Entry as Accepted, EventGrid as Orders, KEYS};
use tokio::runtime::Runtime;

use super::super::config::{BatchBounds, Endpoint, Kind};
use super::super::credential::SignIn;
use super::super::envelope::Source;
use super::super::{Config, Handle, Publisher, consumer};
use crate::alerts::circuit::Retry;
use crate::azure::{self, ManagedIdentity, TokenSource};
use crate::dead_letter;
use crate::outbox::{self, CloudEvent, Completion, ConsumerId, Encoded, Entry, Properties, StateOps};
use crate::supervise::{Phase, Supervisor, TaskKind, clock};

const PATIENCE: Duration = Duration::from_secs(30);
pub(super) const TOPIC: &str = "alerts";
const EVENT_TYPE: &str = "io.penstock.alert.raised.v1";

/// Waits for a condition.
pub(super) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !condition() {
        assert!(clock::now() < deadline, "waited too long until {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

fn gateway() -> GatewayId {
    "site-7".parse().unwrap()
}

/// A custom topic or a domain, and a namespace with a topic.
pub(super) struct Sim {
    control: Control,
    running: cloud_sim::Running,
    _runtime: Runtime,
    folder: TempDir,
}

impl Sim {
    pub(super) fn start() -> Self {
        Self::start_with(|_| ())
    }

    pub(super) fn start_with(change: impl FnOnce(&mut EventGrid)) -> Self {
        drop(tokio_rustls::rustls::crypto::ring::default_provider().install_default());
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let mut side = EventGrid::new();
        side.namespace_topics.push(TOPIC.to_owned());
        change(&mut side);
        let config = cloud_sim::Config::new(folder.path()).with_event_grid(side).with_oauth(OAuth::new());
        let running = runtime.block_on(cloud_sim::start(config)).unwrap();
        let control = Control::new(&running.control.to_string());
        Self { control, running, _runtime: runtime, folder }
    }

    /// One that judges sources as a domain does.
    pub(super) fn domain() -> Self {
        Self::start_with(|side| side.kind = SimKind::Domain)
    }

    pub(super) fn orders(&self) -> Orders<'_> {
        self.control.event_grid()
    }

    /// A file with this text.
    pub(super) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Where tokens come from that it takes.
    pub(super) fn identity(&self) -> TokenSource {
        let endpoint = format!("http://{}", self.running.tokens.unwrap());
        TokenSource::ManagedIdentity(ManagedIdentity { endpoint, client_id: None })
    }

    /// A publisher to it, with the first key and short pauses.
    pub(super) fn config(&self) -> Config {
        self.config_of(Kind::Topic)
    }

    pub(super) fn config_of(&self, kind: Kind) -> Config {
        let address = self.running.event_grid.as_ref().unwrap().http;
        self.config_at(&format!("http://{address}"), kind)
    }

    /// The same over TLS.
    pub(super) fn config_tls(&self) -> Config {
        let address = self.running.event_grid.as_ref().unwrap().https.unwrap();
        let mut config = self.config_at(&format!("https://localhost:{}", address.port()), Kind::Topic);
        config.endpoint.ca_file.clone_from(&self.running.ca_file);
        config
    }

    fn config_at(&self, address: &str, kind: Kind) -> Config {
        let topic = (kind == Kind::Namespace).then_some(TOPIC);
        Config {
            name: None,
            endpoint: Endpoint {
                url: Endpoint::url_of(address, kind, topic).unwrap(),
                kind,
                timeout: Duration::from_secs(10),
                ca_file: None,
                proxy: None,
            },
            sign_in: SignIn::Key(vec![self.file("first-key", KEYS[0])]),
            source: Source::AsItIs,
            type_prefix: "io.penstock".to_owned(),
            batch: BatchBounds { events: 500, bytes: 512 << 10 },
            retry: Retry {
                first: Duration::from_millis(2),
                longest: Duration::from_millis(20),
                probe_interval: Duration::from_millis(20),
            },
            dead_letter_bytes_max: 64 << 20,
        }
    }

    /// What it accepted, in that order.
    pub(super) fn accepted(&self) -> Vec<Accepted> {
        self.orders().all_events_after(0).unwrap()
    }

    /// The ids of it.
    pub(super) fn ids(&self) -> Vec<String> {
        let text = |entry: &Accepted| entry.event["id"].as_str().unwrap().to_owned();
        self.accepted().iter().map(text).collect()
    }

    /// What it counted, by a path such as `/events/duplicates`.
    pub(super) fn count(&self, path: &str) -> u64 {
        self.orders().counters().unwrap().pointer(path).and_then(Value::as_u64).unwrap_or(0)
    }
}

/// A gateway's disk.
pub(super) struct Site {
    directory: TempDir,
}

/// A gateway's outbox and a publisher at work.
pub(super) struct Running {
    supervisor: Supervisor,
    runtime: Runtime,
    pub(super) outbox: outbox::Handle,
    pub(super) sink: Handle,
}

impl Site {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// Another disk with what is on this one now: what a power cut leaves.
    pub(super) fn as_it_is(&self) -> Self {
        let copy = Self::new();
        copy_folder(self.directory.path(), copy.directory.path());
        copy
    }

    pub(super) fn start(&self, config: &Config) -> Running {
        self.open(config).publish(config)
    }

    /// Opens the outbox; nothing is sent yet.
    pub(super) fn open(&self, config: &Config) -> Opened {
        let supervisor = Supervisor::new();
        let settings = outbox::Config { realtime: false, ..outbox::Config::new(self.directory.path()) };
        let status = ConsumerId { name: "reader".to_owned(), lane: Lane::Status };
        let consumers = [consumer(config), dead_letter::consumer(), status];
        let (service, outbox) = outbox::Service::open(settings, &consumers, &supervisor).unwrap();
        drop(service);
        Opened { supervisor, outbox }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            std::fs::create_dir_all(to.join(&name)).unwrap();
            copy_folder(&path, &to.join(&name));
        } else {
            std::fs::copy(&path, to.join(&name)).unwrap();
        }
    }
}

/// An outbox without a publisher.
pub(super) struct Opened {
    supervisor: Supervisor,
    pub(super) outbox: outbox::Handle,
}

impl Opened {
    pub(super) fn publish(self, config: &Config) -> Running {
        self.publish_as(config, None)
    }

    /// The same with tokens from somewhere.
    pub(super) fn publish_as(self, config: &Config, identity: Option<&TokenSource>) -> Running {
        let Self { supervisor, outbox } = self;
        let runtime = Runtime::new().unwrap();
        let sink = {
            let _inside = runtime.enter();
            if let (Some(source), Some(tokens)) = (identity, config.tokens()) {
                azure::start(source, tokens, &supervisor);
            }
            Publisher::start(config, &gateway(), &outbox, None, &supervisor).unwrap()
        };
        Running { supervisor, runtime, outbox, sink }
    }

    /// Appends events of the gateway's own and waits until they are durable.
    pub(super) fn raise(&self, severity: &'static str, ids: &[String]) {
        raise(&self.outbox, severity, ids);
    }
}

/// `PREFIX-0`, `PREFIX-1` and so on.
pub(super) fn named(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number}")).collect()
}

fn raise(outbox: &outbox::Handle, severity: &'static str, ids: &[String]) {
    let (mut entries, gateway) = (Encoded::default(), gateway());
    for id in ids {
        let name = (id.clone(), EVENT_TYPE.to_owned());
        let event = CloudEvent::new(gateway.as_str(), name, severity, clock::unix_ms(), json!({ "n": 1 }));
        event.push(Lane::Alerts, "pump-7", &mut entries);
    }
    submit(outbox, &entries);
}

fn submit(outbox: &outbox::Handle, entries: &Encoded) {
    let done = Arc::new(Completion::new());
    let permit = outbox.appender().reserve(Lane::Alerts, entries.bytes()).unwrap();
    let ticket = outbox.appender().submit(permit, entries, &StateOps::default(), &done);
    assert_eq!(done.wait(ticket, clock::now() + PATIENCE), Some(Ok(())));
}

impl Running {
    /// Appends events of the gateway's own and waits until they are durable.
    pub(super) fn raise(&self, severity: &'static str, ids: &[String]) {
        raise(&self.outbox, severity, ids);
    }

    /// Appends what a device published.
    pub(super) fn publish(&self, payload: &[u8]) {
        let mut entries = Encoded::default();
        entries.push(&Entry {
            lane: Lane::Alerts,
            device: "pump-7",
            topic: "devices/pump-7/alerts",
            received_ms: clock::unix_ms(),
            qos: 1,
            retain: false,
            clock_synced: true,
            properties: Properties { tenant: Some("contoso"), ..Properties::default() },
            payload,
        });
        submit(&self.outbox, &entries);
    }

    /// Waits until everything is dealt with and the outbox knows.
    pub(super) fn wait_done(&self) {
        until("everything is dealt with", || {
            let lane = &self.outbox.status().lanes[Lane::Alerts.index()];
            lane.low == lane.next && self.sink.status().backlog == 0
        });
    }

    /// Stops as the gateway does, and says how long the publisher took to end.
    pub(super) fn stop(self) -> Duration {
        let begun = clock::now();
        self.supervisor.enter(Phase::DrainUplink);
        self.outbox.wake();
        until("the publisher ended", || self.supervisor.live(TaskKind::EventGrid) == 0);
        let took = clock::now() - begun;
        self.supervisor.enter(Phase::Close);
        assert!(self.outbox.close(clock::now() + PATIENCE));
        let ended =
            || [TaskKind::Committer, TaskKind::Sidecar].iter().all(|kind| self.supervisor.live(*kind) == 0);
        until("the outbox ended", ended);
        drop(self.runtime);
        took
    }

    /// How many letters there are, and the events of lane status.
    pub(super) fn dead(&self) -> (u64, Vec<Value>) {
        let letters = dead_letter::Handle::open(gateway(), &self.outbox).unwrap();
        let mut reader = self.outbox.consumer("reader", Lane::Status).unwrap();
        let mut events = Vec::new();
        while let Some(segment) = reader.try_next(1 << 20).unwrap() {
            events
                .extend(segment.records().map(|(_, record)| serde_json::from_slice(record.payload).unwrap()));
        }
        (letters.status().entries, events)
    }
}
