//! How records travel: their format and their security.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;
use tempfile::TempDir;
use testkit::cloud::Cloud;
use testkit::gateway::Config;

use crate::servers::{self, TOPIC};

/// What the cloud stand-in's clients must show; it opens nothing else.
const CONNECTION_STRING: &str =
    "Endpoint=sb://localhost/;SharedAccessKeyName=bench;SharedAccessKey=b25seSBmb3IgdGhlIGNsb3VkIHN0YW5kLWlu";

/// Format of the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// One record per message.
    PerMessage,
    /// Many messages per record, as JSON lines.
    Packed,
}

/// Security of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Security {
    /// Neither encryption nor a name.
    Plain,
    /// TLS, and the connection string as password by SASL, as Event Hubs asks for.
    Tls,
}

/// A way of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Way {
    /// Format of the records.
    pub format: Format,
    /// Security of the connection.
    pub security: Security,
}

/// A cloud stand-in and its folder, which outlives it.
#[derive(Debug)]
pub struct Sky {
    /// The stand-in.
    pub cloud: Cloud,
    folder: TempDir,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PerMessage => "per-message",
            Self::Packed => "packed",
        })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let security = match self.security {
            Security::Plain => "plain",
            Security::Tls => "TLS",
        };
        write!(f, "{} {security}", self.format)
    }
}

impl Sky {
    /// Starts the stand-in with both of its listeners.
    ///
    /// # Errors
    /// It does not become ready.
    pub fn start(parent: &Path) -> Result<Self> {
        let folder = servers::folder(parent, "cloud-")?;
        let key = folder.path().join("connection");
        fs::write(&key, CONNECTION_STRING).context("the connection string cannot be written")?;
        let tls = ["--kafka-tls", "127.0.0.1:0", "--sasl-key-file"].map(OsString::from);
        let arguments = [tls.as_slice(), &[key.into_os_string()]].concat();
        let cloud = Cloud::start_with(folder.path(), &[TOPIC], &arguments)?;
        Ok(Self { cloud, folder })
    }

    /// The configuration of a gateway that sends this way.
    ///
    /// # Errors
    /// The stand-in has no TLS.
    pub fn config(&self, way: Way) -> Result<Config> {
        let ready = self.cloud.ready();
        let config = match way.security {
            Security::Plain => Config::default().uplink(&ready.kafka, TOPIC.0),
            Security::Tls => {
                let servers = ready.kafka_tls.as_deref().context("the cloud stand-in has no TLS")?;
                let authority = ready.ca_file.as_deref().context("it has no certificate authority")?;
                let key = self.folder.path().join("connection");
                Config::default()
                    .set("uplink", &format!("bootstrap_servers = {servers:?}"))
                    .set("uplink", &format!("connection_string_file = {:?}", key.display().to_string()))
                    .set("uplink", &format!("ca_file = {:?}", authority.display().to_string()))
                    .set("uplink", &format!("topic = {:?}", TOPIC.0))
            }
        };
        Ok(match way.format {
            Format::PerMessage => config,
            Format::Packed => config.set("uplink", "format = \"packed\""),
        })
    }
}
