//! The tasks of a namespace, all of one kind.

use std::error::Error;

use crate::supervise::{Shutdown, Supervisor, TaskKind};

/// Starts them.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    supervisor: Supervisor,
    kind: TaskKind,
}

impl Tasks {
    pub(super) fn new(supervisor: &Supervisor, kind: TaskKind) -> Self {
        Self { supervisor: supervisor.clone(), kind }
    }

    pub(super) fn spawn<E: Into<Box<dyn Error + Send + Sync>> + 'static>(
        &self,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        self.supervisor.spawn(self.kind, task);
    }

    pub(super) fn shutdown(&self) -> Shutdown {
        self.supervisor.shutdown()
    }
}
