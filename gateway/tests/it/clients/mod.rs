//! The MQTT front end as clients that we did not write see it: mosquitto's tools, Eclipse Paho and MQTT.js.
//!
//! Each test starts a gateway of its own that allows everything. None waits for a time: that nothing more arrives is
//! shown by what is published last, which must be what arrives next.

pub(crate) mod agent;
mod bridge;
mod features;
pub(crate) mod mosquitto;
mod sessions;
pub(crate) mod talker;
mod telemetry;
mod tools;
mod wills;

use std::path::{Path, PathBuf};

use testkit::gateway::{Config, Gateway};

use crate::hub;
use crate::real_clients::self_signed;

/// A gateway that allows everything, with plain, TLS and WebSocket listeners.
struct Site {
    gateway: Gateway,
    authority: PathBuf,
    // Removed last.
    _folder: tempfile::TempDir,
}

impl Site {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (certificate, key) = self_signed(folder.path());
        let config = Config::default()
            .tls(&certificate, &key)
            .websocket()
            .set("uplink", "enabled = false")
            .set("mqtt", "sys_interval = \"1s\"")
            .rule(&["effect = \"allow\"", "action = \"all\"", "filter = \"#\""]);
        let gateway = Gateway::start(folder.path(), config).expect("the gateway starts");
        Self { gateway, authority: certificate, _folder: folder }
    }

    /// `host:port` of MQTT.
    fn plain(&self) -> &str {
        self.gateway.mqtt()
    }

    /// `host:port` of MQTT with TLS.
    fn tls(&self) -> &str {
        self.gateway.mqtt_tls().expect("asked for")
    }

    /// `host:port` of MQTT in a WebSocket.
    fn websocket(&self) -> &str {
        self.gateway.mqtt_websocket().expect("asked for")
    }

    /// The certificate that the listener with TLS shows.
    fn authority(&self) -> &Path {
        &self.authority
    }

    /// Waits until the gateway has no connection any more.
    fn wait_until_nobody_is_connected(&self) {
        hub::wait_until_nobody_is_connected(&self.gateway);
    }

    /// Kills the gateway, as a power cut of the process alone, and starts it again on the same ports.
    fn kill_and_restart(&mut self) {
        self.kill_and_restart_after(|| ());
    }

    /// As [`Self::kill_and_restart`]; between the two something happens.
    fn kill_and_restart_after(&mut self, meanwhile: impl FnOnce()) {
        self.gateway.kill().expect("it can be killed");
        meanwhile();
        self.gateway.restart().expect("it starts again after it was killed");
    }
}
