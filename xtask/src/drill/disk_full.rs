//! The disk fills, and a sync fails: the gateway stays up, says so, acknowledges nothing it cannot keep, and
//! goes on by itself once it can.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testkit::drill::stage::{Birth, Load, Stage};
use testkit::gateway::Config;
use testkit::powercut::{Disk, Mode, PowerCut};

use super::metrics::sum;
use super::tally;
use crate::say;
use crate::signals;

/// A disk with room for everything.
const ROOMY: u64 = 64 << 30;
/// How long the disk stays full after the gateway has noticed.
const FULL_FOR: Duration = Duration::from_millis(1500);
/// Longest wait for the gateway to notice, or to recover.
const NOTICE_WITHIN: Duration = Duration::from_secs(40);
/// How often it is asked.
const LOOK: Duration = Duration::from_millis(100);

/// What goes wrong in an episode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Others take all that is free.
    Sudden,
    /// Others leave this many bytes, which the gateway then fills itself.
    Gradual(u64),
    /// As `Sudden`, and the process dies and starts again while the disk is full.
    Restart,
    /// A sync of the log with this number fails.
    FailedSync(u64),
}

/// Plays each episode once.
pub(super) fn run(folder: &Path, seed: u64) -> Result<()> {
    say::step(&format!("drill disk-full: 4 episodes, seed {seed}"));
    let mut random = StdRng::seed_from_u64(seed);
    let room = random.random_range(2..12) << 20;
    let sync = random.random_range(30..400);
    let troubles = [Trouble::Sudden, Trouble::Gradual(room), Trouble::Restart, Trouble::FailedSync(sync)];
    let mut broken = Vec::new();
    for (number, trouble) in (1..).zip(troubles) {
        let place = folder.join(format!("episode-{number}"));
        let start = signals::now();
        let played = episode(&place, trouble, random.random());
        let seconds = start.elapsed().as_secs_f64();
        match played.with_context(|| format!("episode {number} ({trouble:?})")) {
            Ok((line, reasons)) => {
                say::line(&format!("episode {number} ({trouble:?}): {line}, {seconds:.1} s"));
                broken.extend(reasons.iter().map(|reason| format!("episode {number}: {reason}")));
            }
            Err(error) => broken.push(format!("{error:#}")),
        }
    }
    match broken[..] {
        [] => {
            say::line(&format!("episodes 4, failed 0, seed {seed}"));
            Ok(())
        }
        _ => bail!("{}; seed {seed}", broken.join("; ")),
    }
}

fn episode(folder: &Path, trouble: Trouble, seed: u64) -> Result<(String, Vec<String>)> {
    std::fs::create_dir_all(folder).context("no folder for the episode")?;
    let home = folder.join("life-0");
    let outbox = home.join("outbox");
    let disk = Disk::new(&folder.join("disk"), ROOMY).context("no file for the disk's size")?;
    let cut = PowerCut::prepare(&outbox, &folder.join("twin"), Mode::Strict)?.on(&disk);
    let cut = match trouble {
        Trouble::FailedSync(number) => cut.failing_sync(number),
        _ => cut,
    };
    let config = Config::default().set("outbox", "body_codec = \"none\"").environment(cut.environment());
    let load =
        Load { seed, devices: 40, rate: 1500, payload_bytes: 8000, give_up_after: Duration::from_secs(40) };
    let mut stage = Stage::set(folder, &home, config, load)?;
    // Without the cloud nothing is trimmed, so that a full disk stays full.
    stage.cloud_is_there(false)?;
    wait(&mut stage, "the first acknowledgements", |now| now.appended > 1000.0)?;
    let told = match trouble {
        Trouble::FailedSync(_) => wait(&mut stage, "the failed sync to be noticed", |now| now.reopened > 0.0)
            .map(|_| "noticed".to_owned())?,
        Trouble::Sudden => full(&mut stage, &disk, used(&outbox)?)?,
        Trouble::Restart => {
            disk.resize(used(&outbox)?).context("the disk cannot be filled")?;
            restart(&mut stage, &disk, &home, &cut)?
        }
        Trouble::Gradual(room) => full(&mut stage, &disk, used(&outbox)? + room)?,
    };
    stage.cloud_is_there(true)?;
    let outcome = stage.judge(Duration::from_millis(500))?;
    Ok((format!("{told}; {}", tally::line(&outcome.report)), outcome.broken()))
}

/// Leaves the disk with `bytes`, watches the gateway stand still and answer, and gives the space back.
fn full(stage: &mut Stage, disk: &Disk, bytes: u64) -> Result<String> {
    disk.resize(bytes).context("the disk cannot be filled")?;
    let start = signals::now();
    // Room that was reserved before may still be used; then nothing more is taken.
    let mut last = ask(stage)?;
    let mut since = signals::now();
    while since.elapsed() < FULL_FOR {
        signals::check()?;
        thread::park_timeout(LOOK);
        let now = ask(stage)?;
        if now.appended > last.appended {
            since = signals::now();
        }
        if start.elapsed() > NOTICE_WITHIN {
            bail!("the gateway still acknowledges {NOTICE_WITHIN:?} after the disk was full");
        }
        last = now;
    }
    let stood = start.elapsed();
    disk.resize(ROOMY).context("the disk cannot be emptied")?;
    let back = signals::now();
    wait(stage, "new acknowledgements after the space came back", |now| now.appended > last.appended)?;
    Ok(format!(
        "full for {:.1} s, acknowledging again {:.1} s after",
        stood.as_secs_f64(),
        back.elapsed().as_secs_f64()
    ))
}

/// Kills the gateway on the full disk and starts it there: its ballast gives it the room to open.
fn restart(stage: &mut Stage, disk: &Disk, home: &Path, cut: &PowerCut) -> Result<String> {
    stage.gateway().kill()?;
    let start = signals::now();
    if stage.next_life(home, cut.environment()).context("start on the full disk")? != Birth::Ready {
        bail!("the gateway was killed by somebody else");
    }
    let ready = start.elapsed().as_secs_f64();
    ask(stage)?;
    disk.resize(ROOMY).context("the disk cannot be emptied")?;
    wait(stage, "new acknowledgements after the space came back", |now| now.appended > 0.0)?;
    Ok(format!("started on the full disk in {ready:.1} s"))
}

/// What the gateway says of itself.
#[derive(Debug, Clone, Copy)]
struct Now {
    /// Messages made durable since its start.
    appended: f64,
    /// How often the store was opened again.
    reopened: f64,
}

/// Asks until it is so. The health listener has to answer all the time.
fn wait(stage: &mut Stage, what: &str, so: impl Fn(Now) -> bool) -> Result<Now> {
    let start = signals::now();
    loop {
        signals::check()?;
        let now = ask(stage)?;
        if so(now) {
            return Ok(now);
        }
        if start.elapsed() > NOTICE_WITHIN {
            bail!("waited in vain for {what}: {now:?}");
        }
        thread::park_timeout(LOOK);
    }
}

fn ask(stage: &mut Stage) -> Result<Now> {
    let gateway = stage.gateway();
    if !gateway.process().running()? {
        bail!("the gateway ended; its last words:\n{}", gateway.process().stderr_tail());
    }
    let alive = gateway.health("/healthz").context("the health listener does not answer")?;
    if alive.is_none() {
        bail!("the gateway says that it is not alive");
    }
    let metrics = gateway.health("/metrics").context("the health listener does not answer")?;
    let metrics = metrics.context("there are no metrics")?;
    Ok(Now { appended: sum(&metrics, APPENDED), reopened: sum(&metrics, REOPENED) })
}

const APPENDED: &str = "penstock_outbox_appended_messages_total";
const REOPENED: &str = "penstock_outbox_reopens_total";

fn used(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        // Files come and go meanwhile.
        let Ok(about) = entry.metadata() else { continue };
        bytes += if about.is_dir() { used(&entry.path())? } else { about.len() };
    }
    Ok(bytes)
}
