//! Judges CloudEvents by libraries that were not written here, and by the project's own rules.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::Deserialize;

use super::Entry;
use crate::azure_clients::{NODE, PYTHON, node, node_has, python, python_has};
use crate::missing;

/// Most bytes of an event, as it is written: 60 KiB, so that with whatever intermediaries add it stays below the 64 KiB that
/// they must forward.
pub const EVENT_BYTES_MAX: usize = 61_440;

/// What the judges say of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Lines of the file.
    pub events: u64,
    /// One for each judge, by name.
    pub opinions: Vec<Opinion>,
}

/// What one of them says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opinion {
    /// `rules` (the project's own), `json schema` (of the specification), or a language and a library.
    pub judge: String,
    /// Events that it refuses.
    pub refused: u64,
    /// Line, from 1, and reason; of the first hundred.
    pub complaints: Vec<(u64, String)>,
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// Programs or libraries are missing, or the file is.
    #[error("the judges for {language} do not run: {source}")]
    Run {
        /// Python or JavaScript.
        language: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A program ended without saying what it found.
    #[error("the judges for {language} ended with {said}")]
    Ended {
        /// Python or JavaScript.
        language: &'static str,
        /// How it ended, and its last words.
        said: String,
    },
    /// The programs counted different numbers of events.
    #[error("the judges disagree on the number of events: {0} and {1}")]
    Count(u64, u64),
    /// The entries cannot be written down.
    #[error("the events cannot be written to a file: {0}")]
    Write(io::Error),
}

/// What a program says.
#[derive(Debug, Deserialize)]
struct Report {
    events: u64,
    judges: BTreeMap<String, Said>,
}

#[derive(Debug, Deserialize)]
struct Said {
    refused: u64,
    complaints: Vec<(u64, String)>,
}

/// Whether the judges are installed. If they are not, it is said: a test is skipped then.
///
/// # Panics
/// Under continuous integration, when they are not.
#[must_use]
pub fn judges_are_installed() -> bool {
    let here = python_has("azure.core.messaging, cloudevents.core.v1.event")
        && node_has("@azure/eventgrid")
        && node_has("cloudevents");
    if !here {
        missing::skip(&format!(
            "there are no judges of CloudEvents; set {PYTHON} and {NODE}, or run `cargo xtask test`, which installs both"
        ));
    }
    here
}

/// Judges a file that has one event in JSON on each line, with all judges. 100,000 events take about ten seconds.
///
/// # Errors
/// When a judge cannot do its work; [`judges_are_installed`] tells whether it could.
pub fn judge(file: &Path) -> Result<Verdict, JudgeError> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cloud/event_grid");
    let mut in_python = Command::new(python());
    in_python.arg("-B").arg(here.join("judge.py")).arg(file).arg(EVENT_BYTES_MAX.to_string());
    let mut in_javascript = Command::new("node");
    in_javascript.arg(here.join("judge.mjs")).arg(node().unwrap_or_default()).arg(file);
    // Beside each other.
    let first = started("Python", in_python)?;
    let second = started("JavaScript", in_javascript)?;
    let (first, second) = (report("Python", first), report("JavaScript", second));
    let (first, second) = (first?, second?);
    if first.events != second.events {
        return Err(JudgeError::Count(first.events, second.events));
    }
    let opinions = first.judges.into_iter().chain(second.judges).map(|(judge, said)| Opinion {
        judge,
        refused: said.refused,
        complaints: said.complaints,
    });
    let mut opinions: Vec<Opinion> = opinions.collect();
    opinions.sort_by(|one, other| one.judge.cmp(&other.judge));
    Ok(Verdict { events: first.events, opinions })
}

/// Judges events that cloud-sim has accepted. What was there twice in a JSON object is there once by then.
///
/// # Errors
/// As [`judge`].
pub fn judge_entries(entries: &[Entry]) -> Result<Verdict, JudgeError> {
    let mut file = tempfile::NamedTempFile::new().map_err(JudgeError::Write)?;
    let mut lines = io::BufWriter::new(file.as_file_mut());
    for entry in entries {
        writeln!(lines, "{}", entry.event).map_err(JudgeError::Write)?;
    }
    lines.flush().map_err(JudgeError::Write)?;
    drop(lines);
    judge(file.path())
}

fn started(language: &'static str, mut command: Command) -> Result<Child, JudgeError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(|source| JudgeError::Run { language, source })
}

fn report(language: &'static str, child: Child) -> Result<Report, JudgeError> {
    let output = child.wait_with_output().map_err(|source| JudgeError::Run { language, source })?;
    let report = serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success());
    report.ok_or_else(|| {
        let words = String::from_utf8_lossy(&output.stderr);
        JudgeError::Ended { language, said: format!("{}: {}", output.status, words.trim()) }
    })
}

impl Verdict {
    /// Whether there are events and nobody refuses any.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.events > 0 && self.opinions.iter().all(|opinion| opinion.refused == 0)
    }

    /// The judges that refuse the event of that line, from 1.
    #[must_use]
    pub fn refusing(&self, line: u64) -> Vec<&str> {
        let complains = |opinion: &&Opinion| opinion.complaints.iter().any(|(number, _)| *number == line);
        self.opinions.iter().filter(complains).map(|opinion| opinion.judge.as_str()).collect()
    }
}

/// The number of events, and the first complaints of each judge.
impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} events", self.events)?;
        for Opinion { judge, refused, complaints } in &self.opinions {
            write!(formatter, "\n{judge}: refuses {refused}")?;
            for (line, reason) in complaints.iter().take(5) {
                write!(formatter, "\n  line {line}: {reason}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
