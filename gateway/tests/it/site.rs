//! An outbox opened by the test itself, for what no device could publish.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use penstock::outbox::{
    BodyCodec, Completion, Config, Consumer, ConsumerId, Encoded, Entry, Handle, Record, Service, StateOps,
    Urgency,
};
use penstock::supervise::{Phase, Supervisor, TaskKind, clock};
use penstock::uplink;
use penstock_proto::{Lane, Seq};

use crate::hub;

/// A second reader of telemetry, which holds the trim.
pub(crate) const ARCHIVE: &str = "archive";
const PATIENCE: Duration = Duration::from_secs(60);

/// An outbox at work, without devices.
pub(crate) struct Site {
    supervisor: Supervisor,
    pub(crate) outbox: Handle,
    done: Arc<Completion>,
}

impl Site {
    /// Opens `directory` for the uplink, and the archive if there is one.
    pub(crate) fn open(directory: &Path, body_codec: BodyCodec, archive: bool) -> Self {
        let config = Config { body_codec, realtime: false, ..Config::new(directory) };
        let mut consumers = uplink::consumers();
        if archive {
            consumers.push(ConsumerId { name: ARCHIVE.to_owned(), lane: Lane::Telemetry });
        }
        let supervisor = Supervisor::new();
        let (_, outbox) = Service::open(config, &consumers, &supervisor).expect("the outbox opens");
        Self { supervisor, outbox, done: Arc::default() }
    }

    /// Starts an uplink to the topic of the tests.
    pub(crate) fn start_uplink(&self, bootstrap_servers: &str) {
        let connection = uplink::Connection {
            bootstrap_servers: bootstrap_servers.to_owned(),
            security: uplink::Security::Plaintext,
            socket_timeout: uplink::Connection::SOCKET_TIMEOUT,
        };
        let config = uplink::Config {
            linger: Duration::from_millis(2),
            in_flight_max: 1000,
            in_flight_bytes_max: 4 << 20,
            drain_timeout: PATIENCE,
            ..uplink::Config::new(connection, hub::TOPIC.to_owned())
        };
        let gateway = "site-7".parse().expect("a gateway id");
        uplink::Service::start(&config, gateway, &self.outbox, &self.supervisor).expect("the uplink starts");
    }

    /// Appends entries as one group and waits until they are durable.
    pub(crate) fn append<'a>(&self, lane: Lane, entries: impl IntoIterator<Item = Entry<'a>>) {
        let mut encoded = Encoded::default();
        entries.into_iter().for_each(|entry| encoded.push(&entry));
        let appender = self.outbox.appender();
        let permit = appender.reserve(lane, encoded.bytes()).expect("there is room");
        let ticket = appender.submit(permit, &encoded, &StateOps::default(), &self.done);
        hub::wait_for("a commit", || (self.done.durable() >= ticket).then_some(()));
    }

    /// Appends an entry of telemetry with changes of state, and waits until both are durable.
    pub(crate) fn append_with(&self, entry: &Entry<'_>, state: &StateOps) {
        let mut encoded = Encoded::default();
        encoded.push(entry);
        let appender = self.outbox.appender();
        let permit = appender.reserve(entry.lane, encoded.bytes()).expect("there is room");
        let ticket = appender.submit(permit, &encoded, state, &self.done);
        hub::wait_for("a commit", || (self.done.durable() >= ticket).then_some(()));
    }

    /// Changes state alone, and waits until it is durable.
    pub(crate) fn change(&self, state: &StateOps) {
        let ticket = self.outbox.appender().submit_state(state, Urgency::Prompt, &self.done);
        hub::wait_for("a commit", || (self.done.durable() >= ticket).then_some(()));
    }

    /// All state below `prefix`, in order.
    pub(crate) fn state(&self, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        let scanned = self.outbox.appender().state().scan(prefix, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        });
        scanned.expect("readable");
        found
    }

    /// The consumer `name` of `lane`.
    pub(crate) fn consumer(&self, name: &str, lane: Lane) -> Consumer {
        self.outbox.consumer(name, lane).expect("it is configured and free")
    }

    /// Stops the uplink in order, then closes.
    pub(crate) fn close(self) {
        self.supervisor.enter(Phase::DrainUplink);
        self.outbox.wake();
        hub::wait_for("the uplink's end", || (self.supervisor.live(TaskKind::Uplink) == 0).then_some(()));
        self.supervisor.enter(Phase::Close);
        assert!(self.outbox.close(clock::now() + PATIENCE), "closed in time");
        let ended =
            || [TaskKind::Committer, TaskKind::Sidecar].iter().all(|kind| self.supervisor.live(*kind) == 0);
        hub::wait_for("the outbox's end", || ended().then_some(()));
    }
}

/// Reads on to the end and shows every record.
pub(crate) fn read(consumer: &mut Consumer, mut see: impl FnMut(Seq, &Record<'_>)) {
    while let Some(segment) = consumer.try_next(1 << 20).expect("readable") {
        segment.records().for_each(|(seq, record)| see(seq, &record));
    }
}
