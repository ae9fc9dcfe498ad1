//! Runs cargo and watches what it says: which C++ crates were compiled, and how many tests passed.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::dependencies::Metadata;
use crate::say;
use crate::signals;

/// The one profile and package selection. Any other would compile the C++ crates again.
pub(crate) const SELECTION: [&str; 3] = ["--release", "--workspace", "--all-targets"];

/// The crates that compile C++ for minutes.
const NATIVE: [&str; 2] = ["librocksdb-sys", "rdkafka-sys"];

/// Lines of a child that may wait to be printed.
const LINES_MAX: usize = 1024;

/// Cargo, in this workspace.
#[derive(Debug)]
pub(crate) struct Cargo {
    root: PathBuf,
    program: PathBuf,
    native: BTreeMap<&'static str, u32>,
    tests: Tests,
}

/// What the test binaries reported, added up.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tests {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
    pub(crate) binaries: u64,
}

enum Line {
    Out(String),
    Error(String),
}

impl Cargo {
    /// Finds the workspace this tool was built from.
    pub(crate) fn new() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = manifest.parent().context("xtask is a folder of the workspace")?.to_path_buf();
        let program = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
        Ok(Self { root, program, native: BTreeMap::new(), tests: Tests::default() })
    }

    /// The folder of the workspace.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Builds everything, tests and benchmarks included.
    pub(crate) fn build(&mut self) -> Result<()> {
        say::step("building (the first time takes minutes: RocksDB and librdkafka are C++)");
        self.run(&[&["build", "--locked"], SELECTION.as_slice()].concat(), &[])
    }

    /// Where finished programs go.
    pub(crate) fn target(&self) -> PathBuf {
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.root.join("target"), PathBuf::from)
    }

    /// The path of a program that [`Self::build`] made.
    pub(crate) fn binary(&self, name: &str) -> Result<PathBuf> {
        let file = self.target().join("release").join(name);
        if !file.is_file() {
            bail!("{} is not there after the build", file.display());
        }
        Ok(file)
    }

    /// Runs cargo, passing its output on as it comes.
    ///
    /// # Errors
    /// Cargo fails or the tool is interrupted.
    pub(crate) fn run(&mut self, arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
        let mut command = self.command(arguments);
        command.envs(variables.iter().copied());
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = Guard(child.context("cargo cannot be started")?);
        let (lines, received) = sync_channel(LINES_MAX);
        let out = child.0.stdout.take().context("stdout is piped")?;
        let error = child.0.stderr.take().context("stderr is piped")?;
        let readers = [forward(out, lines.clone(), Line::Out), forward(error, lines, Line::Error)];
        while let Some(line) = signals::receive(&received, Duration::from_hours(24))? {
            self.note(&line);
            match line {
                Line::Out(text) => say::line(&text),
                Line::Error(text) => say::error_line(&text),
            }
        }
        for reader in readers {
            drop(reader.join());
        }
        let status = child.0.wait().context("cargo cannot be waited for")?;
        signals::check()?;
        if !status.success() {
            bail!("`cargo {}` failed: {status}", arguments.join(" "));
        }
        Ok(())
    }

    /// The dependency graph, without touching the network.
    pub(crate) fn metadata(&self) -> Result<Metadata> {
        let output = self.command(&["metadata", "--format-version", "1", "--locked"]).output();
        let output = output.context("cargo cannot be started")?;
        if !output.status.success() {
            bail!("`cargo metadata` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        serde_json::from_slice(&output.stdout).context("the output of `cargo metadata` is not understood")
    }

    /// How many tests ran so far.
    pub(crate) fn tests(&self) -> Tests {
        self.tests
    }

    /// Fails when a C++ crate was compiled more than once by this tool: some step then used other features,
    /// flags or another profile than the rest.
    pub(crate) fn native_compiled_once(&self) -> Result<()> {
        for (name, count) in &self.native {
            say::line(&format!("{name} was compiled {count} times in this run"));
        }
        match self.native.iter().find(|(_, count)| **count > 1) {
            Some((name, count)) => bail!("{name} was compiled {count} times; find the step that differs"),
            None => Ok(()),
        }
    }

    /// Cargo with what `cargo run` told this tool about itself taken back, so that nested runs see the
    /// environment the user gave.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(&self.root);
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "CARGO" {
                command.env_remove(&name);
            }
        }
        command
    }

    fn note(&mut self, line: &Line) {
        match line {
            Line::Out(text) => self.tests.add(text),
            Line::Error(text) => {
                if let Some(name) = native(text) {
                    *self.native.entry(name).or_default() += 1;
                }
            }
        }
    }
}

impl Tests {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 0 ignored; ...`; other lines count nothing.
    fn add(&mut self, line: &str) {
        let Some(result) = line.trim().strip_prefix("test result: ") else { return };
        self.binaries += 1;
        for part in result.split([';', '.']) {
            let Some((count, word)) = part.trim().split_once(' ') else { continue };
            let Ok(count) = count.parse::<u64>() else { continue };
            match word {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

/// The C++ crate that a line of cargo says it compiles.
fn native(line: &str) -> Option<&'static str> {
    let rest = line.trim_start().strip_prefix("Compiling ")?;
    let (name, _) = rest.split_once(' ')?;
    NATIVE.into_iter().find(|known| *known == name)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a tool reads two pipes at once; the threads end with the pipes"
)]
fn forward(
    pipe: impl Read + Send + 'static,
    lines: SyncSender<Line>,
    wrap: fn(String) -> Line,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line).into_owned();
            if lines.send(wrap(text)).is_err() {
                return;
            }
        }
    })
}

/// Ends the child when the tool stops waiting for it.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            drop(self.0.kill());
            drop(self.0.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_compilations_are_recognised() {
        assert_eq!(native("   Compiling librocksdb-sys v0.18.0+11.1.2"), Some("librocksdb-sys"));
        assert_eq!(native("   Compiling rdkafka-sys v4.10.0+2.12.1"), Some("rdkafka-sys"));
        assert_eq!(native("    Checking librocksdb-sys v0.18.0+11.1.2"), None);
        assert_eq!(native("   Compiling rdkafka v0.39.0"), None);
    }

    #[test]
    fn results_of_tests_add_up() {
        let mut tests = Tests::default();
        tests.add(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
        );
        tests.add(
            "test result: FAILED. 5 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
        );
        tests.add("test mqtt::tests::puback_waits_for_commit ... ok");
        assert_eq!(tests, Tests { passed: 8, failed: 2, ignored: 1, binaries: 2 });
    }
}
