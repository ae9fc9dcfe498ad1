//! `penstock rules`: checks a rules file, runs tests against it, and tells what it would have raised.
//!
//! Exit code 0 when all is well, 1 when a test fails, 2 when a file cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};

use super::reaction::Queues;
use super::replay::{self, ReplayError};
use super::rule::{FILE_BYTES_MAX, FileError, tests_file};
use super::rules::Rules;
use crate::config::{ConfigError, Settings};

/// Arguments of `penstock rules`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Reads a rules file and says what is wrong with it.
    Check {
        /// The rules file.
        file: PathBuf,
        /// The configuration that the rules are for: then a queue that it does not name is a mistake too.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Runs the tests of one file against the rules of another.
    Test {
        /// The rules file.
        rules: PathBuf,
        /// The file with tests.
        tests: PathBuf,
    },
    /// Gives messages that were exported from an outbox to rules and prints the events they would have sent and what they
    /// would have done, one per line.
    Replay {
        /// The rules file.
        rules: PathBuf,
        /// What `penstock outbox export --lane telemetry` wrote.
        export: PathBuf,
        /// Where JSON payloads hold the device's own time, as `alerts.time` in the configuration.
        #[arg(long, value_name = "PATH")]
        time: Option<String>,
    },
}

/// Why a command gave up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{}: cannot be read", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file is no TOML, or too long.
    #[error("{0}")]
    File(String),
    /// The export cannot be used.
    #[error("{}", file.display())]
    Export {
        /// Which.
        file: PathBuf,
        /// Why.
        source: ReplayError,
    },
    /// Rules or tests have mistakes, which were shown.
    #[error("{0} mistakes")]
    Mistakes(usize),
    /// The output cannot be written.
    #[error("the output cannot be written")]
    Write(#[from] io::Error),
}

impl Error {
    /// The exit code that it stands for.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Read { .. } | Self::Config(_) | Self::File(_) | Self::Export { .. } | Self::Mistakes(_) => {
                2
            }
            Self::Write(_) => 1,
        }
    }
}

impl From<FileError> for Error {
    fn from(error: FileError) -> Self {
        Self::File(error.to_string())
    }
}

/// Does what `args` say, with results on `out`. Returns whether all is well.
///
/// # Errors
///
/// See [`Error`]. A reader of `out` that went away is none.
pub fn run(args: &Args, out: &mut dyn io::Write) -> Result<bool, Error> {
    let done = match &args.command {
        Command::Check { file, config } => check(file, config.as_deref(), out),
        Command::Test { rules, tests } => test(rules, tests, out),
        Command::Replay { rules, export, time } => replay(rules, export, time.as_deref(), out),
    };
    match done.and_then(|well| Ok(out.flush().map(|()| well)?)) {
        Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        other => other,
    }
}

fn check(file: &Path, config: Option<&Path>, out: &mut dyn io::Write) -> Result<bool, Error> {
    let rules = match config {
        None => parse(file, &Queues::Any)?,
        Some(config) => {
            let alerts = Settings::load(config, std::env::vars())?.alerts;
            let queues = alerts.map_or(Queues::Only(Vec::new()), |alerts| alerts.queues());
            parse(file, &queues)?
        }
    };
    for error in rules.errors() {
        writeln!(out, "{error}")?;
    }
    writeln!(out, "{} rules over {} metrics", rules.len(), rules.set.metrics().len())?;
    match rules.errors().len() {
        0 => Ok(true),
        mistakes => Err(Error::Mistakes(mistakes)),
    }
}

/// Rules that are wrong are left out, as in a gateway; whoever wants to know asks `check`.
fn replay(rules: &Path, export: &Path, time: Option<&str>, out: &mut dyn io::Write) -> Result<bool, Error> {
    let rules = parse(rules, &Queues::Any)?;
    let failed = |source| Error::Export { file: export.to_owned(), source };
    let lines = std::fs::File::open(export).map_err(|error| failed(error.into()))?;
    let outcome = replay::replay(&rules, time, io::BufReader::new(lines), out).map_err(failed)?;
    let replay::Outcome { messages, samples, raised, cleared, events, reactions, open, .. } = outcome;
    eprint_line(&format!(
        "{messages} messages, {samples} samples; {raised} conditions began and {cleared} ended; {events} events, {reactions} reactions, {open} open at the end"
    ));
    Ok(true)
}

/// A line on standard error, beside the events.
fn eprint_line(line: &str) {
    use std::io::Write as _;
    drop(writeln!(io::stderr(), "{line}"));
}

fn parse(file: &Path, queues: &Queues) -> Result<Rules, Error> {
    let text = read(file)?;
    let rules = Rules::parse_for(&text, &file.display().to_string(), queues);
    rules.map_err(|error| Error::File(error.to_string()))
}

fn test(rules: &Path, tests: &Path, out: &mut dyn io::Write) -> Result<bool, Error> {
    let (rules_text, tests_text) = (read(rules)?, read(tests)?);
    let (rules, tests) = (rules.display().to_string(), tests.display().to_string());
    let report = tests_file::run((&rules_text, &rules), (&tests_text, &tests))?;
    writeln!(out, "{report}")?;
    match report.errors.len() {
        0 => Ok(report.is_well()),
        mistakes => Err(Error::Mistakes(mistakes)),
    }
}

/// Reads no more of a file than may be in one.
fn read(file: &Path) -> Result<String, Error> {
    use std::io::Read as _;
    let wrong = |source| Error::Read { file: file.to_owned(), source };
    let mut text = String::new();
    let opened = std::fs::File::open(file).map_err(wrong)?;
    opened.take(FILE_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(wrong)?;
    Ok(text)
}
