//! The suites: where they are, which tests they have, and one test at work.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use testkit::process::Process;

use crate::packages;
use crate::signals;

/// The suites, MQTT 3.1.1 first.
const SUITES: [&str; 2] = ["client_test", "client_test5"];
/// Runs one test of a suite. Kept in a file of its own so that it can be read.
const RUNNER: &str = include_str!("one_test.py");
/// How often a running test is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Longest time to list the tests of a suite.
const LIST_WITHIN: Duration = Duration::from_secs(20);

/// A copy of the suites, and how to run them.
#[derive(Debug)]
pub(super) struct Suites {
    folder: PathBuf,
    python: PathBuf,
    /// Holds the runner and what the tests write beside their output.
    scratch: tempfile::TempDir,
}

/// One test of a suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) suite: &'static str,
    name: String,
}

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    Fail,
    /// The time was up.
    Hang,
}

/// Where a broker listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    host: String,
    port: u16,
}

// === impl Suites ===

impl Suites {
    /// Finds the suites in a copy of the repository.
    pub(super) fn find(copy: &Path) -> Result<Self> {
        let folder = copy.join("interoperability");
        for suite in SUITES {
            let file = folder.join(suite).with_extension("py");
            if !file.is_file() {
                bail!(
                    "{} is not there: {} is no copy of Eclipse paho.mqtt.testing",
                    file.display(),
                    copy.display()
                );
            }
        }
        let python = packages::program("python3").context("python3 is not installed")?;
        let scratch =
            tempfile::Builder::new().prefix("penstock-paho-").tempdir().context("no temporary folder")?;
        std::fs::write(scratch.path().join("one_test.py"), RUNNER).context("the runner cannot be written")?;
        // The tests are started elsewhere.
        let folder = folder.canonicalize().with_context(|| folder.display().to_string())?;
        Ok(Self { folder, python, scratch })
    }

    /// Every test, in the order in which they run.
    pub(super) fn tests(&self) -> Result<Vec<Test>> {
        let mut tests = Vec::new();
        for suite in SUITES {
            let mut listing = self.start(suite, &["list"])?;
            let status = listing.wait(LIST_WITHIN)?;
            let names = listing.lines();
            if !status.success() || names.is_empty() {
                bail!("the tests of {suite} cannot be listed: {}", listing.stderr_tail());
            }
            tests.extend(names.into_iter().map(|name| Test { suite, name }));
        }
        Ok(tests)
    }

    /// Runs one test; returns how it ended and what it said. One that runs longer than `limit` is killed.
    pub(super) fn run(
        &self,
        test: &Test,
        address: &Address,
        limit: Duration,
    ) -> Result<(Verdict, Vec<String>)> {
        let port = address.port.to_string();
        let mut process = self.start(test.suite, &[&test.name, &address.host, &port])?;
        let start = signals::now();
        while process.running()? {
            signals::check()?;
            if start.elapsed() > limit {
                process.kill()?;
                return Ok((Verdict::Hang, process.lines()));
            }
            thread::park_timeout(LOOK);
        }
        let status = process.wait(limit)?;
        let verdict = if status.success() { Verdict::Pass } else { Verdict::Fail };
        Ok((verdict, process.lines()))
    }

    fn start(&self, suite: &str, arguments: &[&str]) -> Result<Process> {
        let scratch = self.scratch.path();
        let mut command = Command::new(&self.python);
        // Nothing is written into the copy of the suites.
        command.arg("-B").arg("-u").arg(scratch.join("one_test.py"));
        command.arg(self.folder.join(suite).with_extension("py")).args(arguments).current_dir(scratch);
        Ok(Process::spawn(suite, &mut command, &scratch.join("errors"))?)
    }
}

// === impl Test ===

impl Test {
    /// Whether this is the test's name, with or without its suite's.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name == name || self.to_string() == name
    }
}

impl fmt::Display for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.suite, self.name)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Fail => "FAIL",
            Self::Hang => "HANG",
        })
    }
}

// === impl Address ===

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        if host.is_empty() { Err(wrong()) } else { Ok(Self { host: host.to_owned(), port }) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Suites like those of paho in their shape: a main program that reads host and port and gives its test the rest.
    const SUITE: &str = r#"
import getopt, os, sys, unittest

class Test(unittest.TestCase):
    def test_good(self):
        self.assertEqual((host, port), ("127.0.0.1", 1883))
    def test_bad(self):
        print("why it is bad")
        self.fail("bad")
    def test_skipped(self):
        self.skipTest("not here")
    def test_hanging(self):
        import threading
        threading.Event().wait()

if __name__ == "__main__":
    options, rest = getopt.gnu_getopt(sys.argv[1:], "h:p:", ["help", "hostname=", "port="])
    for option, value in options:
        if option in ("--help") or value == "ends.example":
            sys.exit()
        elif option in ("-h", "--hostname"):
            host = value
        else:
            port = int(value)
            sys.argv.remove("-p") if "-p" in sys.argv else sys.argv.remove("--port")
            sys.argv.remove(value)
    unittest.main()
"#;

    fn suites(folder: &Path) -> Suites {
        fs::create_dir(folder.join("interoperability")).unwrap();
        for suite in SUITES {
            fs::write(folder.join("interoperability").join(suite).with_extension("py"), SUITE).unwrap();
        }
        Suites::find(folder).unwrap()
    }

    fn check(name: &str, address: &str, limit: Duration, expected: Verdict) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let suites = suites(folder.path());
        let test = suites.tests().unwrap().into_iter().find(|test| test.is(name)).unwrap();
        let (verdict, said) = suites.run(&test, &address.parse().unwrap(), limit).unwrap();
        assert_eq!(verdict, expected, "{name}: {said:?}");
        said
    }

    const LONG: Duration = Duration::from_secs(30);
    const BROKER: &str = "127.0.0.1:1883";

    #[test]
    fn a_test_passes_only_if_it_ran_and_succeeded() {
        check("test_good", BROKER, LONG, Verdict::Pass);
        let said = check("client_test5.test_bad", BROKER, LONG, Verdict::Fail);
        assert!(said.iter().any(|line| line.contains("why it is bad")), "{said:?}");
        assert!(said.iter().any(|line| line.contains("AssertionError: bad")), "{said:?}");
        check("test_skipped", BROKER, LONG, Verdict::Fail);
    }

    #[test]
    fn a_suite_that_ends_without_a_test_has_failed() {
        let said = check("test_good", "ends.example:1883", LONG, Verdict::Fail);
        assert_eq!(said, ["the suite ended without a test"]);
    }

    #[test]
    fn a_test_that_hangs_is_killed() {
        check("test_hanging", BROKER, Duration::from_secs(1), Verdict::Hang);
    }

    #[test]
    fn both_suites_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> = suites(folder.path()).tests().unwrap().iter().map(Test::to_string).collect();
        assert_eq!(names.len(), 8);
        assert_eq!(names[0], "client_test.test_bad");
        assert_eq!(names[7], "client_test5.test_skipped");
    }

    #[test]
    fn another_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = Suites::find(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no copy of Eclipse paho.mqtt.testing"), "{error}");
    }

    #[test]
    fn an_address_has_a_host_and_a_port() {
        let address: Address = "localhost:1883".parse().unwrap();
        assert_eq!((address.host.as_str(), address.port), ("localhost", 1883));
        for text in ["localhost", ":1883", "localhost:x", "localhost:70000"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
