//! Feeds every decoder; `cargo xtask fuzz` runs this with many more cases.

use testkit::fuzz::{Plan, Target, replay, run};

use super::{decoders, proto};

/// Cases of a normal test run, for all decoders together: about two seconds.
const CASES: u64 = 300_000;

/// What cases of a decoder are made of.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let stages = [
        crate::mqtt::fuzzing_seeds,
        crate::outbox::fuzzing_seeds,
        crate::uplink::fuzzing_seeds,
        crate::commands::fuzzing_seeds,
        crate::alerts::fuzzing_seeds,
        crate::config::fuzzing_seeds,
        proto::seeds,
    ];
    stages.iter().flat_map(|seeds| seeds(name)).collect()
}

fn targets() -> Vec<Target> {
    let target = |decoder: super::Decoder| {
        let super::Decoder { name, decode, weight } = decoder;
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has nothing to begin with");
        Target { name, decode, seeds, weight }
    };
    decoders().map(target).collect()
}

#[test]
fn random_bytes_never_make_a_decoder_of_the_gateway_panic() {
    let (targets, plan) = (targets(), Plan::from_environment(CASES));
    if let Some(file) = &plan.replay {
        replay(&targets, file).expect("the case of a decoder");
        return;
    }
    println!("PENSTOCK_FUZZ_SEED={} PENSTOCK_FUZZ_CASES={}", plan.seed, plan.cases);
    let outcome = run(&targets, &plan);
    println!("{outcome}");
    assert!(outcome.failures.is_empty(), "{} kinds of panics", outcome.failures.len());
}

/// The folder for cargo-fuzz has a target for each decoder, and no others.
#[test]
fn every_decoder_is_a_target_of_cargo_fuzz() {
    let manifest = include_str!("../../../fuzz/Cargo.toml");
    let names = |file: &str| {
        let path = format!("path = \"fuzz_targets/{file}.rs\"");
        let bins = manifest.split("[[bin]]").skip(1).filter(|bin| bin.contains(&path));
        let name = |bin: &str| bin.split('"').nth(1).map(str::to_owned);
        bins.filter_map(name).collect::<Vec<_>>()
    };
    let expected: Vec<_> = decoders().map(|decoder| decoder.name.to_owned()).collect();
    assert_eq!(names("gateway"), expected);
    assert_eq!(
        names("cloud_sim"),
        ["kafka_request", "kafka_batch", "amqp_frame", "amqp_message", "cloud_event"]
    );
}

#[test]
fn every_decoder_has_a_name_of_its_own() {
    let mut names: Vec<_> = decoders().map(|decoder| decoder.name).collect();
    assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')));
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}
