//! What an entry costs in a packed record, and the headers of a record of its own.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use penstock::outbox::{Properties, Record};
use penstock::uplink::{HeaderMode, Headers, Pack, PackCompression, PackFormat};
use penstock_proto::{Epoch, GatewayId, Identity, Lane, LogId, Seq, Stream, json};

/// Entries of one pack.
const ENTRIES: u64 = 700;

/// A reading of 200 bytes, as a controller writes them.
fn payload(number: u64) -> String {
    let reading = format!(
        r#"{{"device":"press-{:03}","reading":{number},"taken_ms":{},"temperature":{}.{},"pressure":101.{},"vibration":0.{},"pad":""#,
        number % 500,
        1_700_000_000_000 + number * 13,
        20 + number % 9,
        number % 97,
        number % 89,
        number % 83,
    );
    format!("{reading:x<198}\"}}")
}

fn record<'a>(payload: &'a str, number: u64) -> Record<'a> {
    Record {
        device: "press-017",
        topic: "devices/press-017/telemetry",
        received_ms: 1_700_000_000_000 + number / 3,
        qos: 1,
        retain: false,
        clock_synced: true,
        properties: Properties::default(),
        payload: payload.as_bytes(),
    }
}

fn pack(criterion: &mut Criterion) {
    let payloads: Vec<String> = (0..ENTRIES).map(payload).collect();
    let binary: Vec<String> = payloads.iter().map(|text| text.replace('"', "\u{1}")).collect();
    let mut group = criterion.benchmark_group("pack");
    group.throughput(Throughput::Elements(ENTRIES));
    for (name, payloads, format, compression) in [
        ("ndjson", &payloads, PackFormat::Ndjson, PackCompression::None),
        ("ndjson of binary", &binary, PackFormat::Ndjson, PackCompression::None),
        ("protobuf", &payloads, PackFormat::Protobuf, PackCompression::None),
        ("ndjson gzip", &payloads, PackFormat::Ndjson, PackCompression::Gzip),
        ("protobuf deflate", &payloads, PackFormat::Protobuf, PackCompression::Deflate),
    ] {
        let mut pack = Pack::new(format, compression);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                pack.begin(Seq(1));
                for (number, payload) in (1..).zip(payloads) {
                    let record = record(payload, number);
                    black_box(pack.entry_bytes(&record));
                    pack.push(Seq(number), &record);
                }
                pack.finish().map(<[u8]>::len)
            });
        });
    }
    group.finish();
}

/// Our own check of a payload against the general parser.
fn check_json(criterion: &mut Criterion) {
    let payloads: Vec<String> = (0..ENTRIES).map(payload).collect();
    let mut group = criterion.benchmark_group("json");
    group.throughput(Throughput::Elements(ENTRIES));
    group.bench_function("scan", |bencher| {
        bencher.iter(|| payloads.iter().filter(|text| json::scan_whole(black_box(text)).is_some()).count());
    });
    group.bench_function("serde_json IgnoredAny", |bencher| {
        let check = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        bencher.iter(|| payloads.iter().filter(|text| check(black_box(text))).count());
    });
    group.finish();
}

fn headers(criterion: &mut Criterion) {
    let identity = Identity {
        gateway: "site-7".parse::<GatewayId>().expect("the name is well formed"),
        log: LogId(0x00c0_ffee_1234_5678),
        epoch: Epoch(3),
        lane: Lane::Telemetry,
        seq: Seq(1_234_567_890),
        prev: Seq(1_234_567_887),
        stream: Stream::Live,
    };
    let text = payload(1);
    let properties = Properties { content_type: Some("application/json"), ..Properties::default() };
    let record = Record { properties, ..record(&text, 1) };
    for (name, mode) in [
        ("minimal", HeaderMode::Minimal),
        ("full", HeaderMode::Full),
        ("iothub", HeaderMode::IotHub),
        ("cloudevents", HeaderMode::CloudEvents),
    ] {
        criterion.bench_function(&format!("headers/{name}"), |bencher| {
            let mut headers = Headers::default();
            bencher.iter_batched_ref(
                || (),
                |()| {
                    headers.fill(mode, black_box(&identity), black_box(&record));
                    headers.bytes()
                },
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, pack, check_json, headers);
criterion_main!(benches);
