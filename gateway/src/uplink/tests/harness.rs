//! A site with its outbox, a cloud of one broker, and what is found there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use penstock_proto::{IDENTITY_HEADER, Identity, Lane, Seq, packed};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use tempfile::TempDir;

use super::super::connection::{Connection, Security};
use super::super::reader::Reader;
use super::super::{Config, Handle, Service, consumers};
use crate::outbox::{self, Completion, Encoded, Entry, Properties, StateOps};
use crate::supervise::{Phase, Supervisor, TaskKind, clock};

pub(super) const IN_FLIGHT_MAX: usize = 1000;
const DEVICES: u64 = 17;
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a condition.
pub(super) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = clock::now() + PATIENCE;
    while !condition() {
        assert!(clock::now() < deadline, "waited too long until {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// A cluster of one broker.
pub(super) struct Cloud {
    pub(super) mock: MockCluster<'static, DefaultProducerContext>,
}

/// A gateway's disk.
pub(super) struct Site {
    directory: TempDir,
}

/// A gateway's outbox and uplink at work.
pub(super) struct Running {
    supervisor: Supervisor,
    outbox: outbox::Handle,
    pub(super) uplink: Handle,
}

/// Entries read back: per topic, partition, lane and stream, in order.
pub(super) struct Found {
    chains: BTreeMap<(String, u32, Lane, char), Vec<Stored>>,
    /// The lane of each record in the order read, which is the order stored where there is one partition.
    pub(super) lanes: Vec<Lane>,
    /// Kafka records, of which each may hold many entries.
    pub(super) records: usize,
}

/// Identity and payload.
type Stored = (Identity, Vec<u8>);

impl Cloud {
    pub(super) fn start(topics: &[(&str, i32)]) -> Self {
        let mock = MockCluster::new(1).unwrap();
        for (topic, partitions) in topics {
            mock.create_topic(topic, *partitions, 1).unwrap();
        }
        Self { mock }
    }

    pub(super) fn connection(&self) -> Connection {
        Connection {
            bootstrap_servers: self.mock.bootstrap_servers(),
            security: Security::Plaintext,
            socket_timeout: Duration::from_secs(10),
        }
    }

    pub(super) fn config(&self, topic: &str) -> Config {
        Config {
            linger: Duration::from_millis(2),
            in_flight_max: IN_FLIGHT_MAX,
            in_flight_bytes_max: 4 << 20,
            drain_timeout: PATIENCE,
            tail_quiet: Duration::from_millis(200),
            ..Config::new(self.connection(), topic.to_owned())
        }
    }

    pub(super) fn read(&self, topics: &[&str]) -> Found {
        read_back(&self.connection(), topics)
    }
}

/// Reads everything that these topics hold.
pub(super) fn read_back(connection: &Connection, topics: &[&str]) -> Found {
    let reader = Reader::new(connection).unwrap();
    let parts: Vec<_> = topics.iter().flat_map(|topic| reader.parts(topic, PATIENCE).unwrap()).collect();
    let mut chains: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let (mut lanes, mut records) = (Vec::new(), 0);
    let read = reader.read(&parts, IDENTITY_HEADER, PATIENCE, |stored| {
        assert_eq!(stored.headers, 1);
        let identity: Identity = std::str::from_utf8(stored.header.unwrap()).unwrap().parse().unwrap();
        let part = &parts[stored.part];
        let chain = (part.topic.clone(), part.partition, identity.lane, identity.stream.letter());
        assert!(stored.timestamp_ms.is_some_and(|ms| ms > 0) && !stored.key.is_empty());
        lanes.push(identity.lane);
        records += 1;
        let Some(pack) = stored.pack else {
            chains.entry(chain).or_default().push((identity, stored.payload.to_vec()));
            return Ok::<(), std::io::Error>(());
        };
        let header: packed::Header = std::str::from_utf8(pack).unwrap().parse().unwrap();
        let body = packed::inflate(header.compression, stored.payload).unwrap();
        let mut prev = identity.prev;
        for entry in packed::unpack(&header, &identity, &body).unwrap() {
            let seq = entry.seq;
            let own = Identity { seq, prev: std::mem::replace(&mut prev, seq), ..identity.clone() };
            chains.entry(chain.clone()).or_default().push((own, entry.payload.bytes().to_vec()));
        }
        Ok(())
    });
    read.unwrap();
    Found { chains, lanes, records }
}

impl Site {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// Another disk with the same on it.
    pub(super) fn copy(&self) -> Self {
        let copy = Self::new();
        copy_folder(self.directory.path(), copy.directory.path());
        copy
    }

    pub(super) fn start(&self, config: &Config) -> Running {
        self.start_with(config, |_| ())
    }

    /// Starts the uplink when it was asked for something.
    pub(super) fn start_with(&self, config: &Config, ask: impl FnOnce(&Handle)) -> Running {
        let supervisor = Supervisor::new();
        let settings = outbox::Config::new(self.directory.path());
        let (service, outbox) = outbox::Service::open(settings, &consumers(), &supervisor).unwrap();
        drop(service);
        let uplink = Service::prepare(config, "site-7".parse().unwrap(), &outbox, &supervisor).unwrap();
        ask(uplink.handle());
        let uplink = uplink.start(&supervisor).unwrap();
        Running { supervisor, outbox, uplink }
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

impl Running {
    /// Appends `count` entries of several devices and waits until they are durable. The payload is
    /// `lane/device/number`, with numbers ascending per device over the rounds.
    pub(super) fn append(&self, lane: Lane, count: u64, round: u64) {
        let mut encoded = Encoded::default();
        for number in 0..count {
            let device = format!("device-{}", number % DEVICES);
            let payload = format!("{lane}/{device}/{}", round * 1_000_000 + number + 1);
            encoded.push(&entry(lane, &device, payload.as_bytes()));
        }
        self.submit(lane, &encoded);
    }

    /// The same with entries of a stream of their own.
    pub(super) fn append_stream(&self, stream: &str, count: u64, round: u64) {
        let mut encoded = Encoded::default();
        for number in 0..count {
            let device = format!("device-{}", number % DEVICES);
            let payload = format!("{stream}/{device}/{}", round * 1_000_000 + number + 1);
            let entry = entry(Lane::Telemetry, &device, payload.as_bytes());
            let properties = Properties { stream: Some(stream), ..Properties::default() };
            encoded.push(&Entry { properties, ..entry });
        }
        self.submit(Lane::Telemetry, &encoded);
    }

    pub(super) fn append_payload(&self, lane: Lane, payload: &[u8]) {
        let mut encoded = Encoded::default();
        encoded.push(&entry(lane, "device-0", payload));
        self.submit(lane, &encoded);
    }

    fn submit(&self, lane: Lane, encoded: &Encoded) {
        let appender = self.outbox.appender();
        let done = Arc::new(Completion::new());
        let mut permit = None;
        until("there is room", || {
            permit = appender.reserve(lane, encoded.bytes()).ok();
            permit.is_some()
        });
        let ticket = appender.submit(permit.unwrap(), encoded, &StateOps::default(), &done);
        until("the entries are durable", || done.durable() >= ticket);
    }

    /// The outbox's own view.
    pub(super) fn outbox(&self) -> outbox::Status {
        self.outbox.status()
    }

    /// Waits until the uplink confirmed everything committed, and the outbox knows.
    pub(super) fn wait_confirmed(&self) {
        until("everything is confirmed", || {
            let lanes = self.outbox.status().lanes;
            lanes.iter().filter(|lane| lane.lane != Lane::Dead).all(|lane| lane.low == lane.next)
        });
    }

    pub(super) fn stop(self) {
        self.supervisor.enter(Phase::DrainUplink);
        self.outbox.wake();
        until("the uplink ended", || self.supervisor.live(TaskKind::Uplink) == 0);
        self.supervisor.enter(Phase::Close);
        assert!(self.outbox.close(clock::now() + PATIENCE));
        let ended =
            || [TaskKind::Committer, TaskKind::Sidecar].iter().all(|kind| self.supervisor.live(*kind) == 0);
        until("the outbox ended", ended);
    }
}

impl Found {
    /// Different entries.
    pub(super) fn entries(&self) -> usize {
        let ids = self.chains.values().flatten().map(|(identity, _)| (identity.lane, identity.seq));
        ids.collect::<BTreeSet<_>>().len()
    }

    /// Entries of a stream.
    pub(super) fn of_stream(&self, letter: char) -> usize {
        self.chains
            .iter()
            .filter(|((.., stream), _)| *stream == letter)
            .map(|(_, records)| records.len())
            .sum()
    }

    pub(super) fn duplicates(&self) -> usize {
        self.chains.values().map(Vec::len).sum::<usize>() - self.entries()
    }

    /// Every chain proves that nothing is missing; a record stored twice has the same header and payload.
    pub(super) fn check_chains(&self) {
        for (chain, records) in &self.chains {
            let mut seen: BTreeMap<Seq, &Stored> = BTreeMap::new();
            for record in records {
                let (identity, _) = record;
                let newest = seen.keys().next_back().copied().unwrap_or(Seq::ZERO);
                match seen.get(&identity.seq) {
                    Some(first) => assert_eq!(*first, record, "{chain:?}"),
                    None => assert_eq!(identity.prev, newest, "{chain:?} breaks at {identity}"),
                }
                seen.insert(identity.seq, record);
            }
        }
    }

    /// First occurrences of each device's payloads are in the order published, in each stream.
    pub(super) fn check_devices(&self) {
        self.check_devices_of(&["alerts", "status", "telemetry", "bulk"]);
    }

    /// The same for entries of these lanes; others hold what the gateway itself has to say.
    pub(super) fn check_devices_of(&self, lanes: &[&str]) {
        let mut last: BTreeMap<(String, String, char), u64> = BTreeMap::new();
        for ((_, _, lane, stream), records) in &self.chains {
            if !lanes.contains(&lane.name()) {
                continue;
            }
            let mut seen = BTreeSet::new();
            for (identity, payload) in records {
                if !seen.insert(identity.seq) {
                    continue;
                }
                let text = std::str::from_utf8(payload).unwrap();
                let [lane, device, number] = text.split('/').collect::<Vec<_>>().try_into().unwrap();
                let number: u64 = number.parse().unwrap();
                let last = last.entry((lane.to_owned(), device.to_owned(), *stream)).or_default();
                assert!(*last < number, "{text} after {last}");
                *last = number;
            }
        }
    }
}

fn entry<'a>(lane: Lane, device: &'a str, payload: &'a [u8]) -> Entry<'a> {
    Entry {
        lane,
        device,
        topic: "devices/x/telemetry",
        received_ms: clock::unix_ms(),
        qos: 1,
        retain: false,
        clock_synced: true,
        properties: Properties::default(),
        payload,
    }
}
