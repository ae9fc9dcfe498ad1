//! Which faults a fleet had in its readings: written by the fleet as it sends them, read by the judge.
//!
//! A file of JSON lines. Each line is whole in itself and replaces the earlier ones about the same run or the same
//! fault of the same device, so that the file says what was sent by the time its writer died. See
//! `docs/firmware-sim.md`.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What is wrong with what a device says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The same value again and again.
    Stuck,
    /// An error that grows evenly.
    Drift,
    /// An error for a moment.
    Spike,
    /// The same error for a while.
    Shift,
    /// More noise than usual.
    Noise,
    /// Nothing is said.
    Dropout,
    /// Values are multiplied.
    Gain,
    /// The device's clock is wrong.
    ClockJump,
}

/// A line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "lowercase")]
pub enum Line {
    /// The run as a whole.
    Run(Run),
    /// One fault of one device.
    Fault(Injected),
}

/// The run as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The seed of the fleet.
    pub seed: u64,
    /// How many devices it has.
    pub devices: u64,
    /// When it began, in Unix milliseconds.
    pub start_ms: u64,
    /// When it stopped to take readings, in Unix milliseconds; unknown until then.
    pub end_ms: Option<u64>,
}

/// One fault of one device, as it was really sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Injected {
    /// Which fault of the profile, from 1.
    pub fault: u32,
    /// The device.
    pub device: String,
    /// The metric; `None` for what concerns the device as a whole.
    pub metric: Option<String>,
    /// What was wrong.
    pub kind: Kind,
    /// How much: in the unit of the metric for drift (at its end), spike and shift; the factor for noise and gain;
    /// seconds for a clock.
    pub magnitude: Option<f64>,
    /// The same in deviations of the metric's noise, for drift, spike and shift.
    pub deviations: Option<f64>,
    /// The first reading concerned; for a dropout the last one before the silence.
    pub first: u64,
    /// The last reading concerned; for a dropout the first one after the silence.
    pub last: u64,
    /// When the first one was taken, in Unix milliseconds and by a clock that is right.
    pub taken_ms: u64,
    /// When it was sent; later than it was taken if the device had to wait.
    pub begin_ms: u64,
    /// When the last one was sent; unknown until then, and for ever if the run ended before.
    pub end_ms: Option<u64>,
    /// The average time between two readings of the device.
    pub period_ms: u64,
    /// Whether the gateway promises anything for them: not at QoS 0.
    pub promised: bool,
    /// How many of these readings were sent so far.
    pub sent: u64,
    /// How many of them were acknowledged; known when the device is done.
    pub acked: Option<u64>,
}

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Truth {
    /// The run; `None` when the file has nothing about it.
    pub run: Option<Run>,
    /// The faults, in the order in which they began.
    pub faults: Vec<Injected>,
}

/// Why a file tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum TruthError {
    /// It cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is none.
    #[error("{}:{number}: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        number: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl Kind {
    /// The word for it, as profiles and truth files spell it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stuck => "stuck",
            Self::Drift => "drift",
            Self::Spike => "spike",
            Self::Shift => "shift",
            Self::Noise => "noise",
            Self::Dropout => "dropout",
            Self::Gain => "gain",
            Self::ClockJump => "clock-jump",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Injected {
    /// Whether all of it was sent and acknowledged: only then can the gateway be blamed for not noticing.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        let readings = self.last.saturating_sub(self.first).saturating_add(1);
        self.promised && self.end_ms.is_some() && self.sent == readings && self.acked == Some(readings)
    }
}

impl Truth {
    /// Reads a file. A last line without its end was being written when its writer died, and is passed over.
    ///
    /// # Errors
    /// When it cannot be read, or a line is malformed.
    pub fn read(path: &Path) -> Result<Self, TruthError> {
        let text = fs::read(path);
        let text = text.map_err(|source| TruthError::Unreadable { path: path.to_owned(), source })?;
        let mut truth = Self::default();
        let mut places = HashMap::new();
        for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            if line.last() != Some(&b'\n') {
                break;
            }
            let malformed =
                |source| TruthError::Malformed { path: path.to_owned(), number: index + 1, source };
            match serde_json::from_slice(line).map_err(malformed)? {
                Line::Run(run) => truth.run = Some(run),
                Line::Fault(injected) => {
                    let key = (injected.device.clone(), injected.fault);
                    let place = *places.entry(key).or_insert(truth.faults.len());
                    match truth.faults.get_mut(place) {
                        Some(known) => *known = injected,
                        None => truth.faults.push(injected),
                    }
                }
            }
        }
        Ok(truth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn injected(device: &str, fault: u32) -> Injected {
        Injected {
            fault,
            device: device.to_owned(),
            metric: Some("temperature".to_owned()),
            kind: Kind::ClockJump,
            magnitude: Some(1.5),
            deviations: None,
            first: 3,
            last: 5,
            taken_ms: 1000,
            begin_ms: 1000,
            end_ms: None,
            period_ms: 100,
            promised: true,
            sent: 1,
            acked: None,
        }
    }

    fn check(lines: &[Line], rest: &str, expected: &Truth) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.jsonl");
        let lines = lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n");
        fs::write(&path, lines.collect::<String>() + rest).unwrap();
        assert_eq!(&Truth::read(&path).unwrap(), expected);
    }

    #[test]
    fn kinds_are_spelt_in_one_way() {
        use Kind::{ClockJump, Drift, Dropout, Gain, Noise, Shift, Spike, Stuck};
        for kind in [Stuck, Drift, Spike, Shift, Noise, Dropout, Gain, ClockJump] {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
        }
    }

    #[test]
    fn later_lines_replace_earlier_ones_about_the_same() {
        let run = Run { seed: 7, devices: 2, start_ms: 5, end_ms: None };
        let ended = Run { end_ms: Some(9), ..run };
        let [a, b, c] = [injected("a", 1), injected("b", 1), injected("a", 2)];
        let done = Injected { end_ms: Some(2000), sent: 3, ..a.clone() };
        let lines = [
            Line::Run(run),
            Line::Fault(a),
            Line::Fault(b.clone()),
            Line::Fault(c.clone()),
            Line::Fault(done.clone()),
            Line::Run(ended),
        ];
        check(&lines, "", &Truth { run: Some(ended), faults: vec![done, b, c] });
    }

    #[test]
    fn a_line_that_was_being_written_is_passed_over() {
        let line = injected("a", 1);
        check(
            &[Line::Fault(line.clone())],
            r#"{"line":"fault","device"#,
            &Truth { run: None, faults: vec![line] },
        );
        check(&[], "", &Truth::default());
    }

    #[test]
    fn a_line_that_says_nothing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.jsonl");
        fs::write(&path, "{\"line\":\"run\",\"seed\":1,\"devices\":1,\"start_ms\":1,\"end_ms\":2}\n{}\n")
            .unwrap();
        let error = Truth::read(&path).unwrap_err().to_string();
        assert!(error.contains("truth.jsonl:2: "), "{error}");
        assert!(matches!(
            Truth::read(&folder.path().join("none")).unwrap_err(),
            TruthError::Unreadable { .. }
        ));
    }

    #[test]
    fn only_what_was_sent_to_its_end_and_acknowledged_is_proven() {
        let whole = Injected { end_ms: Some(2000), sent: 3, acked: Some(3), ..injected("a", 1) };
        assert!(whole.is_proven());
        assert!(!Injected { acked: Some(2), ..whole.clone() }.is_proven());
        assert!(!Injected { acked: None, ..whole.clone() }.is_proven());
        assert!(!Injected { end_ms: None, ..whole.clone() }.is_proven());
        assert!(!Injected { sent: 2, acked: Some(2), ..whole.clone() }.is_proven());
        assert!(!Injected { promised: false, ..whole }.is_proven());
    }
}
