//! `cargo xtask conformance`: the interoperability tests of Eclipse paho.mqtt.testing against the gateway.
//!
//! The suites are not part of this project: `--paho` says where a copy of them lies. Each test runs in a process of
//! its own with a limit, since a test that waits for ever would hide the others, and one after the other, since they
//! share client ids and topics. `--against` points them at another broker: mosquitto 2.0.11 passes 8 of 10 and 20 of
//! 27, which tells a runner that works from one that does not.

mod suite;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cargo::Cargo;
use crate::say;
use crate::serve_test::{self, Server};
use crate::signals;
use suite::{Address, Suites, Test, Verdict};

/// Names a copy of the suites to `ci`.
const VARIABLE: &str = "PENSTOCK_PAHO_DIR";
/// Longest run of one test.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a test is tried. Some publish on one connection what was subscribed to on another a moment before, without
/// waiting for the acknowledgement, and rest on the order in which a broker looks at its sockets.
const TRIES: u32 = 5;
/// How many lines of a failed test are shown.
const LINES_SHOWN: usize = 40;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Arguments {
    /// A copy of Eclipse paho.mqtt.testing
    #[arg(long, value_name = "DIR")]
    pub(crate) paho: PathBuf,
    /// Only the test with this name, for example `test_keepalive` or `client_test5.test_keepalive`
    #[arg(long, value_name = "NAME")]
    pub(crate) only: Option<String>,
    /// Another broker instead of the gateway
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) against: Option<Address>,
    /// Start what is built already
    #[arg(long)]
    pub(crate) built: bool,
}

/// Runs the suites against what was asked for.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let suites = Suites::find(&arguments.paho)?;
    if let Some(address) = &arguments.against {
        return judge(&suites, arguments.only.as_deref(), address, || Ok(()));
    }
    serve(&suites, arguments.only.as_deref(), &serve_test::prepare(arguments.built)?)
}

/// The suites with the programs that are already built, for `ci`. Where no copy of them is named it says so.
pub(crate) fn short(cargo: &Cargo) -> Result<()> {
    let Some(folder) = std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) else {
        say::line(&format!(
            "skipped: the suites of Eclipse paho.mqtt.testing were not run; {VARIABLE} names a copy of them"
        ));
        return Ok(());
    };
    serve(&Suites::find(&PathBuf::from(folder))?, None, cargo)
}

fn serve(suites: &Suites, only: Option<&str>, cargo: &Cargo) -> Result<()> {
    // Beside the build and not in /tmp, which may be memory.
    let folder = tempfile::Builder::new().prefix("conformance-").tempdir_in(cargo.target());
    let folder = folder.context("no folder for the gateway's data")?;
    let mut server = Server::start(folder.path(), serve_test::Arguments::default())?;
    let address = server.mqtt().parse().map_err(anyhow::Error::msg)?;
    let verdict = judge(suites, only, &address, || server.still_running());
    match verdict {
        Ok(()) => server.stop(),
        Err(error) if signals::interrupted() => Err(error),
        Err(error) => {
            say::error_line(&format!("the end of the gateway's log:\n{}", server.log()));
            let kept = folder.keep();
            Err(error.context(format!("the gateway's log and data are kept in {}", kept.display())))
        }
    }
}

/// Runs a test until it passes or was tried often enough; each try is a line.
fn tried(suites: &Suites, test: &Test, address: &Address) -> Result<Verdict> {
    let mut last = Verdict::Fail;
    for attempt in 1..=TRIES {
        let start = signals::now();
        let (verdict, said) = suites.run(test, address, LIMIT)?;
        let again = if attempt > 1 { format!(", try {attempt}") } else { String::new() };
        say::line(&format!("{verdict:<7} {:>5.1} s  {test}{again}", start.elapsed().as_secs_f64()));
        if verdict == Verdict::Pass {
            return Ok(verdict);
        }
        let end = said.len().saturating_sub(LINES_SHOWN);
        said.iter().skip(end).for_each(|line| say::line(&format!("    | {line}")));
        last = verdict;
        if verdict == Verdict::Hang {
            break;
        }
    }
    Ok(last)
}

/// Runs the tests and fails unless every one passed; `between` is asked after each and may end it.
fn judge(
    suites: &Suites,
    only: Option<&str>,
    address: &Address,
    mut between: impl FnMut() -> Result<()>,
) -> Result<()> {
    let tests: Vec<Test> =
        suites.tests()?.into_iter().filter(|test| only.is_none_or(|only| test.is(only))).collect();
    if tests.is_empty() {
        let names: Vec<String> = suites.tests()?.iter().map(Test::to_string).collect();
        bail!("no such test; there are {}", names.join(", "));
    }
    say::step(&format!("Eclipse paho.mqtt.testing against {address}"));
    let mut totals: Vec<(&str, usize, usize)> = Vec::new();
    for test in &tests {
        signals::check()?;
        let verdict = tried(suites, test, address)?;
        let passed = usize::from(verdict == Verdict::Pass);
        match totals.iter_mut().find(|(suite, ..)| *suite == test.suite) {
            Some((_, good, all)) => (*good, *all) = (*good + passed, *all + 1),
            None => totals.push((test.suite, passed, 1)),
        }
        between()?;
    }
    let all_passed = totals.iter().all(|(_, good, all)| good == all);
    let totals: Vec<String> =
        totals.iter().map(|(suite, good, all)| format!("{suite} {good}/{all}")).collect();
    say::line(&totals.join(", "));
    if all_passed { Ok(()) } else { bail!("not every test passed: {}", totals.join(", ")) }
}
