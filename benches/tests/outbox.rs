//! The jobs of `outbox` as processes of their own, for moments only: what they say is complete and can be true.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use penstock_benches::outbox::job::{Figures, Job, PACED_PRODUCERS, Tested, Timing};
use penstock_benches::outbox::log::{Codec, Setup};

const TIMING: Timing = Timing { warm_up_ms: 50, measure_ms: 200 };

const SETUP: Setup = Setup { codec: Codec::Lz4, floor_micros: 1000 };

/// Runs a job in `folder` and closes its standard input once it has said its figures.
fn figures(job: &Job, folder: &Path) -> Result<Figures> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_penstock-benches"));
    command.arg("outbox-job").arg(serde_json::to_string(job)?).arg(folder);
    let mut running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(running.stdout.take().context("it is piped")?).read_line(&mut line)?;
    drop(running.stdin.take());
    ensure!(running.wait()?.success(), "{job:?}");
    Ok(serde_json::from_str(&line)?)
}

#[test]
fn both_logs_make_durable_what_the_same_producers_send() {
    for log in [Tested::Plain, Tested::Outbox(SETUP)] {
        let folder = tempfile::tempdir().unwrap();
        let found = figures(
            &Job::Closed { log, drain: false, producers: 2, window: 8, timing: TIMING },
            folder.path(),
        )
        .unwrap();
        assert!(found["per_second"] > 0.0 && found["p50_us"] >= found["least_us"], "{log:?}: {found:?}");
        // Never more than what is in flight.
        assert!(found["group"] >= 1.0 && found["group"] <= 16.0, "{log:?}: {found:?}");
        assert_eq!(found["compaction_ratio"], 0.0, "{log:?}: {found:?}");
    }
}

#[test]
fn a_rate_is_kept_while_a_consumer_follows() {
    let folder = tempfile::tempdir().unwrap();
    let rate = 250 * PACED_PRODUCERS;
    let found =
        figures(&Job::Steady { setup: SETUP, rate, drain: true, timing: TIMING }, folder.path()).unwrap();
    // A busy machine delays, and then what is due comes at once.
    assert!(found["per_second"] <= f64::from(rate) * 2.0, "{found:?}");
    assert!(found["p50_us"] > 0.0, "{found:?}");
}

#[test]
fn a_backlog_that_was_filled_is_there_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let backlog_bytes = 200_000;
    let filled = figures(&Job::Fill { setup: SETUP, backlog_bytes }, folder.path()).unwrap();
    assert!(filled["disk_bytes"] > 0.0, "{filled:?}");
    let opened = figures(&Job::Open { setup: SETUP }, folder.path()).unwrap();
    assert!(opened["backlog_bytes"] >= 200_000.0, "{opened:?}");
    assert!(opened["open_ms"] > 0.0, "{opened:?}");
}
