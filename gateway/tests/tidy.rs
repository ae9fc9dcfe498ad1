//! The rules of the house that a compiler does not check: who may import whom, and what no file may hold.

mod conformance_list;

use std::fs;
use std::path::{Path, PathBuf};

/// What each module of the gateway may name with `crate::`. Dependencies point one way, along the data flow.
const EDGES: &[(&str, &[&str])] = &[
    ("mqtt", &["outbox", "config", "fuzzing", "observe", "supervise", "tls"]),
    ("outbox", &["config", "fuzzing", "observe", "supervise"]),
    ("uplink", &["outbox", "dead_letter", "azure", "config", "fuzzing", "observe", "supervise"]),
    ("commands", &["mqtt", "outbox", "azure", "config", "fuzzing", "observe", "supervise", "tls"]),
    (
        "alerts",
        &[
            "mqtt",
            "outbox",
            "commands",
            "dead_letter",
            "azure",
            "config",
            "fuzzing",
            "observe",
            "supervise",
            "tls",
        ],
    ),
    ("dead_letter", &["outbox", "observe", "supervise"]),
    ("verify", &["uplink", "azure", "config", "supervise"]),
    ("examine", &["outbox", "uplink", "dead_letter", "supervise"]),
    (
        "admin",
        &[
            "mqtt",
            "outbox",
            "uplink",
            "commands",
            "alerts",
            "dead_letter",
            "azure",
            "config",
            "observe",
            "supervise",
        ],
    ),
    ("azure", &["config", "observe", "supervise"]),
    ("config", &["admin", "alerts", "azure", "commands", "fuzzing", "mqtt", "observe", "outbox", "uplink"]),
    ("observe", &["config"]),
    ("supervise", &[]),
    // In tests and under cargo-fuzz only.
    ("fuzzing", &["mqtt", "outbox", "uplink", "commands", "alerts", "config"]),
    ("tls", &[]),
];

/// Public modules of a stage that others may enter; everything else goes through the stage's front page.
const OPEN_DOORS: &[&str] = &["supervise::clock", "mqtt::access", "outbox::offline", "uplink::reader"];

/// Files, or folders with their slash, that alone may name a crate.
const KEEPERS: &[(&str, &[&str])] = &[
    ("rocksdb::", &["outbox/store/options.rs", "outbox/store/rocks.rs"]),
    ("rdkafka::", &["uplink/producer/mod.rs", "uplink/producer/native.rs", "uplink/reader.rs"]),
    ("fe2o3_amqp", &["commands/amqp/"]),
    ("unsafe_code", &["uplink/producer/native.rs"]),
    ("metrics::counter!", &["observe/metric.rs"]),
    ("metrics::gauge!", &["observe/metric.rs"]),
    ("metrics::histogram!", &["observe/metric.rs"]),
];

/// Longest file, tests aside, in lines.
const LINES_MAX: usize = 700;

struct Source {
    path: String,
    text: String,
}

#[test]
fn stages_import_only_along_the_data_flow() {
    let mut wrong = Vec::new();
    for source in gateway_sources() {
        let Some((stage, _)) = source.path.split_once('/') else { continue };
        let allowed = EDGES.iter().find(|(name, _)| *name == stage).map(|(_, allowed)| *allowed);
        let allowed = allowed.unwrap_or_else(|| panic!("{stage} has no row in EDGES"));
        for path in crate_paths(&source.text) {
            let mut parts = path.split("::");
            let other = parts.next().unwrap_or_default();
            if other == stage {
                continue;
            }
            if !allowed.contains(&other) {
                wrong.push(format!("{}: {stage} may not use {other}", source.path));
            }
            let inside = parts.next().unwrap_or_default();
            let enters =
                inside.starts_with(|c: char| c.is_ascii_lowercase()) && path.matches("::").count() > 1;
            if enters && !OPEN_DOORS.contains(&format!("{other}::{inside}").as_str()) {
                wrong.push(format!("{}: enters {other} past its front page ({path})", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn engines_have_one_keeper() {
    let mut wrong = Vec::new();
    for source in gateway_sources() {
        for (name, keepers) in KEEPERS {
            let test = source.path.contains("test");
            let keeper = keepers.iter().any(|keeper| {
                source.path == *keeper || (keeper.ends_with('/') && source.path.starts_with(keeper))
            });
            if source.text.contains(name) && !test && !keeper {
                wrong.push(format!("{} names {name}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_holds_what_the_house_forbids() {
    let mut wrong = Vec::new();
    for source in sources(&workspace()) {
        let Source { path, text } = &source;
        if path.ends_with("tests/tidy.rs") {
            continue;
        }
        let body = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = body.lines().count();
        let test = path.contains("/tests") || path.ends_with("tests.rs");
        if lines > LINES_MAX && !test {
            wrong.push(format!("{path}: {lines} lines; a second idea hides past {LINES_MAX}"));
        }
        for (place, line) in text.lines().enumerate() {
            for (token, rule) in FORBIDDEN {
                if line.contains(token) {
                    wrong.push(format!("{path}:{}: {rule}", place + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const FORBIDDEN: &[(&str, &str)] = &[
    ("#[ignore", "no ignored tests"),
    ("thread::sleep(", "wait for the event, not for a time"),
    ("time::sleep(Duration::from_millis(", "wait for the event, not for a time"),
    ("FIXME", "mend it, or file an issue"),
    ("TODO:", "a TODO names its issue, as TODO(#12)"),
    ("../shared", "the project stands on its own"),
];

/// Documents that lead through the tree by naming files.
const GUIDES: &[&str] = &["ARCHITECTURE.md", "README.md", "CONTRIBUTING.md", "docs/operations.md"];

#[test]
fn the_guides_name_files_that_exist() {
    let root = workspace();
    let mut wrong = Vec::new();
    for guide in GUIDES {
        let text = fs::read_to_string(root.join(guide)).expect("a readable guide");
        for name in text.split('`').skip(1).step_by(2).filter(|name| names_a_file(name)) {
            let name = name.trim_end_matches('/');
            let places = [root.join(name), root.join("gateway/src").join(name)];
            if !places.iter().any(|place| place.exists()) {
                wrong.push(format!("{guide}: there is no {name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a quoted word is a path of this tree: a source file, a page, or a folder with its slash.
fn names_a_file(name: &str) -> bool {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    let path = name.ends_with(".rs") || name.ends_with(".md") || (name.ends_with('/') && name.len() > 1);
    plain && path && !name.starts_with('/')
}

#[test]
fn the_rules_can_fail() {
    let text = "use crate::outbox::store::Rocks;\nlet x = crate::mqtt::Handle;\n// as in crate::app";
    let paths = crate_paths(text);
    assert_eq!(paths, ["outbox::store::Rocks", "mqtt::Handle"]);
}

/// Every path after `crate::` in the code of a source text. Lists in braces are taken at their first level.
fn crate_paths(text: &str) -> Vec<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    let paths = code.split("crate::").skip(1).flat_map(|rest| {
        if let Some(list) = rest.strip_prefix('{') {
            let list = list.split('}').next().unwrap_or_default();
            list.split(',').map(|path| word(path.trim())).filter(|path| !path.is_empty()).collect::<Vec<_>>()
        } else {
            vec![word(rest)]
        }
    });
    paths.collect()
}

fn word(text: &str) -> String {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    text.split_at(end).0.trim_end_matches(':').to_owned()
}

fn workspace() -> PathBuf {
    let gateway = Path::new(env!("CARGO_MANIFEST_DIR"));
    gateway.parent().expect("the gateway is a member of the workspace").to_owned()
}

fn gateway_sources() -> Vec<Source> {
    sources(&workspace().join("gateway/src"))
}

/// Every Rust file below `root`, with its path relative to it.
fn sources(root: &Path) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a readable folder").flatten() {
            let path = entry.path();
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if path.is_dir() && !hidden && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a readable file");
                let path = path.strip_prefix(root).expect("below the root").display().to_string();
                found.push(Source { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "no sources below {}", root.display());
    found
}
