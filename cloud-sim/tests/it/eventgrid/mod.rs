//! The stand-in for Event Grid, from outside: by plain HTTP, and by Microsoft's own publishers.

mod domains;
mod faults;
mod history;
mod limits;
mod publishers;
mod responses;
mod signing;

use std::time::Duration;

use cloud_sim::eventgrid::{EventGrid, KEYS_DEFAULT};
use serde_json::{Value, json};

use crate::sim::{PATIENCE, Sim};

const TOPIC: &str = "/api/events?api-version=2018-01-01";
const NAMESPACE: &str = "/topics/alerts:publish?api-version=2024-06-01";
const BATCH: &str = "application/cloudevents-batch+json; charset=utf-8";
const SINGLE: &str = "application/cloudevents+json; charset=utf-8";
const KEY: &str = KEYS_DEFAULT[0];

/// A request to publish.
#[derive(Clone)]
struct Request {
    path: &'static str,
    content_type: &'static str,
    proof: Vec<(&'static str, String)>,
    timeout: Duration,
}

/// An answer.
#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    retry_after: Option<String>,
    body: Value,
}

impl Request {
    /// A batch to the custom topic with the first key.
    fn batch() -> Self {
        let proof = vec![("aeg-sas-key", KEY.to_owned())];
        Self { path: TOPIC, content_type: BATCH, proof, timeout: PATIENCE }
    }

    /// A batch to a topic of the namespace with the first key.
    fn namespace() -> Self {
        let proof = vec![("authorization", format!("SharedAccessKey {KEY}"))];
        Self { path: NAMESPACE, proof, ..Self::batch() }
    }

    fn with_proof(name: &'static str, value: impl Into<String>) -> Self {
        Self { proof: vec![(name, value.into())], ..Self::batch() }
    }

    /// The answer, or none if the connection ends or nothing comes in time.
    fn try_send(&self, sim: &Sim, body: &str) -> Option<Answer> {
        let http = sim.running().event_grid.as_ref().unwrap().http;
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        let agent: ureq::Agent = config.timeout_global(Some(self.timeout)).build().into();
        let mut request = agent.post(format!("http://{http}{}", self.path)).content_type(self.content_type);
        for (name, value) in &self.proof {
            request = request.header(*name, value);
        }
        let mut answer = request.send(body).ok()?;
        let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().unwrap();
        Some(Answer { status, retry_after, body: serde_json::from_str(&text).unwrap_or_default() })
    }

    fn send(&self, sim: &Sim, body: &str) -> Answer {
        self.try_send(sim, body).unwrap()
    }

    /// Sends events and gives the status.
    fn events(&self, sim: &Sim, ids: &[&str]) -> u16 {
        self.send(sim, &batch(ids)).status
    }
}

impl Answer {
    /// The code of the error and of its only detail, and what it says.
    #[track_caller]
    fn error(&self) -> (&str, &str, &str) {
        let error = &self.body["error"];
        let (code, detail) = (error["code"].as_str(), error["details"][0]["code"].as_str());
        let message = error["message"].as_str();
        assert_eq!(error["details"][0]["message"].as_str(), message, "{self:?}");
        match (code, detail, message) {
            (Some(code), Some(detail), Some(message)) => (code, detail, message),
            _ => panic!("no error of the service: {self:?}"),
        }
    }
}

/// One with a custom topic and a namespace with the topic `alerts`.
fn start() -> Sim {
    start_with(|grid| grid)
}

fn start_with(change: impl FnOnce(EventGrid) -> EventGrid) -> Sim {
    let grid = EventGrid { namespace_topics: vec!["alerts".to_owned()], ..EventGrid::new() };
    Sim::start_with(|config| config.with_event_grid(change(grid)))
}

fn event(id: &str) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/gateways/gw01", "type": "t", "severity": "warning",
        "time": "2026-11-20T21:00:00.123Z", "data": {"state": "raised"}
    })
}

fn batch(ids: &[&str]) -> String {
    Value::Array(ids.iter().map(|id| event(id)).collect()).to_string()
}

/// The ids of what was accepted, in their order.
fn accepted(sim: &Sim) -> Vec<String> {
    let (status, page) = sim.get("/eventgrid/events?after=0");
    assert_eq!(status, 200, "{page}");
    let entries = page["entries"].as_array().unwrap();
    entries.iter().map(|entry| entry["event"]["id"].as_str().unwrap().to_owned()).collect()
}

fn fault(sim: &Sim, order: Value) {
    sim.order("/eventgrid/faults", &order.to_string());
}

fn counters(sim: &Sim) -> Value {
    sim.get("/eventgrid/counters").1
}
