//! What a configuration asks of a namespace, compared with what a namespace gives.

use super::Config;

/// Concurrent receivers per queue or subscription ("Service Bus quotas").
const RECEIVERS_PER_ENTITY: usize = 5000;
/// Connections per namespace with AMQP (the same page).
const CONNECTIONS_PER_NAMESPACE: usize = 5000;
/// Operations per second of a namespace of the Standard tier ("Throttling operations").
const STANDARD_OPERATIONS: usize = 1000;
/// The lock duration of a queue that nobody changed, in seconds. It is renewed at its half.
const LOCK_SECONDS_USUAL: usize = 60;

/// What is asked at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Demand {
    entities: usize,
    /// Links of all entities.
    links: usize,
    /// Receivers of the entity that has the most.
    receivers: usize,
    connections: usize,
    /// Per second, in tenths.
    renewals_tenths: usize,
}

impl Config {
    /// Lines about links, connections and operations with `devices` connected at most, and a warning for each
    /// limit of a namespace that this can pass.
    #[must_use]
    pub fn advice(&self, devices: usize) -> Vec<String> {
        let demand = self.demand(devices);
        let Demand { entities, links, receivers, connections, renewals_tenths } = demand;
        let (whole, tenth) = (renewals_tenths / 10, renewals_tenths % 10);
        let mut lines = vec![format!(
            "commands: at most {links} links to {entities} entities on {connections} connections, {receivers} receivers \
             at one entity, {whole}.{tenth} renewals per second (lock duration {LOCK_SECONDS_USUAL} s)"
        )];
        lines.extend(
            self.warnings(devices, demand).into_iter().map(|line| format!("commands: warning: {line}")),
        );
        lines
    }

    fn warnings(&self, devices: usize, demand: Demand) -> Vec<String> {
        let mut lines = Vec::new();
        if demand.receivers > RECEIVERS_PER_ENTITY {
            lines.push(format!(
                "{} receivers at one entity are more than the {RECEIVERS_PER_ENTITY} that Service Bus takes, of all gateways together: lower links_max or parked_max",
                demand.receivers
            ));
        }
        let passive = devices.saturating_sub(self.limits.links_max.saturating_mul(demand.entities));
        if passive > 0 {
            lines.push(format!(
                "{passive} of {devices} devices are without a link of their own when all are connected: their commands wait for discovery. More shards give more room"
            ));
        }
        if demand.connections > CONNECTIONS_PER_NAMESPACE {
            lines.push(format!(
                "{} connections are more than the {CONNECTIONS_PER_NAMESPACE} of a namespace",
                demand.connections
            ));
        }
        if demand.renewals_tenths > STANDARD_OPERATIONS * 10 {
            lines.push(format!(
                "renewing alone takes more than the {STANDARD_OPERATIONS} operations per second of the Standard tier: a longer lock duration, or Premium"
            ));
        } else if demand.renewals_tenths * 2 > STANDARD_OPERATIONS * 10 {
            lines.push(format!(
                "renewing takes more than half of the {STANDARD_OPERATIONS} operations per second of the Standard tier: consider a longer lock duration"
            ));
        }
        lines
    }

    fn demand(&self, devices: usize) -> Demand {
        let entities = self.entities.len();
        let limits = self.limits;
        let links = devices.min(limits.links_max.saturating_mul(entities));
        // Devices need not be spread evenly over entities.
        let of_one = devices.min(limits.links_max);
        let discovery = if devices > limits.links_max { limits.receivers + limits.parked_max } else { 0 };
        let held = links + discovery * entities;
        Demand {
            entities,
            links,
            receivers: of_one + discovery,
            connections: held.div_ceil(self.connection.links_per_connection.max(1)),
            renewals_tenths: held * 10 * 2 / LOCK_SECONDS_USUAL,
        }
    }
}
