//! `penstock dead-letter`: what Event Hubs refused for good, and what becomes of it.
//!
//! `list` and `export` look into the directory from outside, whoever has it open. `retry` and
//! `discard` go through the admin API of the gateway that has it open; if none has, they open the
//! outbox themselves, with all the checks of a start.

mod change;
mod export;
mod list;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use penstock_proto::{GatewayId, Lane, Seq};

use super::{Error, finished, parse_seq};
use crate::dead_letter;
use crate::outbox::offline::Snapshot;
use crate::outbox::{self, ConsumerId};

/// Arguments of `penstock dead-letter`.
#[derive(Debug, Clone, ClapArgs)]
pub struct DeadLetterArgs {
    #[command(subcommand)]
    command: Command,
    /// The configuration file of the gateway.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The gateway whose dead letters are meant, as its configuration says.
#[derive(Debug, Clone)]
pub struct Site {
    /// Its name.
    pub gateway: GatewayId,
    /// Its outbox.
    pub outbox: outbox::Config,
    /// Who reads the outbox while it runs.
    pub consumers: Vec<ConsumerId>,
    /// Where its API answers.
    pub admin: SocketAddr,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Lists the dead letters that wait, oldest first.
    List(list::Args),
    /// Writes the dead letters that wait as one JSON object per line.
    Export(export::Args),
    /// Puts dead letters back into the lanes they came from, as new entries.
    Retry(change::Args),
    /// Lets dead letters go for good.
    Discard(change::DiscardArgs),
}

impl DeadLetterArgs {
    /// The configuration file.
    ///
    /// # Errors
    ///
    /// When none was given.
    pub fn config(&self) -> Result<&PathBuf, Error> {
        self.config.as_ref().ok_or_else(|| Error::Arguments("--config FILE is missing".to_owned()))
    }
}

/// Does what `args` say, with results on `out` and remarks on `remarks`. Returns whether all is well.
/// Blocks; for a thread outside of any runtime.
///
/// # Errors
///
/// See [`Error`]. A reader of `out` that went away is none.
pub fn dead_letters(
    args: &DeadLetterArgs,
    site: Site,
    out: &mut dyn io::Write,
    remarks: &mut dyn io::Write,
) -> Result<bool, Error> {
    let done = match &args.command {
        Command::List(args) => list::run(args, &site, out, remarks),
        Command::Export(args) => export::run(args, &site, out, remarks),
        Command::Retry(args) => change::retry(args, site, out),
        Command::Discard(args) => change::discard(args, site, out),
    };
    finished(done, out)
}

/// The first letter that waits.
fn oldest(snapshot: &Snapshot) -> Seq {
    let view = snapshot.lane(Lane::Dead);
    let reader = view.consumers.iter().find(|consumer| consumer.name == dead_letter::CONSUMER);
    reader.map_or(view.head(), |reader| reader.low().max(view.head()))
}
