//! The `penstock` header costs about as much as the rest of a record: writing it is on the uplink's path, reading
//! it on the path of `penstock verify` and of every consumer.

use std::fmt::Write;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use penstock_proto::{Epoch, GatewayId, Identity, Lane, LogId, Seq, Stream};

fn identity() -> Identity {
    Identity {
        gateway: "site-7".parse::<GatewayId>().expect("the name is well formed"),
        log: LogId(0x00c0_ffee_1234_5678),
        epoch: Epoch(3),
        lane: Lane::Telemetry,
        seq: Seq(1_234_567_890),
        prev: Seq(1_234_567_887),
        stream: Stream::Live,
    }
}

fn write_header(criterion: &mut Criterion) {
    let identity = identity();
    let mut text = String::with_capacity(128);
    criterion.bench_function("identity/write", |bencher| {
        bencher.iter(|| {
            text.clear();
            write!(text, "{}", black_box(&identity)).expect("a string takes everything");
            text.len()
        });
    });
}

fn read_header(criterion: &mut Criterion) {
    let text = identity().to_string();
    criterion.bench_function("identity/read", |bencher| {
        bencher.iter(|| black_box(text.as_str()).parse::<Identity>());
    });
}

criterion_group!(benches, write_header, read_header);
criterion_main!(benches);
