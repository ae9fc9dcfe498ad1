//! What stands for Event Hubs in a drill: the stand-in, whose faults are ordered, or a real Apache Kafka, which
//! can be killed.

use std::fs;
use std::path::Path;

use super::stage::StageError;
use crate::cloud::{Cloud, Control};
use crate::kafka::{Kafka, Secured};
use crate::process::Process;

/// A broker started by us; killed when dropped.
#[derive(Debug)]
pub enum Broker {
    /// cloud-sim.
    Sim(Box<Cloud>),
    /// Apache Kafka.
    Kafka(Box<Kafka>),
}

impl Broker {
    /// Starts cloud-sim in `folder` with topics given by name and partitions.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn sim(folder: &Path, topics: &[(&str, u32)]) -> Result<Self, StageError> {
        make(folder)?;
        Ok(Self::Sim(Box::new(Cloud::start(folder, topics)?)))
    }

    /// Starts Apache Kafka in `folder` with topics given by name and partitions.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn kafka(folder: &Path, topics: &[(&str, u32)]) -> Result<Self, StageError> {
        make(folder)?;
        Ok(Self::Kafka(Box::new(Kafka::start(folder, topics)?)))
    }

    /// `host:port` of the listener without TLS, which stays the same for life.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            Self::Sim(cloud) => cloud.ready().kafka.clone(),
            Self::Kafka(kafka) => kafka.plain(),
        }
    }

    /// The listener with TLS, if there is one.
    #[must_use]
    pub fn secured(&self) -> Option<&Secured> {
        match self {
            Self::Sim(_) => None,
            Self::Kafka(kafka) => Some(kafka.secured()),
        }
    }

    /// The orders that the stand-in takes; a real broker takes none.
    #[must_use]
    pub fn control(&self) -> Option<&Control> {
        match self {
            Self::Sim(cloud) => Some(cloud.control()),
            Self::Kafka(_) => None,
        }
    }

    /// The real broker, if it is one.
    pub fn real(&mut self) -> Option<&mut Kafka> {
        match self {
            Self::Sim(_) => None,
            Self::Kafka(kafka) => Some(kafka),
        }
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        match self {
            Self::Sim(cloud) => cloud.process(),
            Self::Kafka(kafka) => kafka.process(),
        }
    }
}

fn make(folder: &Path) -> Result<(), StageError> {
    fs::create_dir_all(folder).map_err(|source| StageError::File { path: folder.to_owned(), source })
}
