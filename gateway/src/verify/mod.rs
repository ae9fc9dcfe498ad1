//! `penstock verify`: proves from the records themselves that nothing is missing and nothing out of order.
//!
//! It reads the topics from their beginning to where they end at that moment, and judges each chain by
//! its own headers (see [`chain`]). It needs no gateway and no access to one. Exit code 0 when every promise
//! was kept (duplicates are allowed and shown), 1 when one was broken or the topics cannot be read, 2 for bad
//! arguments.

mod chain;
mod judge;
mod report;
mod seen;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use penstock_proto::IDENTITY_HEADER;

use tokio::runtime::Runtime;

use crate::azure::{self, ConnectionString, ConnectionStringError, TokenSource};
use crate::config::{ConfigError, Settings};
use crate::supervise::Supervisor;
use crate::uplink::reader::{ReadError, Reader};
use crate::uplink::{Connection, Security};
use judge::{Found, Header, Judge, PartitionRead};

pub use chain::Summary;
pub use report::{ChainReport, LaneReport, PartitionReport, Report, Totals};

/// Longest wait for an answer about topics and offsets.
const ASK_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest time without any record while some are due.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `penstock verify`.
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    /// Read with the connection of a gateway's configuration: `[uplink]` and `[azure]` say where and as whom.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["bootstrap", "security", "connection_string_file", "ca_file"])]
    config: Option<PathBuf>,
    /// Kafka endpoint, HOST:PORT; with `sasl-tls` port 9093 of the connection string's host if not given.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap: Option<String>,
    /// Topics (event hubs) to read, separated by commas.
    #[arg(long, value_name = "TOPIC[,TOPIC]", value_delimiter = ',', required = true)]
    topic: Vec<String>,
    /// Whether and how the connection is secured.
    #[arg(long, value_enum, default_value = "plaintext")]
    security: SecurityArg,
    /// File with a connection string that has the right to listen.
    #[arg(long, value_name = "FILE")]
    connection_string_file: Option<PathBuf>,
    /// Certificates (PEM) to trust instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SecurityArg {
    /// Neither encryption nor a name.
    Plaintext,
    /// TLS, and the connection string as password.
    SaslTls,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Arguments that do not go together; exit code 2.
    #[error("{0}")]
    Arguments(String),
    /// The connection string was refused; exit code 2.
    #[error(transparent)]
    ConnectionString(#[from] ConnectionStringError),
    /// The gateway's configuration was refused; exit code 2.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The topics cannot be read; exit code 1.
    #[error("the topics cannot be read")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The report cannot be written; exit code 1.
    #[error("the report cannot be written")]
    Write(#[from] io::Error),
}

impl Error {
    /// The exit code that it stands for.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Arguments(_) | Self::ConnectionString(_) | Self::Config(_) => 2,
            Self::Read(_) | Self::Write(_) => 1,
        }
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        Self::Read(Box::new(error))
    }
}

/// Reads, judges and prints to `out`. Returns whether every promise was kept. Blocks; for a thread.
///
/// # Errors
///
/// See [`Error`].
pub fn run(args: &Args, mut out: impl io::Write) -> Result<bool, Error> {
    let (connection, source) = match &args.config {
        Some(file) => configured(file)?,
        None => (connection(args)?, None),
    };
    let _refresh = source.map(|source| Refresh::start(&connection, &source)).transpose()?;
    let topics: Vec<&str> = args.topic.iter().map(String::as_str).collect();
    let report = verify(&connection, &topics)?;
    if args.json {
        report.write_json(&mut out)?;
    } else {
        write!(out, "{report}")?;
    }
    out.flush()?;
    Ok(report.kept)
}

/// Reads and judges. Blocks; for a thread.
///
/// # Errors
///
/// [`Error::Read`].
pub fn verify(connection: &Connection, topics: &[&str]) -> Result<Report, Error> {
    let reader = Reader::new(connection)?;
    let mut parts = Vec::new();
    for topic in topics {
        parts.extend(reader.parts(topic, ASK_TIMEOUT)?);
    }
    let read = |part: &crate::uplink::reader::Part| PartitionRead {
        topic: part.topic.clone(),
        partition: part.partition,
        low: part.low,
        high: part.high,
    };
    let mut judge = Judge::new(parts.iter().map(read).collect());
    reader.read(&parts, IDENTITY_HEADER, PATIENCE, |stored| {
        let found = Found {
            header: header(stored.headers, stored.header),
            pack: header(stored.packs, stored.pack),
            payload: stored.payload,
        };
        judge.push(stored.part, &found)
    })?;
    Ok(judge.report())
}

fn header(count: usize, first: Option<&[u8]>) -> Header<'_> {
    match count {
        0 => Header::Absent,
        1 => Header::One(first.unwrap_or_default()),
        _ => Header::Several,
    }
}

/// Fetches tokens while it lives.
struct Refresh(Option<Runtime>);

impl Refresh {
    fn start(connection: &Connection, source: &TokenSource) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        if let Some(tokens) = connection.tokens() {
            let _entered = runtime.enter();
            azure::start(source, tokens, &Supervisor::new());
        }
        Ok(Self(Some(runtime)))
    }
}

impl Drop for Refresh {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

fn configured(file: &Path) -> Result<(Connection, Option<TokenSource>), Error> {
    let settings = Settings::load(file, std::env::vars())?;
    let uplink = settings.uplink.ok_or_else(|| {
        Error::Arguments(format!("--config: the uplink of {} is switched off", file.display()))
    })?;
    Ok((uplink.connection, settings.azure.source))
}

fn connection(args: &Args) -> Result<Connection, Error> {
    let mut seen: Vec<&str> = Vec::new();
    for topic in &args.topic {
        if topic.is_empty() || seen.contains(&topic.as_str()) {
            return Err(Error::Arguments(format!("--topic: {topic:?} is empty or given twice")));
        }
        seen.push(topic);
    }
    let security = match (args.security, &args.connection_string_file) {
        (SecurityArg::Plaintext, None) => Security::Plaintext,
        (SecurityArg::Plaintext, Some(_)) => {
            return Err(Error::Arguments("--connection-string-file needs --security sasl-tls".to_owned()));
        }
        (SecurityArg::SaslTls, None) => {
            return Err(Error::Arguments("--security sasl-tls needs --connection-string-file".to_owned()));
        }
        (SecurityArg::SaslTls, Some(file)) => Security::SaslTls {
            connection_string: ConnectionString::read(file)?,
            ca_file: args.ca_file.clone(),
        },
    };
    let bootstrap_servers = match (&args.bootstrap, &security) {
        (Some(given), _) => given.clone(),
        (None, Security::SaslTls { connection_string, .. }) => {
            format!("{}:{}", connection_string.host(), Connection::EVENT_HUBS_PORT)
        }
        (None, Security::Plaintext | Security::Entra { .. }) => {
            return Err(Error::Arguments("--bootstrap is required".to_owned()));
        }
    };
    Ok(Connection { bootstrap_servers, security, socket_timeout: Connection::SOCKET_TIMEOUT })
}
