//! A cloud with a queue of commands, as drills, the demo and benchmarks have it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cloud::Cloud;
use crate::cloud::service_bus::{Entities, Queue};
use crate::process::ProcessError;

/// The queue.
pub const QUEUE: &str = "commands";

/// Why there is no cloud with a queue.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The stand-in does not start.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The file with the connection string could not be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It started without Service Bus.
    #[error("cloud-sim does not say where its Service Bus is")]
    NoServiceBus,
}

/// Starts cloud-sim in `directory` with topics and the queue [`QUEUE`], whose locks last `lock_seconds`. Returns it
/// with the file that holds the connection string for the gateway.
///
/// # Errors
/// When it does not get ready.
pub fn start(
    directory: &Path,
    topics: &[(&str, u32)],
    lock_seconds: u32,
) -> Result<(Cloud, PathBuf), QueueError> {
    start_with(directory, topics, lock_seconds, &[])
}

/// As [`start`], with further arguments for the program, such as `--eventgrid 127.0.0.1:0`.
///
/// # Errors
/// When it does not get ready.
pub fn start_with(
    directory: &Path,
    topics: &[(&str, u32)],
    lock_seconds: u32,
    arguments: &[&str],
) -> Result<(Cloud, PathBuf), QueueError> {
    let queue = Queue { lock_seconds: lock_seconds.into(), ..Queue::with_sessions(QUEUE) };
    let cloud = Cloud::start_with_service_bus(directory, topics, &Entities::queues([queue]), arguments)?;
    let connection_string = cloud.ready().servicebus_connection_string.clone();
    let connection_string = connection_string.ok_or(QueueError::NoServiceBus)?;
    let path = directory.join("servicebus-connection-string");
    match fs::write(&path, connection_string) {
        Ok(()) => Ok((cloud, path)),
        Err(source) => Err(QueueError::File { path, source }),
    }
}
