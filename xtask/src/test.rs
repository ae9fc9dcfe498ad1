//! `cargo xtask test`: every test of the workspace, with the build that everything else uses.

use anyhow::{Result, bail};

use crate::cargo::{Cargo, SELECTION};
use crate::node;
use crate::packages::{self, Need};
use crate::python;
use crate::say;

/// Makes sure of the packages, builds once and runs the tests.
pub(crate) fn run() -> Result<()> {
    packages::ensure(Need::BuildAndTest)?;
    let mut cargo = Cargo::new()?;
    cargo.build()?;
    tests(&mut cargo)?;
    cargo.native_compiled_once()
}

/// Runs unit, integration and documentation tests of an already built workspace and prints the totals.
pub(crate) fn tests(cargo: &mut Cargo) -> Result<()> {
    let clients =
        [(python::VARIABLE, python::interpreter(cargo.root())), (node::VARIABLE, node::folder(cargo.root()))];
    let here = clients.iter().filter_map(|(name, place)| Some((*name, place.as_deref()?.to_str()?)));
    let here: Vec<(&str, &str)> = here.collect();
    say::step("running the tests");
    let arguments = [&["test", "--locked", "--no-fail-fast"], SELECTION.as_slice()].concat();
    let targets = cargo.run(&arguments, &here);
    let documents = match targets {
        Ok(()) => cargo.run(&["test", "--locked", "--release", "--workspace", "--doc"], &[]),
        Err(_) => Ok(()),
    };
    let tests = cargo.tests();
    say::line(&format!(
        "{} tests passed, {} failed, {} ignored, in {} test binaries",
        tests.passed, tests.failed, tests.ignored, tests.binaries
    ));
    targets.and(documents)?;
    if tests.ignored > 0 {
        bail!("{} tests are ignored; a test that does not run proves nothing", tests.ignored);
    }
    Ok(())
}
