//! Deaths at random moments: what is in lane alerts at the end is what a reader of the log from its beginning finds.

use std::collections::BTreeMap;
use std::time::Duration;

use penstock_proto::{Lane, Seq};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::super::{Config, Trial};
use super::site::{Site, parse};

const RULES: &str = r#"
[alerting]
flapping = { max_transitions = 0, window = "1s" }
storm = { when_open_in_group = 1000 }
max_rate = { events_per_s = 5000, burst = 100000 }

[[rule]]
id = "hot"
metric = "t"
raise = "> 90"
clear = "< 85"
critical = { raise = "> 105", clear = "< 100" }

[[rule]]
id = "lasting"
metric = "t"
raise = "> 70"
for = "20ms"
keep_firing_for = "10ms"
min_samples = 3
"#;

/// What the log says by itself: its entries given to the same rules, one after the other.
fn from_the_log(running: &mut super::site::Running) -> BTreeMap<String, Value> {
    let mut trial = Trial::new(&parse(RULES), None);
    let mut found = BTreeMap::new();
    let reader = running.outbox.consumer("reader", Lane::Telemetry).expect("it is free");
    let mut cursor = reader.cursor(Seq(1));
    while let Ok(Some(segment)) = cursor.try_next(1 << 20) {
        for (seq, record) in segment.records() {
            trial.apply((segment.log(), segment.epoch(), seq), &record, segment.committed_ms());
        }
    }
    let note = |event: &[u8]| {
        let event: Value = serde_json::from_slice(event).expect("JSON");
        found.insert(event["id"].as_str().unwrap_or_default().to_owned(), stripped(event));
        Ok::<(), std::convert::Infallible>(())
    };
    trial.take_outcomes(note).expect("it cannot fail");
    found
}

/// Without what names the gateway.
fn stripped(mut event: Value) -> Value {
    if let Some(event) = event.as_object_mut() {
        event.remove("source");
        event.remove("gatewayid");
        event
            .get_mut("data")
            .and_then(|data| data["origin"].as_object_mut())
            .map(|origin| origin.remove("gateway"));
    }
    event
}

#[test]
fn whenever_it_dies_the_alerts_are_those_of_the_log() {
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut site = Site::new();
        // Snapshots as often as possible, so that deaths meet them.
        let config = Config { snapshot_every: Duration::from_millis(1), ..site.config() };
        let mut values = [80.0_f64; 4];
        for _ in 0..6 {
            let running = site.start_with(RULES, &config);
            for _ in 0..random.random_range(1..60) {
                let device = random.random_range(0..values.len());
                values[device] = (values[device] + random.random_range(-12.0..12.0)).clamp(60.0, 110.0);
                site.publish(&running.outbox, &format!("d{device}"), values[device]);
            }
            running.kill(&site, random.random_bool(0.5));
        }
        let mut running = site.start_with(RULES, &config);
        let events = running.events();
        let mut told = BTreeMap::new();
        for event in events {
            let id = event["id"].as_str().unwrap_or_default().to_owned();
            assert!(told.insert(id.clone(), stripped(event)).is_none(), "seed {seed}: {id} is there twice");
        }
        let log = from_the_log(&mut running);
        let missing: Vec<_> = log.keys().filter(|id| !told.contains_key(*id)).collect();
        let surplus: Vec<_> = told.keys().filter(|id| !log.contains_key(*id)).collect();
        assert!(
            missing.is_empty() && surplus.is_empty(),
            "seed {seed}: missing {missing:?}, surplus {surplus:?}"
        );
        for (id, event) in &told {
            assert_eq!(Some(event), log.get(id), "seed {seed}");
        }
        assert!(told.len() > 10, "seed {seed}: {} events show nothing", told.len());
        running.stop();
    }
}
