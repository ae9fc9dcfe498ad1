//! `cargo xtask serve-test`: a gateway for clients and suites that we did not write, until Ctrl-C.
//!
//! Everybody may connect, publish and subscribe, except that nobody may subscribe to `test/nosubscribe`: suites ask
//! for a topic like that. Telemetry goes to a stand-in for Event Hubs. The data lives beside the build and is removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use testkit::cloud::Cloud;
use testkit::gateway::{Config, Gateway};

use crate::cargo::Cargo;
use crate::packages::{self, Need};
use crate::say;
use crate::signals;

/// The topic of the stand-in and its partitions.
const TOPIC: (&str, u32) = ("telemetry", 4);
/// How often the processes are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// The topic filter that nobody may subscribe to; MQTT 5 clients are told 0x80, as the suites want.
const REFUSED: &[&str] = &[
    "effect = \"deny\"",
    "action = \"subscribe\"",
    "filter = \"test/nosubscribe\"",
    "told = \"unspecified\"",
];
/// Everything else is allowed. A leading wildcard of a rule covers topics that begin with `$`, too.
const ALLOWED: &[&str] = &["effect = \"allow\"", "action = \"all\"", "filter = \"#\""];

#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Arguments {
    /// Port of MQTT; a free one unless given
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub(crate) port: u16,
    /// Port of MQTT with TLS; a free one unless given
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub(crate) tls_port: u16,
    /// Port of MQTT in a WebSocket; a free one unless given
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub(crate) websocket_port: u16,
    /// Start what is built already
    #[arg(long)]
    pub(crate) built: bool,
}

/// The gateway and its cloud. Both are killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    // Dropped in this order: the cloud last.
    gateway: Gateway,
    cloud: Cloud,
    certificate: PathBuf,
}

/// Makes sure of the packages, builds, and serves until Ctrl-C.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let cargo = prepare(arguments.built)?;
    // Beside the build and not in /tmp, which may be memory.
    let folder = tempfile::Builder::new().prefix("serve-test-").tempdir_in(cargo.target());
    let folder = folder.context("no folder for the gateway's data")?;
    let mut server = Server::start(folder.path(), arguments)?;
    for line in server.description() {
        say::line(&line);
    }
    say::line("Ctrl-C ends it and removes its data.");
    while !signals::interrupted() {
        server.still_running()?;
        thread::park_timeout(LOOK);
    }
    server.stop()
}

/// Makes sure of the packages and of the programs, unless they are `built`.
pub(crate) fn prepare(built: bool) -> Result<Cargo> {
    packages::ensure(Need::BuildAndTest)?;
    let mut cargo = Cargo::new()?;
    if !built {
        cargo.build()?;
    }
    Ok(cargo)
}

impl Server {
    /// Starts the stand-in and the gateway with their data below `folder`.
    pub(crate) fn start(folder: &Path, arguments: Arguments) -> Result<Self> {
        let place = |name: &str| -> Result<_> {
            let place = folder.join(name);
            fs::create_dir(&place).with_context(|| format!("{} cannot be made", place.display()))?;
            Ok(place)
        };
        let cloud = Cloud::start(&place("cloud")?, &[TOPIC])?;
        let home = place("gateway")?;
        let (certificate, key) = certificate(&home)?;
        let config = profile(arguments).tls(&certificate, &key).uplink(&cloud.ready().kafka, TOPIC.0);
        let gateway = Gateway::start(&home, config)?;
        Ok(Self { gateway, cloud, certificate })
    }

    /// `host:port` of MQTT without TLS.
    pub(crate) fn mqtt(&self) -> &str {
        self.gateway.mqtt()
    }

    /// Where everything is, line by line.
    fn description(&self) -> Vec<String> {
        let gateway = &self.gateway;
        vec![
            format!("mqtt        {}", gateway.mqtt()),
            format!("mqtts       {}", gateway.mqtt_tls().unwrap_or("none")),
            format!("ca file     {}", self.certificate.display()),
            format!("websocket   ws://{}/mqtt", gateway.mqtt_websocket().unwrap_or("none")),
            format!("health      http://{}", gateway.ready().health),
            format!("admin       http://{}", gateway.ready().admin.as_deref().unwrap_or("none")),
            format!("cloud       kafka {}, topic {}", self.cloud.ready().kafka, TOPIC.0),
        ]
    }

    /// Fails when one of the processes ended by itself.
    pub(crate) fn still_running(&mut self) -> Result<()> {
        for (name, process) in [("gateway", self.gateway.process()), ("cloud stand-in", self.cloud.process())]
        {
            if !process.running()? {
                bail!("the {name} ended by itself; its last words:\n{}", process.stderr_tail());
            }
        }
        Ok(())
    }

    /// The end of the gateway's log.
    pub(crate) fn log(&mut self) -> String {
        self.gateway.process().stderr_tail()
    }

    /// Asks the gateway to stop, which must succeed.
    pub(crate) fn stop(mut self) -> Result<()> {
        let status = self.gateway.stop()?;
        if !status.success() {
            bail!("the gateway stopped with {status}; its last words:\n{}", self.log());
        }
        Ok(())
    }
}

/// A gateway that allows everything but [`REFUSED`]. The suites expect 60 s as the longest keep alive.
fn profile(arguments: Arguments) -> Config {
    Config::default()
        .id("serve-test")
        .ports(arguments.port, arguments.tls_port, arguments.websocket_port)
        .websocket()
        .set("mqtt", "keep_alive_max = \"60s\"")
        .rule(REFUSED)
        .rule(ALLOWED)
}

/// Makes a certificate for this machine that signs itself, and its key.
fn certificate(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
    let program = packages::program("openssl").context("openssl is not installed")?;
    let mut command = Command::new(program);
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
    command.args([
        "-days",
        "30",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
    ]);
    command.arg("-out").arg(&certificate).arg("-keyout").arg(&key);
    let output = command.stdin(Stdio::null()).output().context("openssl cannot be started")?;
    if !output.status.success() {
        bail!("openssl made no certificate: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok((certificate, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_refuses_one_subscription_before_it_allows_everything() {
        let file = profile(Arguments { port: 1883, tls_port: 8883, websocket_port: 8083, built: true })
            .to_toml(Path::new("/d"));
        let refused = file.find("filter = \"test/nosubscribe\"").unwrap();
        assert!(refused < file.find("filter = \"#\"").unwrap(), "{file}");
        for line in ["anonymous = \"allow\"", "keep_alive_max = \"60s\"", "address = \"127.0.0.1:1883\""] {
            assert!(file.contains(line), "{line} in {file}");
        }
    }

    #[test]
    fn a_certificate_names_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = certificate(folder.path()).unwrap();
        let text = Command::new("openssl")
            .args(["x509", "-noout", "-text", "-in"])
            .arg(certificate)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        assert!(text.contains("DNS:localhost") && text.contains("IP Address:127.0.0.1"), "{text}");
        assert!(fs::read_to_string(key).unwrap().contains("PRIVATE KEY"));
    }
}
