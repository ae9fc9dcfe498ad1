//! `cargo xtask fuzz`: random bytes for every decoder of bytes that nobody vouches for.
//!
//! It runs the tests that a normal test run contains with many more cases, in parallel on the cores, with
//! overflow checks and debug assertions in our own crates. `fuzz/` holds the same decoders for cargo-fuzz,
//! which is guided by coverage and needs a nightly compiler.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use crate::cargo::Cargo;
use crate::packages::{self, Need};
use crate::say;

/// The tests: the decoders of the gateway, those of the stand-in for the cloud, and our MQTT decoder
/// against another.
const TESTS: [&str; 3] = [
    "random_bytes_never_make_a_decoder_of_the_gateway_panic",
    "random_bytes_never_make_a_decoder_of_the_stand_in_panic",
    "what_we_accept_rumqttc_accepts_alike_but_for_what_is_listed",
];
/// The crates whose arithmetic is checked.
const CHECKED: [&str; 3] = ["penstock", "penstock-proto", "cloud-sim"];

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Cases for all decoders of the gateway together; the stand-in's get a tenth of that, and as many packets
    /// go through our MQTT decoder and another
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) cases: u64,
    /// What the cases depend on; the same seed makes the same cases
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Threads; as many as there are cores if not given
    #[arg(long)]
    pub(crate) threads: Option<u64>,
    /// Run a failing case of an earlier run again, and nothing else
    #[arg(long, value_name = "FILE")]
    pub(crate) replay: Option<PathBuf>,
}

/// Builds and runs.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    packages::ensure(Need::BuildAndTest)?;
    let mut cargo = Cargo::new()?;
    let directory = cargo.target().join("fuzz");
    let mut variables = vec![
        ("PENSTOCK_FUZZ_CASES", arguments.cases.to_string()),
        ("PENSTOCK_FUZZ_DIR", directory.display().to_string()),
    ];
    variables.extend(arguments.seed.map(|seed| ("PENSTOCK_FUZZ_SEED", seed.to_string())));
    variables.extend(arguments.threads.map(|threads| ("PENSTOCK_FUZZ_THREADS", threads.to_string())));
    let mut tests = TESTS.as_slice();
    if let Some(file) = &arguments.replay {
        let file = fs::canonicalize(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let kafka = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("kafka"));
        tests = if kafka { &TESTS[1..2] } else { &TESTS[..1] };
        variables.push(("PENSTOCK_FUZZ_REPLAY", file.display().to_string()));
    }
    say::step(&format!(
        "{} random cases; what panics is written to {}",
        arguments.cases,
        directory.display()
    ));
    let settings = CHECKED.iter().flat_map(|name| {
        ["overflow-checks", "debug-assertions"]
            .map(|key| format!("profile.release.package.{name}.{key}=true"))
    });
    let settings: Vec<String> = settings.collect();
    let mut line = vec!["test", "--locked", "--release", "--workspace", "--lib", "--no-fail-fast"];
    line.extend(settings.iter().flat_map(|setting| ["--config", setting.as_str()]));
    line.extend(["--", "--nocapture"]);
    line.extend(tests);
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    cargo.run(&line, &variables)?;
    cargo.native_compiled_once()
}
