//! System packages: what the build and the tests need from Debian, found by `dpkg-query`, installed by
//! `apt-get` where this user may, and otherwise named in one line to copy.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::say;

/// What RocksDB and librdkafka need to compile.
const BUILD: &[&str] = &["g++", "make", "pkg-config", "libclang-dev", "libssl-dev", "zlib1g-dev"];
/// What the tests and the benchmark start: a peer broker, clients we did not write, and what makes
/// a certificate.
const TEST: &[&str] = &["mosquitto", "mosquitto-clients", "kcat", "openssl", "nodejs", "npm"];
/// Packages whose program may have come another way, as Node.js often does.
const PROGRAMS: &[(&str, &str)] = &[("nodejs", "node"), ("npm", "npm")];

/// What a command is about to do, and so which packages it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    Build,
    BuildAndTest,
}

impl Need {
    fn packages(self) -> Vec<&'static str> {
        match self {
            Self::Build => BUILD.to_vec(),
            Self::BuildAndTest => [BUILD, TEST].concat(),
        }
    }
}

/// Makes sure that the packages are there: checks, then installs what is missing.
///
/// # Errors
/// Something is missing and cannot be installed; the text is the line to run.
pub(crate) fn ensure(need: Need) -> Result<()> {
    if !on_path("dpkg-query") {
        let wanted = need.packages().join(" ");
        say::line(&format!(
            "this is not Debian; going on in the hope that the equivalents of these are here: {wanted}"
        ));
        return Ok(());
    }
    let missing: Vec<&str> = need.packages().into_iter().filter(|package| !present(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let Some(prefix) = privilege() else {
        bail!("system packages are missing; run this, then try again:\n\n    {}\n", manual(&missing));
    };
    say::step(&format!("installing system packages: {}", missing.join(" ")));
    apt(prefix, &["update"])?;
    apt(prefix, &[&["install", "-y", "--no-install-recommends"], missing.as_slice()].concat())?;
    let absent: Vec<&str> = missing.into_iter().filter(|package| !present(package)).collect();
    if absent.is_empty() {
        return Ok(());
    }
    bail!("apt-get succeeded, but these packages are still missing: {}", absent.join(" "));
}

fn manual(missing: &[&str]) -> String {
    let packages = missing.join(" ");
    format!("sudo apt-get update && sudo apt-get install -y --no-install-recommends {packages}")
}

/// Whether a package is installed, or its program is here without it.
fn present(package: &str) -> bool {
    let program = PROGRAMS.iter().find(|(name, _)| *name == package);
    installed(package) || program.is_some_and(|(_, program)| on_path(program))
}

fn installed(package: &str) -> bool {
    let query =
        Command::new("dpkg-query").args(["-W", "-f=${Status}", package]).stderr(Stdio::null()).output();
    query.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("ok installed"))
}

/// How to become root without a question: nothing to put before the command, `sudo -n`, or not at all.
fn privilege() -> Option<&'static [&'static str]> {
    let id = Command::new("id").arg("-u").output().ok()?;
    if String::from_utf8_lossy(&id.stdout).trim() == "0" {
        return Some(&[]);
    }
    let sudo = Command::new("sudo").args(["-n", "true"]).stdin(Stdio::null()).stderr(Stdio::null()).status();
    sudo.is_ok_and(|status| status.success()).then_some(&["sudo", "-n"])
}

fn apt(prefix: &[&str], arguments: &[&str]) -> Result<()> {
    let words: Vec<&str> = prefix
        .iter()
        .copied()
        .chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"])
        .chain(arguments.iter().copied())
        .collect();
    let (program, rest) = words.split_first().context("a command has a name")?;
    let status = Command::new(program).args(rest).stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("{program} cannot be started"))?;
    if !status.success() {
        bail!("`{}` failed: {status}", words.join(" "));
    }
    Ok(())
}

/// Finds a program in `PATH` or in the folders Debian keeps out of a user's `PATH`.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].iter().map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|file| Path::is_file(file))
}

fn on_path(name: &str) -> bool {
    program(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_need_what_the_build_needs_and_the_peers() {
        let all = Need::BuildAndTest.packages();
        assert!(BUILD.iter().chain(TEST).all(|package| all.contains(package)));
        assert_eq!(Need::Build.packages(), BUILD);
    }

    #[test]
    fn a_program_without_its_package_will_do() {
        assert!(PROGRAMS.iter().all(|(package, _)| TEST.contains(package)));
        assert!(present("npm") == (installed("npm") || on_path("npm")));
        assert!(!present("no-such-package-of-ours"));
    }

    #[test]
    fn missing_packages_become_one_line_to_copy() {
        let line = manual(&["g++", "kcat"]);
        assert_eq!(line, "sudo apt-get update && sudo apt-get install -y --no-install-recommends g++ kcat");
    }
}
