//! `docs/mqtt-conformance.md` names every numbered statement of both versions of MQTT, and for each one
//! that binds a server a test that exists, or the reason why there is nothing to test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// How many statements each section of MQTT 3.1.1 numbers, from 1 without a hole.
const STATEMENTS_3_1_1: &[(&str, u32)] = &[
    ("1.5.3", 3),
    ("2.2.2", 2),
    ("2.3.1", 7),
    ("3.1.0", 2),
    ("3.1.2", 24),
    ("3.1.3", 11),
    ("3.1.4", 5),
    ("3.2.0", 1),
    ("3.2.2", 6),
    ("3.3.1", 12),
    ("3.3.2", 3),
    ("3.3.4", 1),
    ("3.3.5", 2),
    ("3.6.1", 1),
    ("3.8.1", 1),
    ("3.8.3", 4),
    ("3.8.4", 6),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.12.4", 1),
    ("3.14.1", 1),
    ("3.14.4", 3),
    ("4.1.0", 2),
    ("4.3.1", 1),
    ("4.3.2", 2),
    ("4.3.3", 2),
    ("4.4.0", 1),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.1", 3),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.0", 2),
    ("6.0.0", 4),
    ("7.0.0", 2),
    ("7.1.1", 1),
    ("7.1.2", 1),
];

/// The same for MQTT 5, where `HOLE_5` is missing.
const STATEMENTS_5: &[(&str, u32)] = &[
    ("1.5.4", 3),
    ("1.5.5", 1),
    ("1.5.7", 1),
    ("2.1.3", 1),
    ("2.2.1", 6),
    ("2.2.2", 1),
    ("3.1.0", 2),
    ("3.1.2", 30),
    ("3.1.3", 12),
    ("3.1.4", 6),
    ("3.2.0", 2),
    ("3.2.2", 22),
    ("3.3.1", 13),
    ("3.3.2", 20),
    ("3.3.4", 10),
    ("3.4.2", 3),
    ("3.5.2", 3),
    ("3.6.1", 1),
    ("3.6.2", 3),
    ("3.7.2", 3),
    ("3.8.1", 1),
    ("3.8.3", 5),
    ("3.8.4", 8),
    ("3.9.2", 2),
    ("3.9.3", 2),
    ("3.10.1", 1),
    ("3.10.3", 2),
    ("3.10.4", 6),
    ("3.11.2", 2),
    ("3.11.3", 2),
    ("3.12.4", 1),
    ("3.14.0", 1),
    ("3.14.1", 1),
    ("3.14.2", 4),
    ("3.14.4", 3),
    ("3.15.1", 1),
    ("3.15.2", 3),
    ("4.1.0", 2),
    ("4.2.0", 1),
    ("4.3.1", 1),
    ("4.3.2", 5),
    ("4.3.3", 13),
    ("4.4.0", 2),
    ("4.5.0", 2),
    ("4.6.0", 6),
    ("4.7.0", 1),
    ("4.7.1", 2),
    ("4.7.2", 1),
    ("4.7.3", 4),
    ("4.8.2", 6),
    ("4.9.0", 3),
    ("4.12.0", 7),
    ("4.12.1", 2),
    ("4.13.1", 1),
    ("4.13.2", 1),
    ("6.0.0", 4),
];
const HOLE_5: &str = "2.2.1-1";

/// A row of the list.
struct Row {
    version: &'static str,
    /// As in the specification, without brackets and `MQTT-`.
    id: String,
    binds: String,
    short: String,
    held_by: String,
}

#[test]
fn the_list_is_complete_and_names_every_statement_once() {
    for (version, sections) in [("3.1.1", STATEMENTS_3_1_1), ("5", STATEMENTS_5)] {
        let expected: BTreeSet<String> = sections
            .iter()
            .flat_map(|(section, count)| (1..=*count).map(move |number| format!("{section}-{number}")))
            .filter(|id| version == "3.1.1" || id != HOLE_5)
            .collect();
        let rows = rows().into_iter().filter(|row| row.version == version);
        let ids: Vec<String> = rows.map(|row| row.id).collect();
        let listed: BTreeSet<String> = ids.iter().cloned().collect();
        assert_eq!(listed.len(), ids.len(), "a statement of {version} is listed twice");
        let missing: Vec<_> = expected.difference(&listed).collect();
        let unknown: Vec<_> = listed.difference(&expected).collect();
        assert!(missing.is_empty() && unknown.is_empty(), "{version}: no {missing:?}, but {unknown:?}");
    }
}

#[test]
fn what_binds_a_server_is_held_by_tests_that_exist_or_has_a_reason() {
    let mut wrong = Vec::new();
    for row in rows() {
        let Row { version, id, binds, short, held_by } = &row;
        let mut complain = |what: &str| wrong.push(format!("{version} {id}: {what}"));
        if !["server", "client", "both"].contains(&binds.as_str()) {
            complain("binds nobody");
        }
        if !short.ends_with(['.', ')']) {
            complain("is not told in a sentence");
        }
        for test in row.tests() {
            if !exists(test) {
                complain(&format!("there is no test {test}"));
            }
        }
        let reason = held_by.strip_prefix("not here: ").is_some_and(|reason| !reason.trim().is_empty());
        if binds != "client" && row.tests().is_empty() && !reason {
            complain("binds a server, and neither a test nor a reason is named");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The tests of `mqtt/tests/spec/` say which statements they hold; the list says the same.
#[test]
fn tests_and_list_name_each_other() {
    let mut listed = BTreeMap::<String, BTreeSet<String>>::new();
    for row in rows() {
        for test in row.tests().into_iter().filter(|test| test.starts_with("tests/spec/")) {
            listed.entry(test.to_owned()).or_default().insert(format!("{} {}", row.version, row.id));
        }
    }
    let mut said = BTreeMap::new();
    let folder = mqtt().join("tests/spec");
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let file = entry.file_name().display().to_string();
        let text = fs::read_to_string(entry.path()).expect("a readable file");
        for (test, ids) in told(&text) {
            said.insert(format!("tests/spec/{file}::{test}"), ids);
        }
    }
    let tests: BTreeSet<_> = listed.keys().chain(said.keys()).collect();
    for test in tests {
        assert_eq!(said.get(test), listed.get(test), "{test}: its comment, and the list");
    }
}

/// The tests of a source text, and the statements that the comment above each names.
fn told(text: &str) -> Vec<(&str, BTreeSet<String>)> {
    let mut tests = Vec::new();
    let (mut ids, mut version, mut test) = (BTreeSet::new(), "", false);
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("// ") {
            for word in comment.split_whitespace() {
                let word = word.trim_end_matches([',', '.']);
                match word.strip_prefix("[MQTT-").and_then(|id| id.strip_suffix(']')) {
                    Some(id) => _ = ids.insert(format!("{version} {id}")),
                    None if ["3.1.1", "5"].contains(&word) => version = word,
                    None => {}
                }
            }
        } else if line.starts_with("#[tokio::test") || line == "#[test]" {
            test = true;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| test) {
            let name = rest.split('(').next().unwrap_or_default();
            tests.push((name, std::mem::take(&mut ids)));
            test = false;
        } else if !line.starts_with("///") && !test {
            ids.clear();
        }
    }
    tests
}

impl Row {
    /// What is quoted in the last column: tests, by their file below `gateway/src/mqtt/`.
    fn tests(&self) -> Vec<&str> {
        self.held_by.split('`').skip(1).step_by(2).collect()
    }
}

/// Whether a file of the MQTT stage holds a function of this name.
fn exists(test: &str) -> bool {
    let Some((file, name)) = test.split_once("::") else { return false };
    let text = fs::read_to_string(mqtt().join(file)).unwrap_or_default();
    file.contains("tests") && text.contains(&format!("fn {name}("))
}

fn rows() -> Vec<Row> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mqtt-conformance.md");
    let text = fs::read_to_string(file).expect("a readable list");
    let mut version = "";
    let mut rows = Vec::new();
    for line in text.lines() {
        match line {
            "## MQTT 3.1.1" => version = "3.1.1",
            "## MQTT 5" => version = "5",
            _ => {}
        }
        let Some(rest) = line.strip_prefix("| [MQTT-") else { continue };
        let cells: Vec<&str> = rest.trim_end_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 4, "four columns: {line}");
        let [id, binds, short, held_by] = [0, 1, 2, 3].map(|column| cells[column].to_owned());
        let id = id.trim_end_matches(']').to_owned();
        rows.push(Row { version, id, binds, short, held_by });
    }
    rows
}

fn mqtt() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mqtt")
}
