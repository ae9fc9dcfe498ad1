//! A program that is spoken to in lines.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

/// Most lines that wait to be read.
const LINES_MAX: usize = 10_000;
/// How many lines are shown when a test fails.
const LINES_SHOWN: usize = 30;
/// Longest wait for a line.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A child with its standard input, and the lines it writes. It is killed when this is dropped.
pub(crate) struct Talker {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Everything it said, for whoever wants to know why a test failed.
    said: Vec<String>,
}

impl Talker {
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it is installed (`cargo xtask test` installs it)");
        let (sender, lines) = sync_channel(LINES_MAX);
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let reader = thread::Builder::new().name(format!("{name} stdout"));
        let started = reader.spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        started.expect("a thread can be started");
        Self { name: name.to_owned(), stdin: child.stdin.take(), child, lines, said: Vec::new() }
    }

    /// Writes a line to its standard input.
    pub(super) fn tell(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("open");
        let told = writeln!(stdin, "{line}").and_then(|()| stdin.flush());
        assert!(told.is_ok(), "{} does not listen: {told:?}; it said {:#?}", self.name, self.said());
    }

    /// The next line, or none once it has ended. Fails when none comes; `what` says what was waited for.
    pub(crate) fn line(&mut self, what: &str) -> Option<String> {
        let line = self.lines.recv_timeout(PATIENCE);
        let late = line == Err(RecvTimeoutError::Timeout);
        assert!(!late, "{} waited in vain for {what}; it said {:#?}", self.name, self.said());
        self.said.extend(line.iter().cloned());
        line.ok()
    }

    /// The last lines that it said.
    pub(super) fn said(&self) -> &[String] {
        self.said.get(self.said.len().saturating_sub(LINES_SHOWN)..).unwrap_or_default()
    }

    /// Ends it without a word, as if its machine died: the system closes its connection.
    pub(crate) fn kill(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("it can be killed");
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        drop((self.child.kill(), self.child.wait()));
    }
}
