//! A client of cloud-sim: starting it, and its control API.

pub mod event_grid;
pub mod service_bus;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::event_grid::EventGrid;
use self::service_bus::{Entities, ServiceBus};
use crate::process::{self, Process, ProcessError};

/// Longest time a control request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time cloud-sim may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A control request that failed.
#[derive(Debug, thiserror::Error)]
#[error("cloud-sim: {path}: {source}")]
pub struct ControlError {
    path: String,
    source: ureq::Error,
}

impl ControlError {
    /// The HTTP status of an answer that was a refusal: 503 while Service Bus is told to be busy.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self.source {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        }
    }
}

/// The control API of a running cloud-sim.
#[derive(Debug, Clone)]
pub struct Control {
    agent: ureq::Agent,
    base: String,
}

/// A cloud-sim started by us; killed when dropped.
#[derive(Debug)]
pub struct Cloud {
    process: Process,
    ready: Ready,
    control: Control,
}

/// The line with which cloud-sim says that it listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Ready {
    /// `host:port` of Kafka without TLS.
    pub kafka: String,
    /// `host:port` of Kafka with TLS, when it was asked for.
    #[serde(default)]
    pub kafka_tls: Option<String>,
    /// `host:port` of the control API.
    pub control: String,
    /// `host:port` of the token endpoints, when tokens were asked for.
    #[serde(default)]
    pub tokens: Option<String>,
    /// `host:port` of Service Bus without TLS, when it was asked for.
    #[serde(default)]
    pub servicebus: Option<String>,
    /// `host:port` of Service Bus with TLS, when it was asked for.
    #[serde(default)]
    pub servicebus_tls: Option<String>,
    /// `host:port` of Service Bus over WebSockets with TLS, when it was asked for.
    #[serde(default)]
    pub servicebus_websocket: Option<String>,
    /// What clients of Service Bus without TLS connect with.
    #[serde(default)]
    pub servicebus_connection_string: Option<String>,
    /// `host:port` of Event Grid without TLS, when it was asked for.
    #[serde(default)]
    pub eventgrid: Option<String>,
    /// `host:port` of Event Grid with TLS, when it was asked for.
    #[serde(default)]
    pub eventgrid_tls: Option<String>,
    /// The certificate authority of the listeners with TLS, PEM.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

// === impl Ready ===

impl Ready {
    /// Where events are published to a custom topic or a domain, without the query: `http://host:port/api/events`.
    #[must_use]
    pub fn event_grid_endpoint(&self) -> Option<String> {
        self.eventgrid.as_ref().map(|address| format!("http://{address}/api/events"))
    }

    /// As [`Self::event_grid_endpoint`], for a topic of the namespace: `http://host:port/topics/NAME:publish`.
    #[must_use]
    pub fn event_grid_topic_endpoint(&self, topic: &str) -> Option<String> {
        self.eventgrid.as_ref().map(|address| format!("http://{address}/topics/{topic}:publish"))
    }
}

// === impl Control ===

impl Control {
    /// A client for the control API at `host:port`. Connects with the first request.
    #[must_use]
    pub fn new(address: &str) -> Self {
        let config = ureq::Agent::config_builder().timeout_global(Some(REQUEST_TIMEOUT)).build();
        Self { agent: config.into(), base: format!("http://{address}") }
    }

    /// What cloud-sim counted so far.
    ///
    /// # Errors
    /// When it does not answer with JSON.
    pub fn counters(&self) -> Result<Value, ControlError> {
        self.get("/v1/counters")
    }

    /// The topics with their partitions.
    ///
    /// # Errors
    /// When it does not answer with JSON.
    pub fn topics(&self) -> Result<Value, ControlError> {
        self.get("/v1/topics")
    }

    /// Cuts all connections now.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn cut(&self) -> Result<(), ControlError> {
        self.post("/v1/faults/cut", &json!({}))
    }

    /// Appends every n-th batch and cuts the connection instead of answering; 0 ends that.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn lose_ack(&self, every: u64) -> Result<(), ControlError> {
        self.post("/v1/faults/lose-ack", &json!({ "every": every }))
    }

    /// Whether connections are accepted: `false` is an outage.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn accepting(&self, enabled: bool) -> Result<(), ControlError> {
        self.post("/v1/faults/accepting", &json!({ "enabled": enabled }))
    }

    /// Sets what the namespace takes per second, over all topics; zero sets no limit.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn quota(&self, events: u64, bytes: u64) -> Result<(), ControlError> {
        self.post("/v1/faults/quota", &json!({ "events": events, "bytes": bytes }))
    }

    /// Holds back each answer to a produce request for so many milliseconds; 0 ends that.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn throttle(&self, ms: u32) -> Result<(), ControlError> {
        self.post("/v1/faults/throttle", &json!({ "ms": ms }))
    }

    /// Answers the next `times` produce requests with an error of Kafka and stores nothing of them.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn produce_error(&self, code: i16, times: u64) -> Result<(), ControlError> {
        self.post("/v1/faults/produce-error", &json!({ "code": code, "times": times }))
    }

    /// Whether clients may read.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn listen(&self, enabled: bool) -> Result<(), ControlError> {
        self.post("/v1/faults/listen", &json!({ "enabled": enabled }))
    }

    /// Whether clients may write to `topic` and see it.
    ///
    /// # Errors
    /// When it does not answer, or there is no such topic.
    pub fn authorize(&self, topic: &str, enabled: bool) -> Result<(), ControlError> {
        self.post("/v1/faults/authorize", &json!({ "topic": topic, "enabled": enabled }))
    }

    /// Forgets what is known of idempotent producers; one that goes on gets error 45.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn forget_producers(&self) -> Result<(), ControlError> {
        self.post("/v1/faults/forget-producers", &json!({}))
    }

    /// The orders and questions that are about Service Bus.
    #[must_use]
    pub fn service_bus(&self) -> ServiceBus<'_> {
        ServiceBus::new(self)
    }

    /// The orders and questions that are about Event Grid.
    #[must_use]
    pub fn event_grid(&self) -> EventGrid<'_> {
        EventGrid::new(self)
    }

    /// Any GET of the API.
    ///
    /// # Errors
    /// When it does not answer with JSON.
    pub fn get(&self, path: &str) -> Result<Value, ControlError> {
        self.read(path)
    }

    fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, ControlError> {
        let answer = self.agent.get(format!("{}{path}", self.base)).call();
        let answer = answer.and_then(|mut answer| answer.body_mut().read_json());
        answer.map_err(|source| ControlError { path: path.to_owned(), source })
    }

    /// Any POST of the API; the body of the answer is not looked at.
    ///
    /// # Errors
    /// When it does not answer, or with an error status.
    pub fn post(&self, path: &str, body: &Value) -> Result<(), ControlError> {
        let answer = self.agent.post(format!("{}{path}", self.base)).send_json(body);
        answer.map(drop).map_err(|source| ControlError { path: path.to_owned(), source })
    }

    /// Any POST of the API, with the body of its answer.
    ///
    /// # Errors
    /// When it does not answer with JSON, or with an error status.
    pub fn ask(&self, path: &str, body: &impl Serialize) -> Result<Value, ControlError> {
        let answer = self.agent.post(format!("{}{path}", self.base)).send_json(body);
        let answer = answer.and_then(|mut answer| answer.body_mut().read_json());
        answer.map_err(|source| ControlError { path: path.to_owned(), source })
    }

    /// Any DELETE of the API.
    ///
    /// # Errors
    /// When it does not answer, or with an error status.
    pub fn delete(&self, path: &str) -> Result<(), ControlError> {
        let answer = self.agent.delete(format!("{}{path}", self.base)).call();
        answer.map(drop).map_err(|source| ControlError { path: path.to_owned(), source })
    }
}

// === impl Cloud ===

impl Cloud {
    /// Starts cloud-sim on free ports with its data and its log in `directory`.
    ///
    /// `topics` are pairs of name and number of partitions.
    ///
    /// # Errors
    /// When the program is not found or does not get ready.
    pub fn start(directory: &Path, topics: &[(&str, u32)]) -> Result<Self, ProcessError> {
        Self::start_with(directory, topics, &[] as &[&str])
    }

    /// As [`Cloud::start`], with further arguments for the program, such as `--event-rate 1000`.
    ///
    /// # Errors
    /// When the program is not found or does not get ready.
    pub fn start_with(
        directory: &Path,
        topics: &[(&str, u32)],
        arguments: &[impl AsRef<OsStr>],
    ) -> Result<Self, ProcessError> {
        let mut command = Command::new(process::find("cloud-sim")?);
        command.args(["run", "--kafka", "127.0.0.1:0", "--control", "127.0.0.1:0", "--data"]);
        command.arg(directory.join("cloud"));
        for (name, partitions) in topics {
            command.args(["--topic".to_owned(), format!("{name}:{partitions}")]);
        }
        command.args(arguments);
        let mut process = Process::spawn("cloud-sim", &mut command, &directory.join("cloud-sim.log"))?;
        let ready: Ready = process.ready(START_TIMEOUT)?;
        let control = Control::new(&ready.control);
        Ok(Self { process, ready, control })
    }

    /// As [`Cloud::start_with`], with a Service Bus side on a free port that has these entities.
    ///
    /// # Errors
    /// When the program is not found or does not get ready, or the file with the entities cannot be written.
    pub fn start_with_service_bus(
        directory: &Path,
        topics: &[(&str, u32)],
        entities: &Entities,
        arguments: &[impl AsRef<OsStr>],
    ) -> Result<Self, ProcessError> {
        let file = service_bus::write(directory, entities)?;
        let mut all: Vec<OsString> = vec!["--servicebus".into(), "127.0.0.1:0".into()];
        all.extend(["--servicebus-config".into(), file.into_os_string()]);
        all.extend(arguments.iter().map(|argument| argument.as_ref().to_owned()));
        Self::start_with(directory, topics, &all)
    }

    /// As [`Cloud::start_with`], with an Event Grid side without TLS on a free port: a custom topic that takes either of
    /// [`event_grid::KEYS`]. Arguments may say more, such as `--eventgrid-kind domain`, `--eventgrid-topic alerts` or
    /// `--oauth`.
    ///
    /// # Errors
    /// When the program is not found or does not get ready.
    pub fn start_with_event_grid(
        directory: &Path,
        topics: &[(&str, u32)],
        arguments: &[impl AsRef<OsStr>],
    ) -> Result<Self, ProcessError> {
        let mut all: Vec<OsString> = vec!["--eventgrid".into(), "127.0.0.1:0".into()];
        all.extend(arguments.iter().map(|argument| argument.as_ref().to_owned()));
        Self::start_with(directory, topics, &all)
    }

    /// Where it listens.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Its control API.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers one request with `answer`, runs `call` against it and returns what arrived.
    fn request(answer: &'static str, call: impl FnOnce(&Control)) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let control = Control::new(&listener.local_addr().unwrap().to_string());
        thread::scope(|scope| {
            let server = scope.spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(REQUEST_TIMEOUT)).unwrap();
                let (mut request, mut part) = (Vec::new(), [0; 1024]);
                while !request.ends_with(b"}") && !request.starts_with(b"GET") {
                    let n = stream.read(&mut part).unwrap();
                    assert!(n > 0, "the request ends early");
                    request.extend_from_slice(&part[..n]);
                }
                stream.write_all(answer.as_bytes()).unwrap();
                String::from_utf8(request).unwrap()
            });
            call(&control);
            server.join().unwrap()
        })
    }

    fn body(request: &str) -> Value {
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    #[test]
    fn counters_are_read_as_json() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"records\":7}";
        let request = request(answer, |control| assert_eq!(control.counters().unwrap()["records"], 7));
        assert!(request.starts_with("GET /v1/counters HTTP/1.1"), "{request}");
    }

    #[test]
    fn faults_are_posted() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let lose_ack = request(answer, |control| control.lose_ack(3).unwrap());
        assert!(lose_ack.starts_with("POST /v1/faults/lose-ack"), "{lose_ack}");
        assert_eq!(body(&lose_ack), json!({ "every": 3 }));
        let accepting = request(answer, |control| control.accepting(false).unwrap());
        assert_eq!(body(&accepting), json!({ "enabled": false }));
        let quota = request(answer, |control| control.quota(1_000, 0).unwrap());
        assert!(quota.starts_with("POST /v1/faults/quota"), "{quota}");
        assert_eq!(body(&quota), json!({ "events": 1_000, "bytes": 0 }));
        let authorize = request(answer, |control| control.authorize("t", false).unwrap());
        assert!(authorize.starts_with("POST /v1/faults/authorize"), "{authorize}");
        assert_eq!(body(&authorize), json!({ "topic": "t", "enabled": false }));
    }

    #[test]
    fn an_error_status_is_an_error() {
        let answer = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        let request = request(answer, |control| assert_eq!(control.cut().unwrap_err().status(), Some(404)));
        assert!(request.starts_with("POST /v1/faults/cut"), "{request}");
    }
}
