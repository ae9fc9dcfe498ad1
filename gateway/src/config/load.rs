//! The raw layer: the file's table with the environment laid over it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use super::section::Context;
use super::{ConfigError, Section, Shape};
use crate::azure::WORKLOAD_IDENTITY_VARIABLES;

/// Variables with this prefix override keys; `__` separates the levels.
const PREFIX: &str = "PENSTOCK__";

/// Reads `file`, lays `environment` over it and returns the root section.
pub(super) fn load(
    file: &Path,
    environment: impl Iterator<Item = (String, String)>,
    root: &Shape,
) -> Result<(Section, Rc<Context>), ConfigError> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file)
        .map_err(|error| ConfigError::Unreadable { file: name.clone(), reason: error.to_string() })?;
    parse(&name, &text, environment, root)
}

/// The same from text already read.
pub(super) fn parse(
    file: &str,
    text: &str,
    environment: impl Iterator<Item = (String, String)>,
    root: &Shape,
) -> Result<(Section, Rc<Context>), ConfigError> {
    let mut table: toml::Table = text.parse().map_err(|error| syntax(file, text, &error))?;
    let mut overrides = BTreeMap::new();
    let mut stand_ins = Vec::new();
    for (variable, value) in environment {
        let Some(path) = variable.strip_prefix(PREFIX) else {
            stand_ins.extend(stand_in(&variable).map(|key| (key, variable, value)));
            continue;
        };
        let path = path.to_ascii_lowercase().replace("__", ".");
        lay_over(&mut table, &path, &value);
        overrides.insert(path, variable);
    }
    if has_workload_identity(&table) {
        for (key, variable, value) in stand_ins {
            let path = format!("azure.{key}");
            if table.get("azure").and_then(|azure| azure.get(key)).is_none() {
                lay_over(&mut table, &path, &value);
                overrides.insert(path, variable);
            }
        }
    }
    let context = Context { file: file.to_owned(), overrides, effective: RefCell::default() };
    let context = Rc::new(context);
    let section = Section::new(Rc::clone(&context), String::new(), table, root)?;
    Ok((section, context))
}

/// The key of `[azure]` that a variable of Kubernetes' workload identity stands for.
fn stand_in(variable: &str) -> Option<&'static str> {
    let known = WORKLOAD_IDENTITY_VARIABLES.iter().find(|(name, _)| *name == variable);
    known.map(|(_, key)| *key)
}

fn has_workload_identity(table: &toml::Table) -> bool {
    let credential = table.get("azure").and_then(|azure| azure.get("credential"));
    credential.and_then(toml::Value::as_str) == Some("workload-identity")
}

/// Sets `path` in `table`; a value that is no table is replaced, so that the reader reports it.
fn lay_over(table: &mut toml::Table, path: &str, value: &str) {
    match path.split_once('.') {
        None => drop(table.insert(path.to_owned(), toml::Value::String(value.to_owned()))),
        Some((first, rest)) => {
            let child = table.entry(first).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            if let toml::Value::Table(child) = child {
                lay_over(child, rest, value);
            } else {
                let mut fresh = toml::Table::new();
                lay_over(&mut fresh, rest, value);
                *child = toml::Value::Table(fresh);
            }
        }
    }
}

fn syntax(file: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let reason = error.message().lines().collect::<Vec<_>>().join("; ");
    ConfigError::Syntax { file: file.to_owned(), line, reason }
}
