//! A real Apache Kafka, one node without ZooKeeper, for tests that must not trust a test double.
//!
//! It is started from the jars named in `testkit/kafka`, in a folder of its own, on ports of the loopback that
//! stay the same when it is killed and started again. It listens twice: without TLS, and as Event Hubs does, with
//! TLS, the user `$ConnectionString` and a whole connection string as password. It needs Java and, once, Maven:
//! [`missing`] says what is not there.

mod artifacts;
mod wire;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::Duration;

pub use artifacts::{VERSION, class_path, missing};

use crate::ports;
use crate::process::{self, Process, ProcessError};

/// Longest time for a start, the recovery of its logs included.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// Longest time for an ordered stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// How often it is asked whether it is ready.
const ASK: Duration = Duration::from_millis(50);
/// Largest record batch, as in Event Hubs.
const MESSAGE_BYTES_MAX: u32 = 1_046_528;
/// Opens a key store that exists for one test and holds nothing worth a secret.
const STORE_PASSWORD: &str = "for-one-test";
/// What clients of the listener with TLS show; only this broker knows it.
const CONNECTION_STRING: &str = "Endpoint=sb://localhost/;SharedAccessKeyName=test;SharedAccessKey=Zm9yIHRlc3RzIGFuZCBub3RoaW5nIGVsc2UgYXQgYWxsLg==";
/// A cluster of one broker needs some id.
const CLUSTER_ID: &str = "cGVuc3RvY2stZm9yLXRlc3Q";

/// What can go wrong with a broker.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// Its jars are not there, or are not those that are named.
    #[error("Apache Kafka's jars: {0}")]
    Artifacts(String),
    /// A program that prepares something failed.
    #[error("{name} {why}")]
    Program {
        /// Its name.
        name: String,
        /// What it said.
        why: String,
    },
    /// A file could not be used.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No port is free.
    #[error("no free port from {} to {}", ports::RANGE.0, ports::RANGE.1)]
    Ports,
    /// The process could not be started, stopped or observed, or ended by itself.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It refused a request, or did not answer.
    #[error("kafka: {what}: {source}")]
    Request {
        /// What was asked of it.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// It is not ready in time.
    #[error("kafka is not ready after {START_TIMEOUT:?} ({why}); its last words:\n{words}")]
    Late {
        /// What the last question brought.
        why: String,
        /// The end of its log.
        words: String,
    },
}

/// A broker started by us; killed when dropped.
#[derive(Debug)]
pub struct Kafka {
    folder: PathBuf,
    class_path: String,
    plain: SocketAddr,
    secured: Secured,
    topics: Vec<(String, u32)>,
    process: Process,
}

/// How to reach the listener with TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secured {
    /// `host:port`.
    pub address: String,
    /// File with the connection string.
    pub connection_string_file: PathBuf,
    /// The certificate to trust, PEM.
    pub ca_file: PathBuf,
}

impl Kafka {
    /// Makes a cluster of one broker in `folder`, starts it and creates topics, given by name and partitions.
    ///
    /// # Errors
    /// When something is missing (see [`missing`]), or it does not get ready.
    pub fn start(folder: &Path, topics: &[(&str, u32)]) -> Result<Self, KafkaError> {
        let class_path = class_path()?;
        let folder = folder.join("kafka");
        fs::create_dir_all(&folder).map_err(|source| KafkaError::File { path: folder.clone(), source })?;
        let [plain, controller, secured] = ports::free().ok_or(KafkaError::Ports)?;
        let secured = Secured {
            address: secured.to_string(),
            connection_string_file: folder.join("connection-string"),
            ca_file: folder.join("ca.pem"),
        };
        write(&secured.connection_string_file, CONNECTION_STRING)?;
        write(&folder.join("server.properties"), &properties(&folder, plain, controller, &secured.address))?;
        make_certificate(&folder, &secured.ca_file)?;
        let mut format = java(&class_path, 256);
        format.args(["kafka.tools.StorageTool", "format", "--cluster-id", CLUSTER_ID, "--config"]);
        artifacts::run(format.arg(folder.join("server.properties")))?;
        let process = launch(&folder, &class_path)?;
        let mut kafka = Self { folder, class_path, plain, secured, topics: Vec::new(), process };
        kafka.wait_until_ready()?;
        for (name, partitions) in topics {
            kafka.create_topic(name, *partitions, &[])?;
        }
        Ok(kafka)
    }

    /// `host:port` of the listener without TLS.
    #[must_use]
    pub fn plain(&self) -> String {
        self.plain.to_string()
    }

    /// The listener with TLS.
    #[must_use]
    pub fn secured(&self) -> &Secured {
        &self.secured
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Creates a topic with settings such as `max.message.bytes`, and waits until all of it can be written to.
    ///
    /// # Errors
    /// When it is there already, or the broker does not answer.
    pub fn create_topic(
        &mut self,
        name: &str,
        partitions: u32,
        settings: &[(&str, &str)],
    ) -> Result<(), KafkaError> {
        let what = || format!("create topic {name}");
        wire::create_topic(self.plain, name, partitions, settings)
            .map_err(|source| KafkaError::Request { what: what(), source })?;
        self.topics.push((name.to_owned(), partitions));
        self.wait_until_ready()
    }

    /// Gives a topic more partitions, and waits until all of it can be written to.
    ///
    /// # Errors
    /// When it has as many already, or the broker does not answer.
    pub fn grow_topic(&mut self, name: &str, partitions: u32) -> Result<(), KafkaError> {
        let what = || format!("grow topic {name}");
        wire::grow_topic(self.plain, name, partitions)
            .map_err(|source| KafkaError::Request { what: what(), source })?;
        self.topics.iter_mut().filter(|(topic, _)| topic == name).for_each(|topic| topic.1 = partitions);
        self.wait_until_ready()
    }

    /// Kills it (SIGKILL), as a power cut of the process alone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<ExitStatus, KafkaError> {
        Ok(self.process.kill()?)
    }

    /// Starts it again on the same ports and data, and waits until every topic can be written to. Kills it first
    /// if it still runs.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn restart(&mut self) -> Result<(), KafkaError> {
        if self.process.running()? {
            self.process.kill()?;
        }
        self.process = launch(&self.folder, &self.class_path)?;
        self.wait_until_ready()
    }

    /// Asks it to stop and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&mut self) -> Result<ExitStatus, KafkaError> {
        Ok(self.process.stop(STOP_TIMEOUT)?)
    }

    /// Asks for every topic until each partition has a leader.
    fn wait_until_ready(&mut self) -> Result<(), KafkaError> {
        let deadline = process::now() + START_TIMEOUT;
        loop {
            let names: Vec<&str> = self.topics.iter().map(|(name, _)| name.as_str()).collect();
            let wanted = self.topics.iter().map(|(_, partitions)| *partitions as usize);
            let led = wire::led_partitions(self.plain, &names);
            if led.as_ref().is_ok_and(|led| led.iter().copied().eq(wanted)) {
                return Ok(());
            }
            if !self.process.running()? || process::now() >= deadline {
                let why = format!("{led:?} of {:?}", self.topics);
                return Err(KafkaError::Late { why, words: self.process.stderr_tail() });
            }
            thread::park_timeout(ASK);
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), KafkaError> {
    fs::write(path, text).map_err(|source| KafkaError::File { path: path.to_owned(), source })
}

fn java(class_path: &str, heap_mib: u32) -> Command {
    let mut command = Command::new("java");
    command.arg(format!("-Xmx{heap_mib}m"));
    command.args([
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    ]);
    command.args(["-cp", class_path]);
    command
}

fn launch(folder: &Path, class_path: &str) -> Result<Process, KafkaError> {
    let mut command = java(class_path, 512);
    command.arg("kafka.Kafka").arg(folder.join("server.properties"));
    Ok(Process::spawn("kafka", &mut command, &folder.join("kafka.log"))?)
}

/// A key and a certificate for the loopback that is its own authority, by the tool that comes with Java.
fn make_certificate(folder: &Path, ca_file: &Path) -> Result<(), KafkaError> {
    let keytool = |arguments: &[&str]| {
        let mut command = Command::new("keytool");
        command.args(arguments).args(["-alias", "broker", "-storepass", STORE_PASSWORD, "-keystore"]);
        artifacts::run(command.arg(folder.join("broker.p12")))
    };
    keytool(&[
        "-genkeypair",
        "-keyalg",
        "EC",
        "-groupname",
        "secp256r1",
        "-validity",
        "30",
        "-dname",
        "CN=localhost",
        "-ext",
        "san=dns:localhost,ip:127.0.0.1",
        "-ext",
        "bc:c=ca:true",
        "-storetype",
        "PKCS12",
    ])?;
    write(ca_file, &keytool(&["-exportcert", "-rfc"])?)
}

/// The broker's configuration. What is not a test's business keeps Kafka's defaults.
fn properties(folder: &Path, plain: SocketAddr, controller: SocketAddr, secured: &str) -> String {
    let folder = folder.display();
    let prefix = "listener.name.sasl_ssl";
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         controller.quorum.voters=1@{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listeners=PLAINTEXT://{plain},CONTROLLER://{controller},SASL_SSL://{secured}\n\
         advertised.listeners=PLAINTEXT://{plain},SASL_SSL://{secured}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL\n\
         inter.broker.listener.name=PLAINTEXT\n\
         log.dirs={folder}/data\n\
         auto.create.topics.enable=false\n\
         message.max.bytes={MESSAGE_BYTES_MAX}\n\
         offsets.topic.replication.factor=1\n\
         offsets.topic.num.partitions=1\n\
         transaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\n\
         sasl.enabled.mechanisms=PLAIN\n\
         {prefix}.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
         user_$ConnectionString=\"{CONNECTION_STRING}\";\n\
         {prefix}.ssl.keystore.type=PKCS12\n\
         {prefix}.ssl.keystore.location={folder}/broker.p12\n\
         {prefix}.ssl.keystore.password={STORE_PASSWORD}\n\
         {prefix}.ssl.key.password={STORE_PASSWORD}\n"
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_user_is_named_as_event_hubs_names_it() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 9092));
        let text = properties(Path::new("/k"), address, address, "127.0.0.1:9093");
        assert!(text.contains("user_$ConnectionString=\"Endpoint=sb://localhost/;"), "{text}");
        assert!(text.lines().all(|line| line.split_once('=').is_some()), "one setting per line: {text}");
    }
}
