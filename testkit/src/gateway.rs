//! A gateway under test: its configuration file, its start, its death and its return.
//!
//! Where nothing else is asked for, ports are ones that nothing else takes while the gateway is away
//! ([`crate::ports`]): a restart asks for them again, so that devices find the gateway where it was.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde::Deserialize;

use crate::ports;
use crate::process::{self, Process, ProcessError};

/// Longest time a gateway may take to start; recovery of an outbox included.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time a polite stop may take.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// An address without a port yet.
const ANY_PORT: &str = "127.0.0.1:0";

/// The list of tables that say where alerts go, as a section of one table.
const EVENT_GRID: &str = "[alerts.event_grid]";

/// What a gateway is to be. All listeners bind 127.0.0.1.
#[derive(Debug, Clone)]
pub struct Config {
    id: String,
    uplink: Option<(String, String)>,
    tls: Option<(PathBuf, PathBuf)>,
    sections: Vec<(String, Vec<String>)>,
    listener: Vec<String>,
    websocket: bool,
    rules: Vec<Vec<String>>,
    topics: Vec<(String, String)>,
    environment: Vec<(String, OsString)>,
    lane: String,
    events: Option<String>,
    addresses: Addresses,
}

/// A gateway started by us; killed when dropped.
#[derive(Debug)]
pub struct Gateway {
    config: Config,
    directory: PathBuf,
    program: PathBuf,
    process: Process,
    ready: Ready,
}

/// The line with which the gateway says that all listeners are bound.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Ready {
    /// The MQTT listeners in the order of the file.
    pub mqtt: Vec<Listener>,
    /// `host:port` of the health listener.
    pub health: String,
    /// `host:port` of the admin listener.
    #[serde(default)]
    pub admin: Option<String>,
}

/// A bound MQTT listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Listener {
    /// `host:port`.
    pub address: String,
    /// Whether it speaks TLS.
    pub tls: bool,
}

#[derive(Debug, Clone)]
struct Addresses {
    plain: String,
    tls: String,
    websocket: String,
    health: String,
    admin: String,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        let any = || ANY_PORT.to_owned();
        let addresses = Addresses { plain: any(), tls: any(), websocket: any(), health: any(), admin: any() };
        Self {
            id: "test".to_owned(),
            uplink: None,
            tls: None,
            sections: Vec::new(),
            listener: Vec::new(),
            websocket: false,
            rules: Vec::new(),
            topics: Vec::new(),
            environment: Vec::new(),
            lane: "telemetry".to_owned(),
            events: None,
            addresses,
        }
    }
}

impl Config {
    /// The gateway's id, `test` unless said otherwise.
    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.id);
        self
    }

    /// Sends telemetry to a topic at Kafka bootstrap servers, without TLS.
    #[must_use]
    pub fn uplink(mut self, bootstrap_servers: &str, topic: &str) -> Self {
        self.uplink = Some((bootstrap_servers.to_owned(), topic.to_owned()));
        self
    }

    /// Adds a second MQTT listener with TLS.
    #[must_use]
    pub fn tls(mut self, certificate: &Path, key: &Path) -> Self {
        self.tls = Some((certificate.to_owned(), key.to_owned()));
        self
    }

    /// Adds an MQTT listener that is reached through a WebSocket, without TLS.
    #[must_use]
    pub fn websocket(mut self) -> Self {
        self.websocket = true;
        self
    }

    /// The ports of the MQTT listeners: plain, TLS, WebSocket. For 0, as without this, a free one is taken.
    #[must_use]
    pub fn ports(mut self, plain: u16, tls: u16, websocket: u16) -> Self {
        let address = |port| format!("127.0.0.1:{port}");
        self.addresses.plain = address(plain);
        self.addresses.tls = address(tls);
        self.addresses.websocket = address(websocket);
        self
    }

    /// Adds a rule of access, of lines of TOML. The first that fits decides; without any that fits it is denied.
    #[must_use]
    pub fn rule(mut self, lines: &[&str]) -> Self {
        self.rules.push(lines.iter().map(|line| (*line).to_owned()).collect());
        self
    }

    /// Adds a line of TOML (`key = value`) to a section such as `outbox`.
    #[must_use]
    pub fn set(mut self, section: &str, line: &str) -> Self {
        match self.sections.iter_mut().find(|(name, _)| name == section) {
            Some((_, lines)) => lines.push(line.to_owned()),
            None => self.sections.push((section.to_owned(), vec![line.to_owned()])),
        }
        self
    }

    /// Adds a line of TOML to every MQTT listener.
    #[must_use]
    pub fn listener(mut self, line: &str) -> Self {
        self.listener.push(line.to_owned());
        self
    }

    /// Adds a topic template and the lane of its publishes, beside those for telemetry.
    #[must_use]
    pub fn topic(mut self, template: &str, lane: &str) -> Self {
        self.topics.push((template.to_owned(), lane.to_owned()));
        self
    }

    /// The lane of everything published; `telemetry` unless said otherwise.
    #[must_use]
    pub fn lane(mut self, name: &str) -> Self {
        name.clone_into(&mut self.lane);
        self
    }

    /// Sends what the gateway itself has to say to another topic: the lanes `alerts` and `status`, unless devices
    /// publish there.
    #[must_use]
    pub fn events(mut self, topic: &str) -> Self {
        self.events = Some(topic.to_owned());
        self
    }

    /// Takes commands from the queue `commands`, which the connection string in a file leads to.
    #[must_use]
    pub fn commands(self, connection_string_file: &Path) -> Self {
        let file = format!("{:?}", connection_string_file.to_string_lossy());
        self.set("commands", "entity = \"commands\"")
            .set("commands.connection", &format!("connection_string_file = {file}"))
    }

    /// Watches telemetry by the rules of a file; what the rules have seen is kept in `directory`.
    #[must_use]
    pub fn rules(self, file: &Path, directory: &Path) -> Self {
        let text = |path: &Path| format!("{:?}", path.to_string_lossy());
        self.set("alerts", &format!("rules_file = {}", text(file)))
            .set("alerts", &format!("directory = {}", text(directory)))
    }

    /// Sends alerts to an Event Grid topic, with the access key in a file.
    #[must_use]
    pub fn event_grid(self, endpoint: &str, key_file: &Path) -> Self {
        let file = format!("{:?}", key_file.to_string_lossy());
        self.set(EVENT_GRID, &format!("endpoint = {endpoint:?}"))
            .set(EVENT_GRID, &format!("key_file = {file}"))
    }

    /// Gives the process these environment variables, for example those of a
    /// [`PowerCut`](crate::powercut::PowerCut).
    #[must_use]
    pub fn environment(mut self, pairs: impl IntoIterator<Item = (&'static str, OsString)>) -> Self {
        self.environment.extend(pairs.into_iter().map(|(name, value)| (name.to_owned(), value)));
        self
    }

    /// The configuration file for a gateway that keeps its data under `directory`.
    #[must_use]
    pub fn to_toml(&self, directory: &Path) -> String {
        let text = |path: &Path| format!("{:?}", path.to_string_lossy());
        let Addresses { plain, tls, websocket, health, admin } = &self.addresses;
        let mut config = self.clone();
        config = config.set("gateway", &format!("id = {:?}", self.id));
        config = config.set("outbox", &format!("directory = {}", text(&directory.join("outbox"))));
        config = config.set("mqtt.access", "anonymous = \"allow\"");
        config = config.set("admin", &format!("health_address = {health:?}"));
        config = config.set("admin", &format!("admin_address = {admin:?}"));
        if let Some((servers, topic)) = &self.uplink {
            config = config.set("uplink", &format!("bootstrap_servers = {servers:?}"));
            config = config.set("uplink", "security = \"plaintext\"");
            config = config.set("uplink", &format!("topic = {topic:?}"));
        }
        let mut file = String::new();
        for (section, lines) in &config.sections {
            write_section(&mut file, &format!("[{section}]"), lines);
        }
        let mut listeners = vec![vec![format!("address = {plain:?}")]];
        if let Some((certificate, key)) = &self.tls {
            listeners.push(vec![
                format!("address = {tls:?}"),
                "tls = true".to_owned(),
                format!("certificate_file = {}", text(certificate)),
                format!("key_file = {}", text(key)),
            ]);
        }
        if self.websocket {
            listeners.push(vec![format!("address = {websocket:?}"), "websocket = true".to_owned()]);
        }
        for lines in &mut listeners {
            lines.extend(self.listener.iter().cloned());
            write_section(&mut file, "[[mqtt.listener]]", lines);
        }
        for lines in &self.rules {
            write_section(&mut file, "[[mqtt.access.rule]]", lines);
        }
        if let Some(topic) = &self.events {
            for lane in ["alerts", "status"].into_iter().filter(|lane| *lane != self.lane) {
                let lines = [format!("lane = {lane:?}"), format!("topic = {topic:?}")];
                write_section(&mut file, "[[uplink.route]]", &lines);
            }
        }
        let telemetry = ["devices/{device}/telemetry", "devices/{device}/telemetry/{stream}"];
        let telemetry = telemetry.map(|template| (template.to_owned(), self.lane.clone()));
        for (template, lane) in telemetry.iter().chain(&self.topics) {
            let lines = [format!("template = {template:?}"), format!("lane = {lane:?}")];
            write_section(&mut file, "[[mqtt.topic]]", &lines);
        }
        file
    }

    /// Gives a free port to every listener that has none yet. With none left it is the system that chooses.
    fn choose_ports(&mut self) {
        let Addresses { plain, tls, websocket, health, admin } = &mut self.addresses;
        let wanted = [plain, tls, websocket, health, admin];
        for address in wanted.into_iter().filter(|address| *address == ANY_PORT) {
            if let Some([free]) = ports::free() {
                *address = free.to_string();
            }
        }
    }

    /// Keeps the ports of a gateway that said where it listens.
    fn keep(&mut self, ready: &Ready) {
        let mut bound = ready.mqtt.iter().map(|listener| &listener.address);
        // They are named in the order of the file.
        let Addresses { plain, tls, websocket, .. } = &mut self.addresses;
        let places = [(true, plain), (self.tls.is_some(), tls), (self.websocket, websocket)];
        for (_, address) in places.into_iter().filter(|(wanted, _)| *wanted) {
            if let Some(bound) = bound.next() {
                address.clone_from(bound);
            }
        }
        self.addresses.health.clone_from(&ready.health);
        if let Some(admin) = &ready.admin {
            self.addresses.admin.clone_from(admin);
        }
    }
}

fn write_section(file: &mut String, title: &str, lines: &[String]) {
    for line in [title].into_iter().chain(lines.iter().map(String::as_str)).chain([""]) {
        file.push_str(line);
        file.push('\n');
    }
}

// === impl Gateway ===

impl Gateway {
    /// Writes the configuration into `directory`, starts the gateway there and waits until it is ready.
    ///
    /// # Errors
    /// When the program is not found, or ends or hangs before it is ready.
    pub fn start(directory: &Path, config: Config) -> Result<Self, ProcessError> {
        let program = process::find("penstock")?;
        Self::start_program(&program, directory, config)
    }

    fn start_program(program: &Path, directory: &Path, mut config: Config) -> Result<Self, ProcessError> {
        config.choose_ports();
        let (process, ready) = launch(program, directory, &config)?;
        config.keep(&ready);
        Ok(Self { config, directory: directory.to_owned(), program: program.to_owned(), process, ready })
    }

    /// `host:port` of the MQTT listener without TLS.
    #[must_use]
    pub fn mqtt(&self) -> &str {
        &self.config.addresses.plain
    }

    /// `host:port` of the MQTT listener with TLS, if it was asked for.
    #[must_use]
    pub fn mqtt_tls(&self) -> Option<&str> {
        self.config.tls.as_ref().map(|_| self.config.addresses.tls.as_str())
    }

    /// `host:port` of the MQTT listener behind a WebSocket, if it was asked for.
    #[must_use]
    pub fn mqtt_websocket(&self) -> Option<&str> {
        self.config.websocket.then_some(self.config.addresses.websocket.as_str())
    }

    /// What it said when it was ready.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Kills it (SIGKILL), as a power cut of the process alone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<ExitStatus, ProcessError> {
        self.process.kill()
    }

    /// Asks it to stop and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&mut self) -> Result<ExitStatus, ProcessError> {
        self.process.stop(STOP_TIMEOUT)
    }

    /// Starts it again on the same ports and the same data; kills it first if it still runs.
    ///
    /// # Errors
    /// When it ends or hangs before it is ready.
    pub fn restart(&mut self) -> Result<(), ProcessError> {
        if self.process.running()? {
            self.process.kill()?;
        }
        (self.process, self.ready) = launch(&self.program, &self.directory, &self.config)?;
        Ok(())
    }

    /// Starts it on the same ports with the data under another directory and another environment, as after a
    /// [`PowerCut`](crate::powercut::PowerCut); kills it first if it still runs. After an error the call may be
    /// repeated.
    ///
    /// # Errors
    /// When it ends or hangs before it is ready.
    pub fn resume(
        &mut self,
        directory: &Path,
        environment: impl IntoIterator<Item = (&'static str, OsString)>,
    ) -> Result<(), ProcessError> {
        self.directory = directory.to_owned();
        self.config.environment.clear();
        self.config = self.config.clone().environment(environment);
        self.restart()
    }

    /// The answer of the health listener to `path`, for example `/metrics`; `None` for an error status.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn health(&self, path: &str) -> Result<Option<String>, ureq::Error> {
        get(&self.ready.health, path)
    }

    /// The answer of the admin listener to `path`, for example `/api/v1/status`; `None` for an error
    /// status.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn admin(&self, path: &str) -> Result<Option<String>, ureq::Error> {
        get(&self.config.addresses.admin, path)
    }
}

fn get(address: &str, path: &str) -> Result<Option<String>, ureq::Error> {
    let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).build();
    let agent: ureq::Agent = config.into();
    match agent.get(format!("http://{address}{path}")).call() {
        Ok(mut answer) => answer.body_mut().read_to_string().map(Some),
        Err(ureq::Error::StatusCode(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn launch(program: &Path, directory: &Path, config: &Config) -> Result<(Process, Ready), ProcessError> {
    let file = directory.join("penstock.toml");
    let failed = |source: io::Error| ProcessError::Io {
        name: "penstock".to_owned(),
        doing: "write its configuration",
        source,
    };
    fs::write(&file, config.to_toml(directory)).map_err(failed)?;
    let mut command = Command::new(program);
    command.args(["run", "--config"]).arg(&file);
    command.envs(config.environment.iter().map(|(name, value)| (name, value)));
    let mut process = Process::spawn("penstock", &mut command, &directory.join("penstock.log"))?;
    let ready = process.ready(START_TIMEOUT)?;
    Ok((process, ready))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_holds_every_section_once() {
        let config = Config::default()
            .id("site-7")
            .uplink("127.0.0.1:9092", "telemetry")
            .tls(Path::new("/c.pem"), Path::new("/k.pem"))
            .set("outbox", "commit_floor = \"2ms\"")
            .lane("alerts")
            .events("events")
            .websocket()
            .ports(1883, 0, 8083)
            .rule(&["effect = \"deny\"", "filter = \"a\""])
            .rule(&["effect = \"allow\""])
            .rules(Path::new("/r.toml"), Path::new("/alerts"))
            .event_grid("http://127.0.0.1:1/api/events", Path::new("/key"));
        let file = config.to_toml(Path::new("/data"));
        let count = |text: &str| file.matches(text).count();
        assert_eq!(count("[outbox]\n"), 1, "{file}");
        assert_eq!(count("[[mqtt.listener]]\n"), 3, "{file}");
        assert_eq!(count("[[mqtt.listener]]\naddress = \"127.0.0.1:1883\"\n"), 1, "{file}");
        assert_eq!(count("address = \"127.0.0.1:8083\"\nwebsocket = true\n"), 1, "{file}");
        assert_eq!(count("[[mqtt.access.rule]]\n"), 2, "{file}");
        assert_eq!(count("[[mqtt.access.rule]]\neffect = \"deny\"\nfilter = \"a\"\n"), 1, "{file}");
        assert_eq!(count("[[mqtt.topic]]\n"), 2, "{file}");
        assert_eq!(count("lane = \"alerts\""), 2, "of the topics: {file}");
        assert_eq!(count("[[uplink.route]]\nlane = \"status\"\ntopic = \"events\"\n"), 1, "{file}");
        for line in [
            "id = \"site-7\"",
            "commit_floor = \"2ms\"",
            "directory = \"/data/outbox\"",
            "topic = \"telemetry\"",
            "[alerts]\nrules_file = \"/r.toml\"\ndirectory = \"/alerts\"\n",
            "[[alerts.event_grid]]\nendpoint = \"http://127.0.0.1:1/api/events\"\nkey_file = \"/key\"\n",
        ] {
            assert_eq!(count(line), 1, "{line} in {file}");
        }
    }

    #[test]
    fn addresses_are_kept_in_the_order_of_the_file() {
        let listener = |port| Listener { address: format!("127.0.0.1:{port}"), tls: port == 2 };
        let ready = |ports: &[u16]| Ready {
            mqtt: ports.iter().map(|port| listener(*port)).collect(),
            health: "127.0.0.1:9".to_owned(),
            admin: None,
        };
        let mut config = Config::default().websocket();
        config.keep(&ready(&[1, 3]));
        assert_eq!(
            (config.addresses.plain.as_str(), config.addresses.websocket.as_str()),
            ("127.0.0.1:1", "127.0.0.1:3")
        );
        let mut config = Config::default().tls(Path::new("/c.pem"), Path::new("/k.pem")).websocket();
        config.keep(&ready(&[1, 2, 3]));
        assert_eq!(
            (config.addresses.tls.as_str(), config.addresses.websocket.as_str()),
            ("127.0.0.1:2", "127.0.0.1:3")
        );
    }

    /// A program that says ready like the gateway does, on the address of the first listener in the file.
    const STAND_IN: &str = r#"#!/bin/sh
address=$(sed -n '/^\[\[mqtt.listener\]\]/{n;s/^address = "\(.*\)"/\1/p;q}' "$3")
echo '{"ready":true,"mqtt":[{"address":"'$address'","tls":false}],"health":"127.0.0.1:9","admin":null}'
exec sleep 60
"#;

    #[test]
    fn a_restart_asks_for_the_same_ports_which_nothing_else_is_given_meanwhile() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("stand-in");
        fs::write(&program, STAND_IN).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let mut gateway = Gateway::start_program(&program, directory.path(), Config::default()).unwrap();
        let first = gateway.mqtt().to_owned();
        let port: u16 = first.strip_prefix("127.0.0.1:").and_then(|port| port.parse().ok()).unwrap();
        assert!((ports::RANGE.0..ports::RANGE.1).contains(&port), "{first}");
        gateway.kill().unwrap();
        gateway.restart().unwrap();
        let file = fs::read_to_string(directory.path().join("penstock.toml")).unwrap();
        assert!(
            file.contains(&format!("address = \"{first}\"")) && file.contains("\"127.0.0.1:9\""),
            "{file}"
        );
        assert_eq!((gateway.mqtt(), gateway.ready().mqtt[0].address.as_str()), (&*first, &*first));
    }
}
