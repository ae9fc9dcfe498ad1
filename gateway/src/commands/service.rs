//! The stage as others see it: starting it.

use std::collections::HashMap;
use std::sync::Arc;

use penstock_proto::GatewayId;

use super::amqp::{Namespace, SetUpError};
use super::config::Config;
use super::contract::Voice;
use super::control::{Everybody, Executor, Own, Site};
use super::dispatch::Dispatcher;
use super::driver::Driver;
use super::link::{self, Cloud, Fleet};
use super::status::Handle;
use super::trouble::Trouble;
use super::watcher::{Desk, Watcher};
use crate::mqtt::Devices;
use crate::outbox;
use crate::supervise::{Supervisor, TaskKind, clock};

/// The commands' stage.
#[derive(Debug)]
pub struct Service;

/// Why the stage did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The records of earlier commands cannot be read.
    #[error("the records of commands cannot be read")]
    Records(#[from] outbox::Error),
    /// A setting of the connection cannot work.
    #[error("Service Bus cannot be reached as configured")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Service {
    /// Starts receiving commands for the devices that are connected. An unreachable Service Bus is no error. Reads
    /// the records of earlier commands from the disk; to be called before devices connect. `site` is what commands for the
    /// gateway itself act on.
    ///
    /// # Errors
    ///
    /// When those cannot be read, or a setting cannot work.
    pub fn start(
        config: &Config,
        gateway: &GatewayId,
        outbox: &outbox::Handle,
        devices: Devices,
        site: Arc<dyn Site>,
        supervisor: &Supervisor,
    ) -> Result<Handle, StartError> {
        let namespace = Namespace::new(&config.connection, config.tokens.clone(), supervisor)
            .map_err(|error: SetUpError| StartError::Connection(Box::new(error)))?;
        let handle = Handle::default();
        handle.connections(namespace.view());
        let source = namespace.clone();
        let (own, orders) = config.control_session(gateway).map(|session| Own::new(&session)).unzip();
        let everybody = Everybody::new(devices.clone(), own.clone());
        let shared =
            link::Shared::open(config, gateway, outbox, namespace, everybody, handle.clone(), supervisor)?;
        let shared = Arc::new(shared);
        devices.answers(Arc::new(shared.table.clone()));
        if let Some(settings) = config.dead_letters {
            let desk = Desk {
                entities: Arc::clone(&shared.entities),
                table: shared.table.clone(),
                voice: Voice::of(gateway, &config.type_prefix),
                outbox: outbox.clone(),
                handle: handle.clone(),
                settings,
            };
            let watcher = Watcher::new(source, desk, rand::random());
            supervisor.spawn(TaskKind::Commands, watcher.run(supervisor.clone()));
        }
        if let (Some(own), Some(orders)) = (&own, orders) {
            let speaker = (shared.table.clone(), Voice::of(gateway, &config.type_prefix));
            let shutdown = supervisor.shutdown();
            let executor = Executor::open((own, orders), site, speaker, outbox, handle.clone(), shutdown)?;
            supervisor.spawn(TaskKind::Commands, executor.run());
        }
        launch(config, shared, handle.clone(), supervisor);
        Ok(handle)
    }
}

/// Starts the task that decides who gets a link.
pub(super) fn launch<C: Cloud, F: Fleet>(
    config: &Config,
    shared: Arc<link::Shared<C, F>>,
    handle: Handle,
    supervisor: &Supervisor,
) {
    let now = clock::now();
    let driver = Driver {
        dispatcher: Dispatcher::new(config.limits, config.entities.len(), rand::random(), now),
        entities: Arc::clone(&shared.entities),
        troubles: vec![Trouble::default(); config.entities.len()],
        told_too_long: false,
        house: None,
        shared,
        supervisor: supervisor.clone(),
        handle,
        links: HashMap::new(),
    };
    supervisor.spawn(TaskKind::Commands, driver.run());
}
