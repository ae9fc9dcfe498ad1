//! `retry` and `discard`: through the gateway that has the outbox open, or on the outbox itself.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::Args as ClapArgs;
use penstock_proto::{Lane, Seq};
use serde::Deserialize;

use super::{Error, Site, oldest, parse_seq};
use crate::dead_letter::{self, Handle, Outcome, Through};
use crate::outbox::offline::{Snapshot, check_owner};
use crate::outbox::{self, ConsumerId, OpenError, Service};
use crate::supervise::{Supervisor, chain, clock};

/// Longest wait for the gateway to take a connection, and for the outbox to close.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    /// Where the gateway's API answers, if not where its configuration says.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
}

#[derive(Debug, Clone, ClapArgs)]
pub(super) struct DiscardArgs {
    #[command(flatten)]
    args: Args,
    /// Do it; without this, only says what would go.
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Clone, Copy, ClapArgs)]
#[group(required = true, multiple = false)]
struct Which {
    /// From the oldest one up to this position in lane dead.
    #[arg(long, value_name = "SEQ", value_parser = parse_seq)]
    through: Option<Seq>,
    /// All that are there.
    #[arg(long)]
    all: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy)]
enum Decision {
    Retry,
    Discard,
}

/// What the gateway answers.
#[derive(Debug, Deserialize)]
struct Answer {
    entries: u64,
    waiting: u64,
    error: Option<String>,
}

pub(super) fn retry(args: &Args, site: Site, out: &mut dyn Write) -> Result<bool, Error> {
    decide(Decision::Retry, args, site, out)
}

pub(super) fn discard(args: &DiscardArgs, site: Site, out: &mut dyn Write) -> Result<bool, Error> {
    if !args.yes {
        let snapshot = Snapshot::open(&site.outbox.directory)?;
        let (first, next) = (oldest(&snapshot), snapshot.lane(Lane::Dead).next);
        let end = args.args.which.through.map_or(next, |last| last.next().min(next));
        let entries = end.0.saturating_sub(first.0);
        writeln!(out, "{entries} dead letters would be discarded, from position {first}")?;
        out.flush()?;
        return Err(Error::Arguments("nothing was changed; add --yes to do it".to_owned()));
    }
    decide(Decision::Discard, &args.args, site, out)
}

fn decide(decision: Decision, args: &Args, site: Site, out: &mut dyn Write) -> Result<bool, Error> {
    let through = args.which.through.map_or(Through::All, Through::Seq);
    let admin = args.admin.unwrap_or(site.admin);
    let answer = match open(site)? {
        Some(stopped) => stopped.decide(decision, through)?,
        None => ask(admin, decision, through)?,
    };
    let Answer { entries, waiting, error } = answer;
    writeln!(out, "{entries} dead letters {}; {waiting} waiting", decision.done())?;
    match error {
        None => Ok(true),
        Some(error) => {
            out.flush()?;
            Err(Error::Undone(error))
        }
    }
}

impl Decision {
    const fn done(self) -> &'static str {
        match self {
            Self::Retry => "went back to their lanes",
            Self::Discard => "were discarded",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Retry => "/api/v1/dead-letter/retry",
            Self::Discard => "/api/v1/dead-letter/discard",
        }
    }
}

// === without a gateway ===

/// An outbox that no gateway has open.
struct Stopped {
    outbox: outbox::Handle,
    letters: Handle,
    /// Its threads belong to it.
    _supervisor: Supervisor,
}

/// Opens the outbox; `None` if a gateway has it.
fn open(site: Site) -> Result<Option<Stopped>, Error> {
    let directory = site.outbox.directory.clone();
    let consumers = consumers(&directory, site.consumers)?;
    check_owner(&directory)?;
    let gateway = site.gateway.to_string();
    let config = outbox::Config { gateway, realtime: false, ..site.outbox };
    let supervisor = Supervisor::new();
    let outbox = match Service::open(config, &consumers, &supervisor) {
        Ok((_, outbox)) => outbox,
        Err(OpenError::Locked { .. }) => return Ok(None),
        Err(error) => return Err(Error::Undone(chain(&error))),
    };
    let letters = Handle::open(site.gateway, &outbox).map_err(|error| Error::Undone(chain(&error)))?;
    Ok(Some(Stopped { outbox, letters, _supervisor: supervisor }))
}

/// Those of the configuration, and whoever else has progress in the outbox: it is not for this
/// command to delete that.
fn consumers(directory: &Path, configured: Vec<ConsumerId>) -> Result<Vec<ConsumerId>, Error> {
    let snapshot = Snapshot::open(directory)?;
    let mut consumers = configured;
    for lane in Lane::ALL {
        for known in &snapshot.lane(lane).consumers {
            let id = ConsumerId { name: known.name.clone(), lane };
            if !consumers.contains(&id) {
                consumers.push(id);
            }
        }
    }
    Ok(consumers)
}

impl Stopped {
    fn decide(self, decision: Decision, through: Through) -> Result<Answer, Error> {
        let decided = match decision {
            Decision::Retry => self.letters.retry(through),
            Decision::Discard => self.letters.discard(through),
        };
        let (Outcome { entries }, error) = match decided {
            Ok(done) => (done, None),
            Err(error) => (error.done, Some(chain(&error))),
        };
        let dead_letter::Status { entries: waiting, .. } = self.letters.status();
        drop(self.letters);
        let deadline = clock::now().checked_add(CLOSE_TIMEOUT).unwrap_or_else(clock::now);
        if !self.outbox.close(deadline) {
            return Err(Error::Undone("the outbox does not close; what was said is durable".to_owned()));
        }
        Ok(Answer { entries, waiting, error })
    }
}

// === through the gateway ===

fn ask(admin: SocketAddr, decision: Decision, through: Through) -> Result<Answer, Error> {
    let url = format!("http://{admin}{}", decision.path());
    let body = match through {
        Through::All => serde_json::json!({"all": true}),
        Through::Seq(last) => serde_json::json!({"through": last}),
    };
    let failed = |error: String| {
        Error::Undone(format!(
            "a gateway has the outbox open and does not answer at {url} (see --admin): {error}"
        ))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(chain(&error)))?;
    let answer = runtime.block_on(async {
        // The way to a loopback address leads past no proxy.
        let client = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT).build()?;
        client.post(&url).json(&body).send().await?.json::<Answer>().await
    });
    answer.map_err(|error| failed(chain(&error)))
}
