//! Python with the clients of Kafka, MQTT, Service Bus and Event Grid that tests use, and the CloudEvents SDK: a virtual
//! environment, made once and kept outside the checkout.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::packages;
use crate::say;

/// The variable that names the interpreter to the tests.
pub(crate) const VARIABLE: &str = "PENSTOCK_TEST_PYTHON";
/// What to install, below the workspace.
const REQUIREMENTS: &str = "deploy/consumers/requirements-test.txt";

/// The interpreter of the environment; makes it if it is not there. Without Python, pip or a way to the
/// packages says so in one line, and the tests that want it say that they were skipped.
pub(crate) fn interpreter(root: &Path) -> Option<PathBuf> {
    match make(root) {
        Ok(interpreter) => Some(interpreter),
        Err(error) => {
            say::line(&format!(
                "no Python with clients of Kafka, MQTT, Service Bus and Event Grid, so nothing is checked with them: {error:#}"
            ));
            None
        }
    }
}

fn make(root: &Path) -> Result<PathBuf> {
    let requirements = root.join(REQUIREMENTS);
    let wanted = fs::read_to_string(&requirements).with_context(|| requirements.display().to_string())?;
    let cache = cache().context("neither XDG_CACHE_HOME nor HOME is set")?.join("penstock/python");
    let home = cache.join(folder_name(&wanted));
    let interpreter = home.join("bin/python");
    if works(&interpreter) {
        return Ok(interpreter);
    }
    say::step("making a virtual environment for Python");
    let python = packages::program("python3").context("python3 is not installed")?;
    // Made beside its place and moved there whole, so that a half-made one is never used.
    let draft = cache.join(format!("draft-{}", std::process::id()));
    let made = fill(&python, &draft, &requirements).and_then(|()| {
        drop(fs::remove_dir_all(&home));
        fs::rename(&draft, &home).with_context(|| home.display().to_string())
    });
    drop(fs::remove_dir_all(&draft));
    // Somebody else may have been faster.
    if works(&interpreter) {
        return Ok(interpreter);
    }
    made?;
    bail!("{} cannot import the clients", interpreter.display());
}

fn fill(python: &Path, draft: &Path, requirements: &Path) -> Result<()> {
    fs::create_dir_all(draft).with_context(|| draft.display().to_string())?;
    run(Command::new(python).args(["-m", "venv"]).arg(draft))?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    run(Command::new(draft.join("bin/python")).args(install).arg(requirements))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().context("python3 cannot be started")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("{}", said.lines().last().unwrap_or("python3 failed and said nothing"));
}

fn works(interpreter: &Path) -> bool {
    const IMPORTS: &str = "import aiohttp, aiokafka, azure.eventgrid, azure.servicebus.aio, cloudevents.core.v1.event, \
                           confluent_kafka, paho.mqtt.client";
    let imports = ["-c", IMPORTS];
    let mut command = Command::new(interpreter);
    let status =
        command.args(imports).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Where this user's programs keep what can be made again.
pub(crate) fn cache() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))
}

/// A name that changes with what is wanted.
fn folder_name(requirements: &str) -> String {
    let lines = requirements.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let names: Vec<String> = lines.map(|line| line.replace("==", "-")).collect();
    names.join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_another_folder() {
        assert_eq!(folder_name("# why\na==1.2\nb==3\n"), "a-1.2_b-3");
        assert_ne!(folder_name("a==1.2\n"), folder_name("a==1.3\n"));
    }

    #[test]
    fn a_failure_says_why() {
        let error = run(Command::new("sh").args(["-c", "echo first >&2; echo the reason >&2; exit 1"]));
        assert_eq!(error.unwrap_err().to_string(), "the reason");
        assert!(!works(Path::new("/nonexistent/python")));
    }
}
