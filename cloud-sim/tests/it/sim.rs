//! A cloud-sim in this process, with a data directory of its own.

use std::time::{Duration, Instant};

use cloud_sim::{Config, Running};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

pub(crate) struct Sim {
    runtime: Runtime,
    running: Option<Running>,
    data: TempDir,
}

impl Sim {
    /// One with topic `t` of two partitions.
    pub(crate) fn start() -> Self {
        Self::start_with(|config| config)
    }

    pub(crate) fn start_with(change: impl FnOnce(Config) -> Config) -> Self {
        let data = TempDir::new().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let mut sim = Self { runtime, running: None, data };
        sim.run(change);
        sim
    }

    fn run(&mut self, change: impl FnOnce(Config) -> Config) {
        let config = Config::new(self.data.path()).with_topic("t:2".parse().unwrap());
        self.running = Some(self.runtime.block_on(cloud_sim::start(change(config))).unwrap());
    }

    /// Stops it and starts it again on the same data.
    pub(crate) fn restart(&mut self) {
        let running = self.running.take().unwrap();
        self.runtime.block_on(running.stop());
        self.run(|config| config);
    }

    /// The same with other settings.
    pub(crate) fn restart_with(&mut self, change: impl FnOnce(Config) -> Config) {
        let running = self.running.take().unwrap();
        self.runtime.block_on(running.stop());
        self.run(change);
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub(crate) fn kafka(&self) -> String {
        self.running().kafka.to_string()
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        let mut answer = agent().get(self.url(path)).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let mut answer = agent().post(self.url(path)).send(body).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_json().unwrap())
    }

    /// Gives an order that must be carried out.
    pub(crate) fn order(&self, path: &str, body: &str) {
        let (status, answer) = self.post(path, body);
        assert_eq!(status, 200, "{path} {body}: {answer}");
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        let (_status, counters) = self.get("/v1/counters");
        counters[name].as_u64().unwrap_or_else(|| panic!("no counter {name} in {counters}"))
    }

    /// Waits until a counter has reached a value.
    pub(crate) fn await_counter(&self, name: &str, least: u64) {
        let deadline = deadline();
        while self.counter(name) < least {
            assert!(!passed(deadline), "{name} stays at {}", self.counter(name));
        }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.running().control)
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into()
}

#[expect(clippy::disallowed_methods, reason = "tests bound real waits")]
pub(crate) fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

#[expect(clippy::disallowed_methods, reason = "tests bound real waits")]
pub(crate) fn passed(deadline: Instant) -> bool {
    Instant::now() >= deadline
}
