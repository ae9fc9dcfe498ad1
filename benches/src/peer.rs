//! The servers of the comparison, by name.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// A server of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Peer {
    /// The gateway: every acknowledgement after an fdatasync.
    Penstock,
    /// mosquitto, storing nothing.
    Mosquitto,
    /// rumqttd, storing nothing, with a local link that takes every message.
    Rumqttd,
}

impl Peer {
    /// How it is written in tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Penstock => "penstock",
            Self::Mosquitto => "mosquitto",
            Self::Rumqttd => "rumqttd",
        }
    }

    /// The peers in the order of a round: every other round runs backwards, so that what the machine does meanwhile
    /// hits all of them.
    pub fn order(peers: &[Self], round: u32) -> Vec<Self> {
        let mut order = peers.to_vec();
        if round % 2 == 1 {
            order.reverse();
        }
        order
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_round_runs_backwards() {
        let peers = [Peer::Penstock, Peer::Mosquitto, Peer::Rumqttd];
        assert_eq!(Peer::order(&peers, 0), peers);
        assert_eq!(Peer::order(&peers, 1), [Peer::Rumqttd, Peer::Mosquitto, Peer::Penstock]);
    }
}
