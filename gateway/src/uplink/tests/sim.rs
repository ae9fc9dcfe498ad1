//! cloud-sim in this process, with its faults.

use std::time::Duration;

use cloud_sim::TopicSpec;
use tempfile::TempDir;
use testkit::cloud::Control;
use tokio::runtime::Runtime;

use crate::uplink::Config;
use crate::uplink::connection::{Connection, Security};

pub(in crate::uplink) const TOPIC: &str = "telemetry";
pub(in crate::uplink) const PARTITIONS: u32 = 4;

/// An event hub of four partitions.
pub(in crate::uplink) struct Sim {
    pub(in crate::uplink) control: Control,
    servers: String,
    _running: cloud_sim::Running,
    _runtime: Runtime,
    _folder: TempDir,
}

impl Sim {
    pub(in crate::uplink) fn start() -> Self {
        Self::start_with(|_| ())
    }

    pub(in crate::uplink) fn start_with(change: impl FnOnce(&mut cloud_sim::Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let topic = TopicSpec::new(TOPIC, PARTITIONS as usize).unwrap();
        let mut config = cloud_sim::Config::new(folder.path()).with_topic(topic);
        change(&mut config);
        let running = runtime.block_on(cloud_sim::start(config)).unwrap();
        Self {
            control: Control::new(&running.control.to_string()),
            servers: running.kafka.to_string(),
            _running: running,
            _runtime: runtime,
            _folder: folder,
        }
    }

    pub(in crate::uplink) fn connection(&self) -> Connection {
        Connection {
            bootstrap_servers: self.servers.clone(),
            security: Security::Plaintext,
            socket_timeout: Duration::from_secs(10),
        }
    }

    /// An uplink to it, with several requests in flight per partition.
    pub(in crate::uplink) fn config(&self) -> Config {
        Config {
            linger: Duration::from_millis(2),
            in_flight_max: 1000,
            in_flight_bytes_max: 4 << 20,
            drain_timeout: Duration::from_secs(30),
            tail_quiet: Duration::from_millis(200),
            ..Config::new(self.connection(), TOPIC.to_owned())
        }
    }

    /// What it counted under this name.
    pub(in crate::uplink) fn count(&self, name: &str) -> u64 {
        self.control.counters().unwrap()[name].as_u64().unwrap()
    }
}
