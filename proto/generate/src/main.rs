//! Generates the prost types of `penstock/v1/*.proto` into the folder given as the only argument.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::args_os().nth(1).ok_or("expected the folder to write to")?);
    let proto = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut schemas = Vec::new();
    for entry in fs::read_dir(proto.join("penstock/v1"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            schemas.push(path);
        }
    }
    schemas.sort();
    fs::create_dir_all(&out)?;
    let descriptors = protox::compile(schemas, [proto])?;
    prost_build::Config::new().out_dir(&out).compile_fds(descriptors)?;
    Ok(())
}
