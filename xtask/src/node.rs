//! MQTT.js, Microsoft's clients of Service Bus and Event Grid, and the CloudEvents SDK, for tests: installed once, for
//! Node.js, and kept outside the checkout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::packages;
use crate::python;
use crate::say;

/// The variable that names the folder with the clients to the tests.
pub(crate) const VARIABLE: &str = "PENSTOCK_TEST_NODE";
/// What to install, below the workspace: the versions, and the checksums of everything they draw in.
const WANTED: &str = "gateway/tests/it/clients";
const FILES: [&str; 2] = ["package.json", "package-lock.json"];
/// Ends with an error unless all libraries are there.
const LOADS: &str = "require('mqtt').connect.call; require('@azure/service-bus').ServiceBusClient.name; \
                     require('@azure/eventgrid').EventGridPublisherClient.name; require('cloudevents').CloudEvent.name";

/// The folder that has the clients in its `node_modules`; installs them if they are not there. Without Node.js, npm or a way to
/// the packages says so in one line, and the tests that want it say that they were skipped.
pub(crate) fn folder(root: &Path) -> Option<PathBuf> {
    match make(&root.join(WANTED)) {
        Ok(folder) => Some(folder),
        Err(error) => {
            say::line(&format!("no clients for Node.js, so nothing is checked with them: {error:#}"));
            None
        }
    }
}

fn make(wanted: &Path) -> Result<PathBuf> {
    let cache = python::cache().context("neither XDG_CACHE_HOME nor HOME is set")?.join("penstock/node");
    let node = packages::program("node").context("node is not installed")?;
    let home = cache.join("clients");
    if works(&node, &home) && is_as_wanted(wanted, &home)? {
        return Ok(home);
    }
    say::step("installing clients for Node.js");
    let npm = packages::program("npm").context("npm is not installed")?;
    // Made beside its place and moved there whole, so that a half-made one is never used.
    let draft = cache.join(format!("draft-{}", std::process::id()));
    let made = fill(&npm, wanted, &draft).and_then(|()| {
        drop(fs::remove_dir_all(&home));
        fs::rename(&draft, &home).with_context(|| home.display().to_string())
    });
    drop(fs::remove_dir_all(&draft));
    made?;
    if works(&node, &home) {
        return Ok(home);
    }
    bail!("{} cannot load the clients from {}", node.display(), home.display());
}

fn fill(npm: &Path, wanted: &Path, draft: &Path) -> Result<()> {
    fs::create_dir_all(draft).with_context(|| draft.display().to_string())?;
    for file in FILES {
        fs::copy(wanted.join(file), draft.join(file)).with_context(|| file.to_owned())?;
    }
    let mut command = Command::new(npm);
    command
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
        .current_dir(draft);
    let output = command.stdin(Stdio::null()).output().context("npm cannot be started")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    bail!("{}", said.lines().next().unwrap_or("npm failed and said nothing"));
}

/// Whether what is installed is what the workspace asks for today.
fn is_as_wanted(wanted: &Path, home: &Path) -> Result<bool> {
    for file in FILES {
        let path = wanted.join(file);
        let today = fs::read(&path).with_context(|| path.display().to_string())?;
        if fs::read(home.join(file)).ok().as_ref() != Some(&today) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn works(node: &Path, home: &Path) -> bool {
    let mut command = Command::new(node);
    command.args(["-e", LOADS]).current_dir(home);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_installed_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (wanted, home) = (folder.path().join("wanted"), folder.path().join("home"));
        for place in [&wanted, &home] {
            fs::create_dir(place).unwrap();
            FILES.iter().for_each(|file| fs::write(place.join(file), "one").unwrap());
        }
        assert!(is_as_wanted(&wanted, &home).unwrap());
        fs::write(wanted.join(FILES[1]), "two").unwrap();
        assert!(!is_as_wanted(&wanted, &home).unwrap());
        assert!(is_as_wanted(&home, &folder.path().join("nowhere")).is_ok_and(|same| !same));
    }

    #[test]
    fn the_versions_are_fixed() {
        let wanted = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(WANTED);
        let read = |file: &str| -> serde_json::Value {
            serde_json::from_slice(&fs::read(wanted.join(file)).unwrap()).unwrap()
        };
        let packages = read(FILES[1])["packages"].as_object().unwrap().clone();
        let wanted = read(FILES[0])["dependencies"].as_object().unwrap().clone();
        assert_eq!(
            wanted.keys().collect::<Vec<_>>(),
            ["@azure/eventgrid", "@azure/service-bus", "cloudevents", "mqtt"]
        );
        for (name, version) in &wanted {
            let version = version.as_str().unwrap();
            assert!(version.chars().all(|c| c.is_ascii_digit() || c == '.'), "{name} {version}");
            assert_eq!(packages[&format!("node_modules/{name}")]["version"], version);
        }
        for (name, package) in packages.iter().filter(|(name, _)| !name.is_empty()) {
            assert!(package["integrity"].is_string(), "{name} has a checksum");
        }
    }

    #[test]
    fn a_missing_program_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error =
            fill(Path::new("/nonexistent/npm"), folder.path(), &folder.path().join("draft")).unwrap_err();
        assert!(error.to_string().contains(FILES[0]), "{error:#}");
    }
}
