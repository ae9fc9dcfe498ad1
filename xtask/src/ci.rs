//! `cargo xtask ci`: what has to pass before a change goes in, each step timed.

use std::time::Duration;

use anyhow::{Result, bail};

use crate::cargo::{Cargo, SELECTION};
use crate::conformance;
use crate::demo;
use crate::dependencies::Policy;
use crate::drill;
use crate::kafka;
use crate::packages::{self, Need};
use crate::proto;
use crate::say;
use crate::signals;
use crate::test;

/// One step: its name, what it does, and whether the later steps make no sense without it.
struct Step {
    name: &'static str,
    run: fn(&mut Cargo) -> Result<()>,
    essential: bool,
}

const STEPS: &[Step] = &[
    Step { name: "packages", run: |_| packages::ensure(Need::BuildAndTest), essential: true },
    Step { name: "format", run: |cargo| cargo.run(&["fmt", "--all", "--check"], &[]), essential: false },
    Step { name: "dependencies", run: dependencies, essential: false },
    Step { name: "schemas", run: proto::check, essential: false },
    Step { name: "build", run: Cargo::build, essential: true },
    Step { name: "lints", run: lints, essential: false },
    Step { name: "tests", run: test::tests, essential: false },
    Step { name: "documents", run: documents, essential: false },
    Step { name: "demo", run: |cargo| demo::short(cargo, 0), essential: false },
    Step { name: "demo with kills", run: |cargo| demo::short(cargo, 2), essential: false },
    Step { name: "drills", run: |cargo| drill::short(cargo), essential: false },
    Step { name: "apache kafka", run: |cargo| kafka::short(cargo), essential: false },
    Step { name: "conformance", run: |cargo| conformance::short(cargo), essential: false },
    Step { name: "one C++ build", run: |cargo| cargo.native_compiled_once(), essential: false },
];

/// Runs every step, prints what each took, and fails if any failed. Steps go on after a failure, so that one
/// run shows everything that is wrong, except where the later ones need the failed one.
pub(crate) fn run() -> Result<()> {
    let mut cargo = Cargo::new()?;
    let mut rows = vec![["step", "result", "seconds"].map(str::to_owned).to_vec()];
    let mut failed = Vec::new();
    for step in STEPS {
        say::step(&format!("ci: {}", step.name));
        let start = signals::now();
        let outcome = (step.run)(&mut cargo);
        rows.push(row(step.name, &outcome, start.elapsed()));
        if let Err(error) = &outcome {
            say::failure(&format!("{}: {error:#}", step.name));
            failed.push(step.name);
        }
        if signals::interrupted() || (outcome.is_err() && step.essential) {
            break;
        }
    }
    let tests = cargo.tests();
    say::line(&format!("\n{}", say::table(&rows)));
    say::line(&format!("{} tests passed, {} failed, {} ignored", tests.passed, tests.failed, tests.ignored));
    if failed.is_empty() {
        say::line("ci: everything passed");
        return Ok(());
    }
    bail!("ci: failed: {}", failed.join(", "));
}

fn row(name: &str, outcome: &Result<()>, took: Duration) -> Vec<String> {
    let result = if outcome.is_ok() { "pass" } else { "FAIL" };
    vec![name.to_owned(), result.to_owned(), format!("{:.1}", took.as_secs_f64())]
}

fn lints(cargo: &mut Cargo) -> Result<()> {
    cargo.run(&[&["clippy", "--locked"], SELECTION.as_slice(), &["--", "-D", "warnings"]].concat(), &[])
}

fn documents(cargo: &mut Cargo) -> Result<()> {
    let arguments = ["doc", "--locked", "--no-deps", "--document-private-items", "--release", "--workspace"];
    cargo.run(&arguments, &[("RUSTDOCFLAGS", "-Dwarnings")])
}

fn dependencies(cargo: &mut Cargo) -> Result<()> {
    let policy = Policy::read(&cargo.root().join("deny.toml"))?;
    let metadata = cargo.metadata()?;
    let violations = policy.violations(&metadata, cargo.root());
    for violation in &violations {
        say::line(violation);
    }
    if violations.is_empty() {
        say::line("licences, sources and bans: no violation");
        return Ok(());
    }
    bail!("{} violations of deny.toml", violations.len());
}
