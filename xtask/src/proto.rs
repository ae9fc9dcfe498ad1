//! `cargo xtask proto`: the Rust types of the schema files, generated or compared.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cargo::Cargo;
use crate::say;

/// The generator, a crate outside the workspace with a lock file of its own.
const GENERATOR: &str = "proto/generate/Cargo.toml";
/// Where the generated files are kept.
const KEPT: &str = "proto/src/wire";
/// The file for each package of `proto/penstock/`.
const FILES: [&str; 1] = ["penstock.v1.rs"];

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Change nothing; fail if the files kept are not what the schemas give
    #[arg(long)]
    check: bool,
}

/// Generates, and compares or replaces.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut cargo = Cargo::new()?;
    if arguments.check { check(&mut cargo) } else { replace(&mut cargo) }
}

/// Fails if a file kept is not what the schemas give.
pub(crate) fn check(cargo: &mut Cargo) -> Result<()> {
    for (name, fresh) in generate(cargo)? {
        let kept = cargo.root().join(KEPT).join(name);
        if fs::read_to_string(&kept).ok().as_ref() != Some(&fresh) {
            bail!("{} is not what proto/penstock/ gives: run `cargo xtask proto`", kept.display());
        }
    }
    say::line("generated types: as the schemas say");
    Ok(())
}

fn replace(cargo: &mut Cargo) -> Result<()> {
    for (name, fresh) in generate(cargo)? {
        let kept = cargo.root().join(KEPT).join(name);
        fs::write(&kept, fresh).with_context(|| format!("cannot write {}", kept.display()))?;
        say::line(&kept.display().to_string());
    }
    Ok(())
}

/// Name and text of each generated file.
fn generate(cargo: &mut Cargo) -> Result<Vec<(&'static str, String)>> {
    let target = cargo.target().join("proto-generate");
    let out = target.join("out");
    let path = |path: &Path| path.to_str().map(str::to_owned).context("a path that is not UTF-8");
    let (target, out_text) = (path(&target)?, path(&out)?);
    let arguments =
        ["run", "--locked", "--manifest-path", GENERATOR, "--target-dir", &target, "--", &out_text];
    cargo.run(&arguments, &[])?;
    let read = |name| {
        let file = out.join(name);
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()));
        text.map(|text| (name, text))
    };
    FILES.into_iter().map(read).collect()
}
