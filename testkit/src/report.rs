//! The JSON report of a run, as `firmware-sim run --report FILE` writes it.
//!
//! The keys are a contract: scripts and `xtask` read them. See `docs/firmware-sim.md`.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::alerts;
use crate::commands;
use crate::judge::Counts;
use crate::ledger::Totals;

/// What a run did and found. Counts are readings unless said otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Whether every promise was kept.
    pub verdict: Outcome,
    /// Why not, one sentence each; empty for `pass`.
    pub reasons: Vec<String>,
    /// The seed from which the whole behaviour of the fleet follows.
    pub seed: u64,
    /// How many devices took part.
    pub devices: u64,
    /// How long the fleet published, in seconds.
    pub seconds: f64,
    /// How often the gateway was killed; filled in by whoever killed it.
    pub kills: u64,
    /// How often devices had to connect again.
    pub reconnects: u64,
    /// Readings handed to at least one publish.
    pub sent: u64,
    /// Readings acknowledged: PUBACK, or PUBREC for QoS 2.
    pub acked: u64,
    /// QoS 1 and 2 readings that never got an answer.
    pub unacked: u64,
    /// QoS 1 and 2 readings the gateway refused with an MQTT 5 reason.
    pub refused: u64,
    /// Readings that came due while the device was too far behind, and were not taken.
    pub skipped: u64,
    /// Connections on which the gateway still had a session that was to last.
    #[serde(default)]
    pub sessions_resumed: u64,
    /// Connections on which it should have had it and had not.
    #[serde(default)]
    pub sessions_lost: u64,
    /// Connections opened while the one before was still open.
    #[serde(default)]
    pub takeovers: u64,
    /// QoS 0 readings sent.
    pub qos0_sent: u64,
    /// Records read back from the cloud; absent without a read-back.
    pub records: Option<u64>,
    /// Records of earlier runs that were passed over.
    pub earlier: Option<u64>,
    /// Different readings found in the cloud.
    pub delivered: Option<u64>,
    /// Acknowledged readings found nowhere.
    pub lost: Option<u64>,
    /// Records whose identity was there before.
    pub duplicated: Option<u64>,
    /// Further identities of QoS 1 readings.
    pub resent: Option<u64>,
    /// Further identities of QoS 2 readings.
    pub qos2_repeats: Option<u64>,
    /// First occurrences out of order.
    pub reordered: Option<u64>,
    /// Records that nothing explains.
    pub unexpected: Option<u64>,
    /// QoS 0 readings found nowhere.
    pub qos0_missing: Option<u64>,
    /// Acknowledged readings per second of publishing.
    pub acked_per_second: f64,
    /// Time from handing a reading to the connection to its acknowledgement, in milliseconds.
    pub ack_ms: AckMs,
    /// CPU time of the gateway per message it accepted, in microseconds.
    pub gateway_cpu_us_per_message: Option<f64>,
    /// Resident memory of the gateway at the end, in bytes.
    pub gateway_rss_bytes: Option<u64>,
    /// What became of commands; absent when none were sent.
    #[serde(default)]
    pub commands: Option<Commands>,
    /// What became of faults in what devices said, and of alerts; filled in by whoever watched the alerts.
    #[serde(default)]
    pub alerts: Option<alerts::Counts>,
}

/// What a run found about commands. Counts are commands unless said otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Commands {
    /// What the judge counted.
    #[serde(flatten)]
    pub counts: commands::judge::Counts,
    /// Deliveries that devices acknowledged.
    pub acked: u64,
    /// Deliveries that devices refused with an MQTT 5 reason.
    pub refused: u64,
    /// Answers that devices gave.
    pub answered: u64,
    /// Time from handing a command to Service Bus to its settlement there, in milliseconds.
    pub settle_ms: AckMs,
}

/// Whether the promises were kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Every promise was kept.
    Pass,
    /// At least one was broken; this is also the word before anything was judged.
    #[default]
    Fail,
}

/// Quantiles of the acknowledgement time, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct AckMs {
    /// Half of the readings were acknowledged within this time.
    pub p50: f64,
    /// 99 of 100 were.
    pub p99: f64,
    /// The slowest one.
    pub max: f64,
}

// === impl Report ===

impl Report {
    /// Fills in what the devices' ledger says.
    pub fn set_totals(&mut self, totals: Totals) {
        self.sent = totals.sent;
        self.acked = totals.acked;
        self.unacked = totals.unacked;
        self.refused = totals.refused;
        self.qos0_sent = totals.qos0_sent;
    }

    /// Fills in what the judge counted.
    pub fn set_counts(&mut self, counts: Counts) {
        self.records = Some(counts.records);
        self.delivered = Some(counts.delivered);
        self.lost = Some(counts.lost);
        self.duplicated = Some(counts.duplicated);
        self.resent = Some(counts.resent);
        self.qos2_repeats = Some(counts.qos2_repeats);
        self.reordered = Some(counts.reordered);
        self.unexpected = Some(counts.unexpected);
        self.qos0_missing = Some(counts.qos0_missing);
    }

    /// Sets the verdict from the reasons against it.
    pub fn set_reasons(&mut self, reasons: Vec<String>) {
        self.verdict = if reasons.is_empty() { Outcome::Pass } else { Outcome::Fail };
        self.reasons = reasons;
    }

    /// Reads a report.
    ///
    /// # Errors
    /// When the file cannot be read or is not a report.
    pub fn read(path: &Path) -> io::Result<Self> {
        serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)
    }

    /// Writes the report as indented JSON, whole or not at all.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        text.push(b'\n');
        let unfinished = path.with_added_extension("unfinished");
        fs::write(&unfinished, text)?;
        fs::rename(unfinished, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_the_contract() {
        let value = serde_json::to_value(Report::default()).unwrap();
        let keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let contract = [
            "acked",
            "delivered",
            "lost",
            "duplicated",
            "resent",
            "qos2_repeats",
            "reordered",
            "unexpected",
            "qos0_missing",
            "acked_per_second",
            "ack_ms",
            "gateway_cpu_us_per_message",
            "gateway_rss_bytes",
            "verdict",
            "seed",
            "devices",
            "seconds",
            "kills",
            "reconnects",
            "reasons",
        ];
        for key in contract {
            assert!(keys.contains(&key), "{key} is missing in {keys:?}");
        }
        assert_eq!(value["verdict"], "fail");
    }

    #[test]
    fn a_report_is_read_back_as_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.json");
        let mut report = Report { seed: u64::MAX, seconds: 1.5, ..Report::default() };
        report.set_counts(Counts { records: 3, delivered: 2, duplicated: 1, ..Counts::default() });
        report.set_reasons(Vec::new());
        report.write(&path).unwrap();
        assert_eq!(Report::read(&path).unwrap(), report);
        assert_eq!(report.verdict, Outcome::Pass);
    }
}
