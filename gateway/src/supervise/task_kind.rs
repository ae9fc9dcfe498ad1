//! Every kind of task and thread in the gateway, and what its failure means.

/// What the failure or panic of a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Only this task is affected.
    Log,
    /// The gateway cannot keep its promises without it: stop in order and exit with code 1.
    StopGateway,
}

/// A kind of task or thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
pub enum TaskKind {
    /// Runs the devices' stage and ends with its last connection.
    Mqtt,
    /// Accepts connections on one address.
    Listener,
    /// Serves one device.
    Connection,
    /// Ticks the keep-alive clock.
    KeepAlive,
    /// Ends sessions and publishes wills.
    Sessions,
    /// The only writer of the outbox (thread).
    Committer,
    /// Makes the outbox's high-water mark durable once per second (thread).
    Sidecar,
    /// Sends committed entries to Event Hubs (thread).
    Uplink,
    /// Decides which devices' commands are received.
    Commands,
    /// Receives the commands of one device.
    CommandLink,
    /// Keeps a connection to Service Bus.
    ServiceBus,
    /// Reads committed telemetry and raises alerts (thread).
    Alerts,
    /// Writes a snapshot of what the rules have seen (thread, for a moment).
    AlertsSnapshot,
    /// Sends lane alerts to Event Grid (thread).
    EventGrid,
    /// Sends commands that rules ask for to Service Bus (thread).
    AlertCommands,
    /// Publishes what rules have the gateway do (thread).
    Reactions,
    /// Keeps the tokens of Microsoft Entra fresh.
    Tokens,
    /// Answers operators.
    Admin,
    /// Reads users, rules and certificates again when asked to.
    Reload,
}

impl TaskKind {
    /// Every kind.
    pub const ALL: [Self; 19] = [
        Self::Mqtt,
        Self::Listener,
        Self::Connection,
        Self::KeepAlive,
        Self::Sessions,
        Self::Committer,
        Self::Sidecar,
        Self::Uplink,
        Self::Commands,
        Self::CommandLink,
        Self::ServiceBus,
        Self::Alerts,
        Self::AlertsSnapshot,
        Self::EventGrid,
        Self::AlertCommands,
        Self::Reactions,
        Self::Tokens,
        Self::Admin,
        Self::Reload,
    ];
    /// How many kinds there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The name in logs and of the thread (at most 15 characters, or Linux cuts it).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Listener => "listener",
            Self::Connection => "connection",
            Self::KeepAlive => "keep-alive",
            Self::Sessions => "sessions",
            Self::Committer => "committer",
            Self::Sidecar => "sidecar",
            Self::Uplink => "uplink",
            Self::Commands => "commands",
            Self::CommandLink => "command-link",
            Self::ServiceBus => "service-bus",
            Self::Alerts => "alerts",
            Self::AlertsSnapshot => "alerts-snapshot",
            Self::EventGrid => "event-grid",
            Self::AlertCommands => "alert-commands",
            Self::Reactions => "reactions",
            Self::Tokens => "tokens",
            Self::Admin => "admin",
            Self::Reload => "reload",
        }
    }

    /// What its failure does.
    #[must_use]
    pub const fn on_failure(self) -> OnFailure {
        match self {
            Self::Connection | Self::CommandLink | Self::ServiceBus | Self::AlertsSnapshot | Self::Reload => {
                OnFailure::Log
            }
            Self::Mqtt
            | Self::Listener
            | Self::KeepAlive
            | Self::Sessions
            | Self::Committer
            | Self::Sidecar
            | Self::Uplink
            | Self::Commands
            | Self::Alerts
            | Self::EventGrid
            | Self::AlertCommands
            | Self::Reactions
            | Self::Tokens
            | Self::Admin => OnFailure::StopGateway,
        }
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_a_thread_and_places_are_unique() {
        for (place, kind) in TaskKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), place);
            assert!(kind.name().len() <= 15, "{kind:?}");
        }
    }
}
