//! Control of the processes a test or a tool starts.
//!
//! A [`Process`] writes its stderr to a file and keeps the last lines of its stdout. It is killed
//! when it is dropped, so that a failing test leaves nothing behind. Signals go to the id of the
//! child and to nothing else.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

/// Most lines of stdout that are kept; older ones are forgotten.
pub const LINES_MAX: usize = 10_000;
/// How much of stderr an error quotes, in bytes.
const TAIL_BYTES: usize = 4096;
/// How often the exit of a child is looked for once its stdout is closed.
const EXIT_POLL: Duration = Duration::from_millis(2);

/// What can go wrong with a child.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program was not found in any of the places searched.
    #[error("{name} was not found in any of {searched:?}; build it or set PENSTOCK_BIN_DIR")]
    NotFound {
        /// Name of the program.
        name: String,
        /// Where it was looked for.
        searched: Vec<PathBuf>,
    },
    /// It could not be started, signalled or observed.
    #[error("{name}: {doing}: {source}")]
    Io {
        /// Name of the process.
        name: String,
        /// What was attempted.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// It ended before it said what was waited for.
    #[error("{name} ended ({status}) before it was ready; its last words:\n{stderr}")]
    Ended {
        /// Name of the process.
        name: String,
        /// How it ended.
        status: String,
        /// The end of its stderr.
        stderr: String,
    },
    /// It did not do what was waited for in time.
    #[error("{name}: {what} did not happen within {waited:?}; its last words:\n{stderr}")]
    Late {
        /// Name of the process.
        name: String,
        /// What was waited for.
        what: &'static str,
        /// For how long.
        waited: Duration,
        /// The end of its stderr.
        stderr: String,
    },
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stderr: PathBuf,
    output: Arc<Output>,
}

#[derive(Debug, Default)]
struct Output {
    state: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<String>,
    closed: bool,
}

// === impl ProcessError ===

impl ProcessError {
    /// Whether it ended before it was ready because it was killed (SIGKILL), by itself or by another.
    #[must_use]
    pub fn is_killed(&self) -> bool {
        matches!(self, Self::Ended { status, .. } if status.contains("SIGKILL"))
    }
}

// === impl Process ===

impl Process {
    /// Starts a program. Its stdout is captured, its stderr appended to the file `stderr`.
    ///
    /// # Errors
    /// When the file cannot be opened or the program not be started.
    pub fn spawn(name: &str, command: &mut Command, stderr: &Path) -> Result<Self, ProcessError> {
        let failed = |doing| move |source| ProcessError::Io { name: name.to_owned(), doing, source };
        let log = File::options().create(true).append(true).open(stderr).map_err(failed("open its log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().map_err(failed("start"))?;
        let output = Arc::new(Output::default());
        if let Some(stdout) = child.stdout.take() {
            let output = Arc::clone(&output);
            let reader = thread::Builder::new().name(format!("{name} stdout"));
            let started = reader.spawn(move || output.fill(BufReader::new(stdout)));
            if let Err(source) = started {
                drop((child.kill(), child.wait()));
                return Err(failed("start the reader of its output")(source));
            }
        }
        Ok(Self { name: name.to_owned(), child, stderr: stderr.to_owned(), output })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the line of JSON with which our programs say that they are ready (`"ready": true`).
    ///
    /// # Errors
    /// When the process ends first, the time is up, or the line has another shape than `T`.
    pub fn ready<T: DeserializeOwned>(&mut self, timeout: Duration) -> Result<T, ProcessError> {
        let line = self.line("the line that says ready", timeout, |line| {
            serde_json::from_str::<serde_json::Value>(line).is_ok_and(|value| value["ready"] == true)
        })?;
        serde_json::from_str(&line).map_err(|error| self.failed("read its ready line", error.into()))
    }

    /// Waits for a line of stdout, the ones already written included.
    ///
    /// # Errors
    /// When the process closes its stdout first, or the time is up; `what` names it in the error.
    pub fn line(
        &mut self,
        what: &'static str,
        timeout: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String, ProcessError> {
        let deadline = now() + timeout;
        let mut state = self.output.lock();
        loop {
            if let Some(line) = state.lines.iter().find(|line| wanted(line)) {
                return Ok(line.clone());
            }
            if state.closed {
                drop(state);
                return Err(self.ended());
            }
            let left = deadline.saturating_duration_since(now());
            if left.is_zero() {
                drop(state);
                return Err(self.late(what, timeout));
            }
            let waited = self.output.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The last lines of stdout, oldest first, at most [`LINES_MAX`].
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().lines.iter().cloned().collect()
    }

    /// The end of what it wrote to stderr, for error messages.
    #[must_use]
    pub fn stderr_tail(&self) -> String {
        let text = fs::read(&self.stderr).unwrap_or_default();
        let start = text.len().saturating_sub(TAIL_BYTES);
        String::from_utf8_lossy(text.get(start..).unwrap_or_default()).into_owned()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the system cannot tell.
    pub fn running(&mut self) -> Result<bool, ProcessError> {
        let status = self.child.try_wait();
        status.map(|status| status.is_none()).map_err(|source| self.failed("observe", source))
    }

    /// Asks it to stop (SIGTERM) and does not wait.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn terminate(&mut self) -> Result<(), ProcessError> {
        self.signal("TERM")
    }

    /// Sends a signal by name, for example `STOP`. Does nothing once the process has ended.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn signal(&mut self, signal: &str) -> Result<(), ProcessError> {
        // A child that was not waited for keeps its id, so the signal cannot reach a stranger.
        if !self.running()? {
            return Ok(());
        }
        let mut command = Command::new("kill");
        command.args(["-s", signal, &self.pid().to_string()]).stderr(Stdio::null());
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.failed("signal", io::Error::other(format!("kill: {status}")))),
            Err(source) => Err(self.failed("signal", source)),
        }
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<ExitStatus, ProcessError> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map_err(|source| self.failed("kill", source))
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When the time is up.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus, ProcessError> {
        let deadline = now() + timeout;
        self.output.wait_closed(deadline);
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if now() >= deadline => return Err(self.late("its end", timeout)),
                // The standard library has no wait with a deadline; stdout is closed, so this is short.
                Ok(None) => thread::park_timeout(EXIT_POLL),
                Err(source) => return Err(self.failed("wait for", source)),
            }
        }
    }

    /// Asks it to stop and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(&mut self, timeout: Duration) -> Result<ExitStatus, ProcessError> {
        self.terminate()?;
        self.wait(timeout)
    }

    /// Its CPU time (user and system) and memory.
    ///
    /// # Errors
    /// When it has ended.
    pub fn usage(&self) -> Result<Usage, ProcessError> {
        Usage::of(self.pid()).map_err(|source| self.failed("measure", source))
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> ProcessError {
        ProcessError::Io { name: self.name.clone(), doing, source }
    }

    fn late(&self, what: &'static str, waited: Duration) -> ProcessError {
        ProcessError::Late { name: self.name.clone(), what, waited, stderr: self.stderr_tail() }
    }

    fn ended(&mut self) -> ProcessError {
        let status = match self.wait(Duration::from_secs(1)) {
            Ok(status) => status.to_string(),
            Err(_) => "closed its output".to_owned(),
        };
        ProcessError::Ended { name: self.name.clone(), status, stderr: self.stderr_tail() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error here means that it has ended already.
        drop((self.child.kill(), self.child.wait()));
    }
}

// === impl Output ===

impl Output {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, stdout: impl BufRead) {
        for line in stdout.lines().map_while(Result::ok) {
            let mut state = self.lock();
            if state.lines.len() == LINES_MAX {
                state.lines.pop_front();
            }
            state.lines.push_back(line);
            self.changed.notify_all();
        }
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn wait_closed(&self, deadline: Instant) {
        let left = deadline.saturating_duration_since(now());
        let waited = self.changed.wait_timeout_while(self.lock(), left, |state| !state.closed);
        drop(waited);
    }
}

/// What a process has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time in user and kernel mode since its start; the kernel counts in ticks of 10 ms.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub rss_bytes: u64,
}

impl Usage {
    /// Reads the figures of any process from `/proc`.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let unreadable = || io::Error::new(io::ErrorKind::InvalidData, format!("unreadable /proc/{pid}"));
        let ticks = cpu_ticks(&stat).ok_or_else(unreadable)?;
        let rss_bytes = rss_bytes(&status).ok_or_else(unreadable)?;
        let nanos_per_tick = 1_000_000_000 / ticks_per_second();
        Ok(Self { cpu: Duration::from_nanos(ticks.saturating_mul(nanos_per_tick)), rss_bytes })
    }
}

/// utime and stime: the 14th and 15th field. The second one, the name, may hold spaces and brackets.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

fn rss_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn ticks_per_second() -> u64 {
    static TICKS: OnceLock<u64> = OnceLock::new();
    *TICKS.get_or_init(|| {
        let output = Command::new("getconf").arg("CLK_TCK").output().ok();
        let text = output.and_then(|output| String::from_utf8(output.stdout).ok());
        text.and_then(|text| text.trim().parse().ok()).filter(|&ticks| ticks > 0).unwrap_or(100)
    })
}

/// Finds one of our programs (`penstock`, `cloud-sim`, `firmware-sim`).
///
/// Looked for in `PENSTOCK_BIN_DIR` if it is set; else beside the running program and up to three
/// folders above it (a test binary lies in `deps`); then in `release` of the target directory, which
/// is `CARGO_TARGET_DIR` or `target` above the crate or the working directory.
///
/// # Errors
/// When it is in none of these places.
pub fn find(name: &str) -> Result<PathBuf, ProcessError> {
    let searched = match env::var_os("PENSTOCK_BIN_DIR") {
        Some(directory) => vec![PathBuf::from(directory)],
        None => places(),
    };
    let found = searched.iter().map(|place| place.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| ProcessError::NotFound { name: name.to_owned(), searched })
}

fn places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Ok(program) = env::current_exe() {
        places.extend(program.ancestors().skip(1).take(4).map(Path::to_owned));
    }
    if let Some(target) = env::var_os("CARGO_TARGET_DIR") {
        places.push(PathBuf::from(target).join("release"));
    }
    let start = env::var_os("CARGO_MANIFEST_DIR").or_else(|| env::current_dir().ok().map(OsString::from));
    if let Some(start) = start.map(PathBuf::from) {
        let roots = start.ancestors().take(4).filter(|folder| folder.join("Cargo.lock").is_file());
        places.extend(roots.map(|root| root.join("target").join("release")));
    }
    places
}

/// The clock of deadlines. Process control has no state machine to test, so it reads the clock itself.
#[expect(
    clippy::disallowed_methods,
    reason = "the rule is about the gateway; deadlines of tests need a clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> (tempfile::TempDir, Process) {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("stderr");
        let process = Process::spawn("shell", Command::new("sh").args(["-c", script]), &log).unwrap();
        (directory, process)
    }

    #[test]
    fn the_ready_line_is_found_among_others() {
        let (_directory, mut shell) = shell("echo hello; echo '{\"ready\":true,\"port\":7}'; exec sleep 60");
        let ready: serde_json::Value = shell.ready(LONG).unwrap();
        assert_eq!(ready["port"], 7);
        assert!(shell.running().unwrap());
        assert_eq!(shell.lines().first().map(String::as_str), Some("hello"));
    }

    #[test]
    fn a_child_that_dies_early_is_quoted() {
        let (_directory, mut shell) = shell("echo no such port >&2; exit 3");
        let error = shell.ready::<serde_json::Value>(LONG).unwrap_err().to_string();
        assert!(error.contains("no such port") && error.contains('3'), "{error}");
    }

    #[test]
    fn a_child_that_is_killed_early_is_told_apart() {
        for (script, killed) in [("kill -KILL $$", true), ("exit 9", false), ("kill -TERM $$", false)] {
            let (_directory, mut shell) = shell(script);
            let error = shell.ready::<serde_json::Value>(LONG).unwrap_err();
            assert_eq!(error.is_killed(), killed, "{script}: {error}");
        }
    }

    #[test]
    fn a_silent_child_is_late() {
        let (_directory, mut shell) = shell("exec sleep 60");
        let error = shell.ready::<serde_json::Value>(Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, ProcessError::Late { .. }), "{error}");
    }

    #[test]
    fn terminate_lets_the_child_end_by_itself() {
        let script = "trap 'echo bye; exit 7' TERM; echo '{\"ready\":true}'; while :; do sleep 0.01; done";
        let (_directory, mut shell) = shell(script);
        shell.ready::<serde_json::Value>(LONG).unwrap();
        assert_eq!(shell.stop(LONG).unwrap().code(), Some(7));
        assert_eq!(shell.lines().last().map(String::as_str), Some("bye"));
        shell.terminate().unwrap();
    }

    #[test]
    fn wait_has_a_deadline() {
        let (_directory, mut shell) = shell("exec sleep 60");
        let error = shell.wait(Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, ProcessError::Late { .. }), "{error}");
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let (_directory, shell) = shell("exec sleep 60");
        let pid = shell.pid();
        drop(shell);
        assert!(Usage::of(pid).is_err());
    }

    #[test]
    fn cpu_and_memory_are_read() {
        // It stops itself rather than become another program, whose memory starts from nothing.
        let script =
            "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo '{\"ready\":true}'; kill -STOP $$";
        let (_directory, mut shell) = shell(script);
        shell.ready::<serde_json::Value>(LONG).unwrap();
        let usage = shell.usage().unwrap();
        assert!(usage.cpu >= Duration::from_millis(10), "{usage:?}");
        assert!(usage.rss_bytes > 100_000, "{usage:?}");
    }

    #[test]
    fn the_name_in_stat_may_hold_anything() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 1";
        assert_eq!(cpu_ticks(stat), Some(300));
        assert_eq!(cpu_ticks("7 (a"), None);
        assert_eq!(rss_bytes("Name:\tx\nVmRSS:\t    12 kB\n"), Some(12_288));
        assert_eq!(rss_bytes("Name:\tx\n"), None);
    }

    #[test]
    fn a_missing_program_names_the_places_searched() {
        let error = find("no-such-program-of-ours").unwrap_err().to_string();
        assert!(error.contains("release"), "{error}");
    }
}
