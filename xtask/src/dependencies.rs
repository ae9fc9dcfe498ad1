//! The dependency check: licences, sources and banned crates, from `cargo metadata` and `deny.toml`.
//!
//! It needs no network and no tool beyond cargo. What it does not do is look for security advisories, since
//! their database is not reachable everywhere.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::spdx;

/// The part of `deny.toml` that is checked here.
#[derive(Debug, Deserialize)]
pub(crate) struct Policy {
    licenses: Licences,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

/// A crate that may not be there, except as a dependency of its wrappers.
#[derive(Debug, Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    #[serde(default)]
    wrappers: Vec<String>,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

/// The part of `cargo metadata` that is checked here: every platform's packages, and who uses whom with the
/// features that are switched on.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Debug, Clone, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    manifest_path: String,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    dependencies: Vec<String>,
}

impl Policy {
    /// Reads `deny.toml`.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not understood", file.display()))
    }

    /// Lists everything that breaks the policy, one sentence each; empty when all is well.
    pub(crate) fn violations(&self, metadata: &Metadata, root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for package in &metadata.packages {
            let name = format!("{} {}", package.name, package.version);
            found.extend(self.licence(package).map(|why| format!("{name}: {why}")));
            found.extend(self.source(package, root).map(|why| format!("{name}: {why}")));
            found.extend(self.ban(package, metadata).map(|why| format!("{name}: {why}")));
        }
        found
    }

    fn licence(&self, package: &Package) -> Option<String> {
        let Some(expression) = &package.license else { return Some("names no licence".to_owned()) };
        match spdx::satisfied(expression, &self.licenses.allow) {
            Some(true) => None,
            Some(false) => Some(format!("licence `{expression}` is not allowed")),
            None => Some(format!("licence `{expression}` is not understood")),
        }
    }

    fn source(&self, package: &Package, root: &Path) -> Option<String> {
        let Some(source) = &package.source else {
            let inside = Path::new(&package.manifest_path).starts_with(root);
            return (!inside).then(|| "is a path outside the workspace".to_owned());
        };
        let registry = source.strip_prefix("registry+");
        let allowed =
            registry.is_some_and(|url| self.sources.allow_registry.iter().any(|known| known == url));
        (!allowed).then(|| format!("source `{source}` is not allowed"))
    }

    fn ban(&self, package: &Package, metadata: &Metadata) -> Option<String> {
        let ban = self.bans.deny.iter().find(|ban| ban.name == package.name)?;
        let users: Vec<&str> = users(&package.id, metadata)
            .filter(|user| !ban.wrappers.iter().any(|wrapper| wrapper == user))
            .collect();
        let nobody = users.is_empty() && !ban.wrappers.is_empty();
        (!nobody).then(|| format!("is banned ({}); used by: {}", ban.reason, users.join(", ")))
    }
}

/// The names of the crates that depend on the package with this id.
fn users<'a>(id: &'a str, metadata: &'a Metadata) -> impl Iterator<Item = &'a str> {
    let uses = move |node: &&Node| node.dependencies.iter().any(|dependency| dependency == id);
    let name = |node: &'a Node| {
        metadata
            .packages
            .iter()
            .find(|package| package.id == node.id)
            .map_or("?", |package| package.name.as_str())
    };
    metadata.resolve.nodes.iter().filter(uses).map(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTRY: &str = "registry+https://registry.example/index";

    fn policy() -> Policy {
        let text = r#"
            [licenses]
            allow = ["MIT"]
            [bans]
            deny = [
                { crate = "evil", reason = "for the test" },
                { crate = "openssl-sys", wrappers = ["rdkafka-sys"], reason = "for the test" },
            ]
            [sources]
            allow-registry = ["https://registry.example/index"]
        "#;
        toml::from_str(text).unwrap()
    }

    fn package(name: &str, license: &str, source: &str) -> Package {
        Package {
            id: name.to_owned(),
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: (!license.is_empty()).then(|| license.to_owned()),
            source: (!source.is_empty()).then(|| source.to_owned()),
            manifest_path: format!("/elsewhere/{name}/Cargo.toml"),
        }
    }

    fn node(id: &str, dependencies: &[&str]) -> Node {
        Node { id: id.to_owned(), dependencies: dependencies.iter().map(|&name| name.to_owned()).collect() }
    }

    fn check(packages: Vec<Package>, nodes: Vec<Node>, expected: &[&str]) {
        let metadata = Metadata { packages, resolve: Resolve { nodes } };
        assert_eq!(policy().violations(&metadata, Path::new("/checkout")), expected);
    }

    #[test]
    fn an_allowed_crate_passes() {
        check(vec![package("fine", "MIT OR GPL-3.0", REGISTRY)], vec![], &[]);
    }

    #[test]
    fn a_foreign_licence_is_found() {
        let packages =
            vec![package("a", "AGPL-3.0", REGISTRY), package("b", "", REGISTRY), package("c", "(", REGISTRY)];
        let expected = [
            "a 1.0.0: licence `AGPL-3.0` is not allowed",
            "b 1.0.0: names no licence",
            "c 1.0.0: licence `(` is not understood",
        ];
        check(packages, vec![], &expected);
    }

    #[test]
    fn a_foreign_source_is_found() {
        let packages = vec![package("a", "MIT", "git+https://example.org/a"), package("b", "MIT", "")];
        let expected = [
            "a 1.0.0: source `git+https://example.org/a` is not allowed",
            "b 1.0.0: is a path outside the workspace",
        ];
        check(packages, vec![], &expected);
    }

    #[test]
    fn a_banned_crate_is_found_with_its_users() {
        let packages = vec![package("evil", "MIT", REGISTRY), package("a", "MIT", REGISTRY)];
        check(packages, vec![node("a", &["evil"])], &["evil 1.0.0: is banned (for the test); used by: a"]);
    }

    #[test]
    fn a_wrapper_may_use_a_banned_crate_and_nobody_else() {
        let packages =
            || ["openssl-sys", "rdkafka-sys", "a"].map(|name| package(name, "MIT", REGISTRY)).to_vec();
        check(packages(), vec![node("rdkafka-sys", &["openssl-sys"])], &[]);
        let nodes = vec![node("rdkafka-sys", &["openssl-sys"]), node("a", &["openssl-sys"])];
        check(packages(), nodes, &["openssl-sys 1.0.0: is banned (for the test); used by: a"]);
    }

    #[test]
    fn the_policy_of_this_workspace_is_understood() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deny.toml");
        assert!(Policy::read(&file).unwrap().bans.deny.iter().any(|ban| ban.name == "evalexpr"));
    }
}
