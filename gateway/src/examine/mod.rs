//! `penstock outbox` and `penstock dead-letter`: what an outbox directory holds, for the people who look
//! after it.
//!
//! Everything but `replay` works on a directory that a gateway has open. Exit code 0 when what was
//! asked for was done, 1 when something is wrong with the directory, 2 when there is no such outbox or
//! the arguments are wrong.

mod acknowledge;
mod dead_letter;
mod export;
mod inspect;
mod replay;
mod stat;
mod text;
mod time;
mod verify;

#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use penstock_proto::{Lane, Seq};

use crate::outbox::offline;

pub use dead_letter::{DeadLetterArgs, Site, dead_letters};

/// Arguments of `penstock outbox`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Shows lanes, backlogs, consumers, known holes, incidents and disk use.
    Stat(stat::Args),
    /// Lists the segments of a lane, or their records.
    Inspect(inspect::Args),
    /// Checks every checksum, the continuity of every lane and the high-water mark.
    Verify(verify::Args),
    /// Writes records as one JSON object per line.
    Export(export::Args),
    /// Sets a consumer back, so that it sends entries again. Needs a stopped gateway.
    Replay(replay::Args),
    /// Lists incidents, or notes that they were seen.
    Acknowledge(acknowledge::Args),
}

/// Why a command gave up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be looked into, or not be changed.
    #[error(transparent)]
    Outbox(#[from] offline::Error),
    /// It could not be done, or not to the end; the text says why.
    #[error("{0}")]
    Undone(String),
    /// Arguments that do not go together, or a file that cannot be written.
    #[error("{0}")]
    Arguments(String),
    /// The output cannot be written.
    #[error("the output cannot be written")]
    Write(#[from] io::Error),
}

impl Error {
    /// The exit code that it stands for.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Outbox(error) if error.is_usage() => 2,
            Self::Arguments(_) => 2,
            Self::Outbox(_) | Self::Undone(_) | Self::Write(_) => 1,
        }
    }
}

/// Does what `args` say, with results on `out` and remarks on `remarks`. Returns whether all is well.
/// Blocks; for a thread.
///
/// # Errors
///
/// See [`Error`]. A reader of `out` that went away is none.
pub fn run(args: &Args, out: &mut dyn io::Write, remarks: &mut dyn io::Write) -> Result<bool, Error> {
    let done = match &args.command {
        Command::Stat(args) => stat::run(args, out),
        Command::Inspect(args) => inspect::run(args, out, remarks),
        Command::Verify(args) => verify::run(args, out),
        Command::Export(args) => export::run(args, out, remarks),
        Command::Replay(args) => replay::run(args, out),
        Command::Acknowledge(args) => acknowledge::run(args, out),
    };
    finished(done, out)
}

/// The end of every command: what it said is on its way, and nobody left to hear it is no error.
fn finished(done: Result<bool, Error>, out: &mut dyn io::Write) -> Result<bool, Error> {
    let flushed = done.and_then(|well| Ok(out.flush().map(|()| well)?));
    match flushed {
        Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        other => other,
    }
}

/// Where the outbox is, on every command.
#[derive(Debug, Clone, ClapArgs)]
struct Directory {
    /// The directory of the outbox, as in `outbox.directory`.
    directory: PathBuf,
}

fn parse_lane(text: &str) -> Result<Lane, String> {
    let names = || Lane::ALL.map(Lane::name).join(", ");
    Lane::ALL
        .into_iter()
        .find(|lane| lane.name() == text)
        .ok_or_else(|| format!("expected one of {}", names()))
}

fn parse_seq(text: &str) -> Result<Seq, String> {
    text.parse().map(Seq).map_err(|_| "expected a position, a whole number".to_owned())
}
