//! The profile of a fleet: everything about its behaviour that is not on the command line.
//!
//! A TOML file; every key has a default and unknown keys are errors. `docs/firmware-sim.md` lists them.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use testkit::alerts::Kind;

use crate::fault::{FAULTS_MAX, Fault};
use crate::signal::Shape;

/// How a fleet behaves.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Profile {
    /// Size of a payload in bytes, 150 to 65536; a reading that needs more is longer.
    pub payload_bytes: usize,
    /// Readings a device may have in flight, 1 to 1000.
    pub window: u16,
    /// MQTT keep alive in seconds, 5 to 3600 (the MQTT 5 client refuses less than 5).
    pub keep_alive_seconds: u16,
    /// Share of devices that publish at QoS 0, in percent; the three shares make 100.
    pub qos0_percent: u8,
    /// Share of devices that publish at QoS 1, in percent.
    pub qos1_percent: u8,
    /// Share of devices that publish at QoS 2, in percent.
    pub qos2_percent: u8,
    /// Share of devices that speak MQTT 5, in percent.
    pub v5_percent: u8,
    /// How many devices begin to connect per second, 1 to 100000.
    pub connect_per_second: u32,
    /// How far a device's rate may lie from the average, in percent, 0 to 90.
    pub rate_spread_percent: u8,
    /// A device that is further behind its schedule skips readings, in seconds, 0 to 3600.
    pub behind_seconds_max: u32,
    /// Pauses between phases of publishing.
    pub duty: Duty,
    /// Moments at which many devices drop their connection.
    pub storm: Storm,
    /// Sessions that outlive connections.
    pub sessions: Sessions,
    /// Devices that change their connection all the time.
    pub churn: Churn,
    /// What devices do with commands.
    pub commands: Commands,
    /// What devices measure when nothing is wrong.
    pub signal: Shape,
    /// What is wrong with it; at most 64.
    #[serde(rename = "fault")]
    pub faults: Vec<Fault>,
}

/// What devices do with commands. Those that take any use the client that leaves sessions to the devices, without TLS.
///
/// What a device does with one command is decided once: it does the same when the command comes again.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Commands {
    /// Whether devices subscribe to their commands; a run that sends commands implies it.
    pub subscribe: bool,
    /// Average time from a command to its acknowledgement, in milliseconds, 0 to 60000.
    pub latency_ms: u32,
    /// Average time from the acknowledgement to the answer, in milliseconds, 0 to 60000.
    pub answer_ms: u32,
    /// Share of commands that MQTT 5 devices refuse, in percent; MQTT 3.1.1 has no word for that.
    pub refuse_percent: u8,
    /// The MQTT 5 reason of a refusal, 128 to 255.
    pub refuse_reason: u8,
    /// Share of answers that say `failed`, in percent.
    pub fail_percent: u8,
    /// Share of answers that say `rejected`, in percent.
    pub reject_percent: u8,
    /// Share of commands that are never answered, in percent.
    pub silent_percent: u8,
    /// Share of commands at whose first delivery the device crashes before it acknowledges, in percent.
    pub crash_percent: u8,
}

/// Sessions that outlive connections. With any, or with churn, the whole fleet uses a client that leaves
/// sessions to the devices, without TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sessions {
    /// Share of devices whose session lasts, in percent.
    pub lasting_percent: u8,
    /// Whether these go on as if their session were present even where the gateway says that it is not: what
    /// a gateway without sessions then stores twice must be noticed.
    pub trusting: bool,
}

/// Devices that change their connection all the time: they drop it abruptly, some in the middle of a
/// packet, or open the next one while it is still there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Churn {
    /// Share of devices that do so, in percent.
    pub percent: u8,
    /// Average time that each keeps a connection, in seconds.
    pub every_seconds: f64,
}

/// Phases of publishing and silence; the average rate stays as asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Duty {
    /// Length of a phase of publishing, in seconds; 0: always.
    pub on_seconds: f64,
    /// Length of the silence after it, in seconds.
    pub off_seconds: f64,
}

/// Reconnect storms.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storm {
    /// Time between two storms, in seconds; 0: none.
    pub every_seconds: f64,
    /// Share of devices that take part in each, in percent.
    pub percent: u8,
}

/// Why a profile was refused.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML of the right shape.
    #[error("{}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value out of its range.
    #[error("{key} is {value}, allowed is {range}")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is allowed.
        range: &'static str,
    },
    /// A fault that says too little, too much, or what is out of its range.
    #[error("fault {number} ({kind}): {what}")]
    Fault {
        /// Which one, from 1.
        number: usize,
        /// Its kind.
        kind: Kind,
        /// What is wrong with it.
        what: String,
    },
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            payload_bytes: 200,
            window: 16,
            keep_alive_seconds: 30,
            qos0_percent: 10,
            qos1_percent: 80,
            qos2_percent: 10,
            v5_percent: 50,
            connect_per_second: 500,
            rate_spread_percent: 50,
            behind_seconds_max: 5,
            duty: Duty::default(),
            storm: Storm::default(),
            sessions: Sessions::default(),
            churn: Churn::default(),
            commands: Commands::default(),
            signal: Shape::default(),
            faults: Vec::new(),
        }
    }
}

impl Default for Commands {
    fn default() -> Self {
        Self {
            subscribe: false,
            latency_ms: 0,
            answer_ms: 0,
            refuse_percent: 0,
            // Implementation specific error.
            refuse_reason: 0x83,
            fail_percent: 0,
            reject_percent: 0,
            silent_percent: 0,
            crash_percent: 0,
        }
    }
}

impl Commands {
    /// The keys with their values, whether they fit, and what is allowed.
    fn checks(&self) -> [(&'static str, String, bool, &'static str); 6] {
        let Self { latency_ms, answer_ms, refuse_percent, refuse_reason, crash_percent, .. } = *self;
        let answers = [self.fail_percent, self.reject_percent, self.silent_percent];
        let sum: u32 = answers.into_iter().map(u32::from).sum();
        let time = 0..=60_000;
        [
            ("commands.latency_ms", latency_ms.to_string(), time.contains(&latency_ms), "0 to 60000"),
            ("commands.answer_ms", answer_ms.to_string(), time.contains(&answer_ms), "0 to 60000"),
            ("commands.refuse_percent", refuse_percent.to_string(), refuse_percent <= 100, "0 to 100"),
            ("commands.refuse_reason", refuse_reason.to_string(), refuse_reason >= 128, "128 to 255"),
            (
                "commands.fail_percent + reject_percent + silent_percent",
                sum.to_string(),
                sum <= 100,
                "0 to 100",
            ),
            ("commands.crash_percent", crash_percent.to_string(), crash_percent <= 100, "0 to 100"),
        ]
    }
}

impl Profile {
    /// Reads a profile; it is not checked yet, because the command line may change it.
    ///
    /// # Errors
    /// When the file cannot be read or is not a profile.
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let text = fs::read_to_string(path);
        let text = text.map_err(|source| ProfileError::Unreadable { path: path.to_owned(), source })?;
        let malformed = |source| ProfileError::Malformed { path: path.to_owned(), source: Box::new(source) };
        toml::from_str(&text).map_err(malformed)
    }

    /// Whether devices need the client that leaves sessions to them.
    #[must_use]
    pub const fn is_bare(&self) -> bool {
        self.sessions.lasting_percent > 0 || self.churn.percent > 0 || self.commands.subscribe
    }

    /// Checks every value against its range.
    ///
    /// # Errors
    /// Names the first key that is out of its range.
    pub fn check(&self) -> Result<(), ProfileError> {
        let percents = [self.qos0_percent, self.qos1_percent, self.qos2_percent];
        let sum: u32 = percents.into_iter().map(u32::from).sum();
        let Duty { on_seconds, off_seconds } = self.duty;
        let Storm { every_seconds, percent } = self.storm;
        let seconds = 0.0..=86_400.0;
        let duty = seconds.contains(&on_seconds) && (on_seconds == 0.0 || on_seconds >= 0.001);
        let storm = every_seconds == 0.0 || (1.0..=86_400.0).contains(&every_seconds);
        let Churn { percent: changing, every_seconds: kept } = self.churn;
        let churn = (changing == 0 && kept == 0.0) || (0.1..=86_400.0).contains(&kept);
        let lasting = self.sessions.lasting_percent;
        let checks = [
            (
                "payload_bytes",
                self.payload_bytes.to_string(),
                (150..=65_536).contains(&self.payload_bytes),
                "150 to 65536",
            ),
            ("window", self.window.to_string(), (1..=1000).contains(&self.window), "1 to 1000"),
            (
                "keep_alive_seconds",
                self.keep_alive_seconds.to_string(),
                (5..=3600).contains(&self.keep_alive_seconds),
                "5 to 3600",
            ),
            ("qos0_percent + qos1_percent + qos2_percent", sum.to_string(), sum == 100, "100"),
            ("v5_percent", self.v5_percent.to_string(), self.v5_percent <= 100, "0 to 100"),
            (
                "connect_per_second",
                self.connect_per_second.to_string(),
                (1..=100_000).contains(&self.connect_per_second),
                "1 to 100000",
            ),
            (
                "rate_spread_percent",
                self.rate_spread_percent.to_string(),
                self.rate_spread_percent <= 90,
                "0 to 90",
            ),
            (
                "behind_seconds_max",
                self.behind_seconds_max.to_string(),
                self.behind_seconds_max <= 3600,
                "0 to 3600",
            ),
            ("duty.on_seconds", on_seconds.to_string(), duty, "0, or 0.001 to 86400"),
            ("duty.off_seconds", off_seconds.to_string(), seconds.contains(&off_seconds), "0 to 86400"),
            ("storm.every_seconds", every_seconds.to_string(), storm, "0, or 1 to 86400"),
            ("storm.percent", percent.to_string(), percent <= 100, "0 to 100"),
            ("sessions.lasting_percent", lasting.to_string(), lasting <= 100, "0 to 100"),
            ("churn.percent", changing.to_string(), changing <= 100, "0 to 100"),
            ("churn.every_seconds", kept.to_string(), churn, "0.1 to 86400"),
        ];
        let mut checks = checks.into_iter().chain(self.commands.checks()).chain(self.signal.checks());
        match checks.find(|(_, _, fits, _)| !fits) {
            Some((key, value, _, range)) => Err(ProfileError::Range { key, value, range }),
            None => self.check_faults(),
        }
    }

    fn check_faults(&self) -> Result<(), ProfileError> {
        let count = self.faults.len();
        if count > FAULTS_MAX {
            let value = format!("given {count} times");
            return Err(ProfileError::Range { key: "fault", value, range: "64 times at most" });
        }
        let named = |(number, fault): (usize, &Fault)| {
            fault.check().map_err(|what| ProfileError::Fault { number, kind: fault.kind, what })
        };
        (1..).zip(&self.faults).try_for_each(named)
    }

    /// Whether some devices say that they took their readings at another time than they did.
    #[must_use]
    pub fn has_wrong_clocks(&self) -> bool {
        self.faults.iter().any(|fault| fault.kind == Kind::ClockJump)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let profile = toml::from_str::<Profile>(text).map_err(|error| error.to_string());
        let error = profile.and_then(|profile| profile.check().map_err(|error| error.to_string())).err();
        match (error, expected) {
            (None, None) => {}
            (Some(error), Some(expected)) => assert!(error.contains(expected), "{error}"),
            (error, expected) => panic!("{text}: {error:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn values_are_checked_and_unknown_keys_refused() {
        check("", None);
        check("payload_bytes = 1000\n[duty]\non_seconds = 1.5\noff_seconds = 3\n", None);
        check("payload = 1", Some("unknown field"));
        check("payload_bytes = 10", Some("payload_bytes is 10"));
        check("keep_alive_seconds = 4", Some("keep_alive_seconds is 4"));
        check("qos1_percent = 81", Some("is 101, allowed is 100"));
        check("[storm]\nevery_seconds = 0.1", Some("storm.every_seconds"));
        check("[duty]\non_seconds = nan", Some("duty.on_seconds"));
        check("window = 0", Some("window is 0"));
        check("[sessions]\nlasting_percent = 50\n[churn]\npercent = 10\nevery_seconds = 2", None);
        check("[churn]\npercent = 10", Some("churn.every_seconds is 0"));
        check("[commands]\nlatency_ms = 5\nrefuse_percent = 3\nfail_percent = 20\nsilent_percent = 80", None);
        check(
            "[commands]\nfail_percent = 50\nreject_percent = 50\nsilent_percent = 1",
            Some("silent_percent is 101"),
        );
        check("[commands]\nrefuse_reason = 16", Some("commands.refuse_reason is 16, allowed is 128 to 255"));
        check("[commands]\nanswer_ms = 60001", Some("commands.answer_ms is 60001"));
        check("[sessions]\nlasting_percent = 101", Some("sessions.lasting_percent is 101"));
    }

    #[test]
    fn the_default_profile_is_valid() {
        assert!(Profile::default().check().is_ok());
    }
}
