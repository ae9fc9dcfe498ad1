//! Every event about alerts is a CloudEvent, whatever devices call themselves: judged by libraries that were not written
//! here.
//!
//! `PENSTOCK_TEST_EVENTS` says how many events are made, 5,000 unless it is set; `PENSTOCK_TEST_SEED` makes the same again.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use penstock::alerts::{Rules, Trial};
use penstock::outbox::{Properties, Record};
use penstock_proto::{Epoch, LogId, Seq};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use testkit::cloud::event_grid::{EVENT_BYTES_MAX, judge, judges_are_installed};

/// One rule of each severity with names and labels that JSON has to escape, and one that makes storms.
const RULES: &str = r#"
[alerting]
group_by = ["tenant", "site", "class", "rule", "severity"]
group_wait = "0s"
group_interval = "1s"
storm = { when_open_in_group = 20 }
max_rate = { events_per_s = 5000, burst = 1000000 }
tenant_rate = { events_per_s = 5000, burst = 1000000 }

[[rule]]
id = "hot"
metric = "temperature"
raise = "> 70"
clear = "< 60"
critical = { raise = "> 90", clear = "< 85" }
runbook = "https://wiki.example/\"hot\"?a=b&c=\u00e9"
labels = { team = "\u0001\n\ud7ff\ufffe😀\\" }
"#;

#[test]
fn whatever_devices_call_themselves_their_alerts_are_events_that_everybody_accepts() {
    let number = |name: &str, default: u64| {
        std::env::var(name)
            .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}")))
    };
    if !judges_are_installed() {
        return;
    }
    let seed = number("PENSTOCK_TEST_SEED", rand::random());
    let wanted = number("PENSTOCK_TEST_EVENTS", 5000);
    println!("seed {seed}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("events.jsonl");
    let made = write(&file, seed, wanted);
    let verdict = judge(&file).expect("a verdict");
    for opinion in &verdict.opinions {
        println!("{}: {} of {} refused", opinion.judge, opinion.refused, verdict.events);
    }
    println!("largest event: {} bytes; {} storms", made.largest, made.storms);
    assert!(verdict.is_clean(), "seed {seed}: {verdict:#?}");
    assert_eq!(verdict.events, made.events);
    assert!(made.events >= wanted && made.storms > 0, "{made:?}");
    assert!(made.largest < EVENT_BYTES_MAX, "{made:?}");
}

/// What was made.
#[derive(Debug, Clone, Copy, Default)]
struct Made {
    events: u64,
    storms: u64,
    /// Bytes of the largest one.
    largest: usize,
}

/// Writes events to a file, one on each line, until there are so many.
fn write(file: &Path, seed: u64, wanted: u64) -> Made {
    let rules = Rules::parse(RULES, "rules.toml").expect("a rules file");
    assert_eq!(rules.errors().collect::<Vec<_>>(), [""; 0]);
    let (mut trial, mut random) = (Trial::new(&rules, None), StdRng::seed_from_u64(seed));
    let mut lines = BufWriter::new(File::create(file).expect("a file"));
    let (mut made, mut at) = (Made::default(), 0);
    while made.events < wanted {
        let mut names = Names::new(&mut random);
        // Some places have so many devices in trouble that one event speaks for them.
        let crowd = if random.random_ratio(1, 200) { 30 } else { 1 };
        for (value, place) in
            [75.0, 95.0, 80.0, 20.0].into_iter().flat_map(|value| (0..crowd).map(move |place| (value, place)))
        {
            if crowd > 1 {
                names.device = format!("{place}{}", names.place());
            }
            at += 1;
            let payload = format!("{{\"temperature\":{value}}}");
            let position = (LogId(seed), Epoch(1), Seq(at));
            trial.apply(position, &names.record(payload.as_bytes()), 1_700_000_000_000 + at * 10);
            trial
                .take_outcomes(|event| {
                    made.events += 1;
                    made.largest = made.largest.max(event.len());
                    made.storms += u64::from(event.windows(15).any(|part| part == b".alert.storm.v1"));
                    lines.write_all(event)?;
                    lines.write_all(b"\n")
                })
                .expect("written");
        }
    }
    lines.flush().expect("written");
    made
}

/// What a message says of where it comes from.
struct Names {
    device: String,
    topic: String,
    captured: [Option<String>; 4],
    traceparent: Option<String>,
}

impl Names {
    fn new(random: &mut StdRng) -> Self {
        let mut maybe = || random.random_bool(0.5).then(|| hostile(random));
        let captured = [maybe(), maybe(), maybe(), maybe()];
        let traceparent = match random.random_range(0..3) {
            0 => None,
            1 => Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            _ => Some(hostile(random)),
        };
        Self { device: hostile(random), topic: hostile(random), captured, traceparent }
    }

    /// Something of the device's name that is not long.
    fn place(&self) -> String {
        self.device.chars().take(100).collect()
    }

    fn record<'a>(&'a self, payload: &'a [u8]) -> Record<'a> {
        let [tenant, site, class, stream] = self.captured.each_ref().map(Option::as_deref);
        let traceparent = self.traceparent.as_deref();
        Record {
            device: &self.device,
            topic: &self.topic,
            received_ms: 1_700_000_000_000,
            qos: 1,
            retain: false,
            clock_synced: true,
            properties: Properties { tenant, site, class, stream, traceparent, ..Properties::default() },
            payload,
        }
    }
}

/// A name that nobody should give to anything: short to very long, of what JSON, CloudEvents, URIs and people stumble over.
fn hostile(random: &mut StdRng) -> String {
    const TEXTS: &[&str] = &[
        "\"",
        "\\",
        "/",
        "\u{0}",
        "\u{1}",
        "\n",
        "\r\n",
        "\t",
        "\u{1b}[31m",
        "\u{7f}",
        "\u{85}",
        "\u{9f}",
        "\u{a0}",
        "\u{ad}",
        "\u{200b}",
        "\u{202e}",
        "\u{2028}",
        "\u{d7ff}",
        "\u{e000}",
        "\u{fdd0}",
        "\u{fdef}",
        "\u{feff}",
        "\u{fffd}",
        "\u{fffe}",
        "\u{ffff}",
        "\u{1fffe}",
        "\u{10ffff}",
        "😀",
        "👩‍👩‍👧",
        "é",
        "e\u{301}",
        "日本語",
        "%",
        "%00",
        "%zz",
        " ",
        "?",
        "#",
        "[",
        "{",
        "}",
        "<script>",
        "&amp;",
        "'",
        "`",
        "$",
        "*",
        "+",
        ":",
        "a",
        "7",
        "-",
        "..",
        "null",
    ];
    let parts = match random.random_range(0..1000) {
        0 => 20_000,
        1..10 => 1000,
        10..100 => 100,
        100..150 => 0,
        _ => random.random_range(1..10),
    };
    let mut part = || match random.random_range(0..3) {
        0 => random.random::<char>().to_string(),
        _ => TEXTS[random.random_range(0..TEXTS.len())].to_owned(),
    };
    (0..parts).map(|_| part()).collect()
}
