//! The checked layer: everything the gateway is told, in the types it uses.

use std::path::Path;
use std::time::Duration;

use penstock_proto::GatewayId;

use super::{ConfigError, Key, Preset, Section, Shape, Value, load};
use crate::observe::LogConfig;

const ID: Key = Key {
    name: "id",
    value: Value::Text { chars_max: GatewayId::LENGTH_MAX },
    default: Preset::Required,
    help: "The gateway's name in every record it sends: 1 to 64 of `A-Z a-z 0-9 . _ -`. Two gateways never share one.",
};
const WORKERS: Key = Key {
    name: "workers",
    value: Value::Count { min: 1, max: 256 },
    default: Preset::Is("2"),
    help: "Threads that serve devices. The outbox and the uplink have a thread each besides.",
};
const GRACE: Key = Key {
    name: "grace",
    value: Value::Time { min: Duration::from_secs(1), max: Duration::from_secs(600) },
    default: Preset::Is("10s"),
    help: "How long a stop may take in all: finishing publishes has at most a third of it, draining the uplink \
           at most half. What is not sent by then stays in the outbox.",
};

/// The `[gateway]`, `[runtime]` and `[shutdown]` sections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatewayConfig {
    /// The gateway's name.
    pub id: GatewayId,
    /// Threads that serve devices.
    pub workers: usize,
    /// How long a stop may take.
    pub grace: Duration,
}

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name, threads, shutdown.
    pub gateway: GatewayConfig,
    /// Logging.
    pub log: LogConfig,
    /// The durable outbox.
    pub outbox: crate::outbox::Config,
    /// Azure's cloud and tokens for it.
    pub azure: crate::azure::Config,
    /// Devices in.
    pub mqtt: crate::mqtt::Config,
    /// Event Hubs out; `None` when it is switched off.
    pub uplink: Option<crate::uplink::Config>,
    /// Commands for devices; `None` when the section is left out.
    pub commands: Option<crate::commands::Config>,
    /// Rules and alerts; `None` when the section is left out.
    pub alerts: Option<crate::alerts::Config>,
    /// Operators.
    pub admin: crate::admin::Config,
    /// Every setting in force, as TOML.
    pub effective: String,
}

impl Settings {
    /// Every table of the file.
    pub const SHAPE: Shape = Shape::table("", "", &[]).with(&[
        Shape::table("gateway", "Who this gateway is.", &[ID]),
        Shape::table("runtime", "What it may use.", &[WORKERS]),
        Shape::table("shutdown", "How it stops.", &[GRACE]),
        LogConfig::SHAPE,
        crate::outbox::Config::SHAPE,
        crate::mqtt::Config::SHAPE,
        crate::uplink::Config::SHAPE,
        crate::commands::Config::SHAPE,
        crate::alerts::Config::SHAPE,
        crate::azure::Config::SHAPE,
        crate::admin::Config::SHAPE,
    ]);

    /// Reads a file with the environment laid over it.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, in one line.
    pub fn load(
        file: &Path,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let (root, context) = load::load(file, environment, &Self::SHAPE)?;
        let mut settings = Self::read(root)?;
        settings.effective = context.effective.borrow().join("\n").trim_start().to_owned();
        if let Some(commands) = &settings.commands {
            for line in commands.advice(settings.mqtt.limits.connections_max) {
                settings.effective.push_str("\n# ");
                settings.effective.push_str(&line);
            }
        }
        Ok(settings)
    }

    pub(super) fn read(mut root: Section) -> Result<Self, ConfigError> {
        let [gateway, runtime, shutdown, log, outbox, mqtt, uplink, commands, alerts, azure, admin] =
            Self::SHAPE.children
        else {
            unreachable!("the shape above has these eleven tables");
        };
        let gateway = GatewayConfig {
            id: read_id(&mut root.child(gateway)?)?,
            workers: root.child(runtime)?.length(&WORKERS)?,
            grace: root.child(shutdown)?.time(&GRACE)?,
        };
        let log = LogConfig::read(&mut root.child(log)?)?;
        let outbox = crate::outbox::Config::read(&mut root.child(outbox)?)?;
        let mut mqtt = crate::mqtt::Config::read(&mut root.child(mqtt)?)?;
        let mut tokens = root.child(azure)?;
        let azure = crate::azure::Config::read(&mut tokens)?;
        let uplink = crate::uplink::Config::read(&mut root.child(uplink)?, azure.cloud)?;
        let commands = if root.has(commands) {
            Some(crate::commands::Config::read(&mut root.child(commands)?, azure.cloud)?)
        } else {
            None
        };
        let alerts = if root.has(alerts) {
            Some(crate::alerts::Config::read(&mut root.child(alerts)?, azure.cloud, commands.is_some())?)
        } else {
            None
        };
        mqtt.commands = commands.as_ref().map(|commands| commands.topic().clone());
        let readers = [
            (
                uplink.as_ref().and_then(|uplink| uplink.connection.tokens()),
                "uplink.security is \"entra-tls\"",
            ),
            (
                commands.as_ref().and_then(crate::commands::Config::tokens),
                "commands.connection.namespace is given",
            ),
            (
                alerts.as_ref().and_then(|alerts| alerts.tokens().next()),
                "an alerts.event_grid signs in with a token",
            ),
        ];
        if azure.source.is_none()
            && let Some((_, reader)) = readers.into_iter().find(|(tokens, _)| tokens.is_some())
        {
            return Err(crate::azure::Config::missing_credential(&tokens, reader));
        }
        let admin = crate::admin::Config::read(&mut root.child(admin)?)?;
        Ok(Self {
            gateway,
            log,
            outbox,
            azure,
            mqtt,
            uplink,
            commands,
            alerts,
            admin,
            effective: String::new(),
        })
    }
}

fn read_id(section: &mut Section) -> Result<GatewayId, ConfigError> {
    let text = section.text(&ID)?;
    text.parse().map_err(|_| section.refuse(&ID, &text, "1 to 64 of A-Z a-z 0-9 . _ -"))
}
