//! The shim against programs that write in known ways and are killed.
//!
//! The test binary runs itself once more with the library preloaded: the child runs one script of operations
//! (the test `child` with `SCRIPT` set), prints a line, and waits to be killed. What the twin then holds is
//! compared with what the script says is durable, or with an in-memory model of strict durability.
#![expect(clippy::unwrap_used, reason = "everything here is a test or serves one")]

#[path = "cut/faults.rs"]
mod faults;
#[path = "cut/model.rs"]
mod model;
#[path = "cut/script.rs"]
mod script;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use model::Model;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use script::Op;

/// Path below the directory -> content; a directory ends with a slash and has none.
type Tree = BTreeMap<String, Vec<u8>>;

struct Cut {
    data: PathBuf,
    twin: PathBuf,
    _home: tempfile::TempDir,
}

impl Cut {
    fn new() -> Cut {
        let home = tempfile::tempdir().unwrap();
        let (data, twin) = (home.path().join("data"), home.path().join("twin"));
        fs::create_dir(&data).unwrap();
        Cut { data, twin, _home: home }
    }

    /// The program under the library, to run a script.
    fn command(&self, script: &str, settings: &[(&str, &str)]) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env("SCRIPT", script)
            .env("LD_PRELOAD", library())
            .env("POWERCUT_DIR", &self.data)
            .env("POWERCUT_TWIN", &self.twin)
            .envs(settings.iter().copied())
            .current_dir(&self.data);
        command
    }

    /// Runs a script under the library to the end of the process. Returns how it ended and what it printed.
    fn end(&self, script: &str, settings: &[(&str, &str)]) -> (ExitStatus, String) {
        let output = self.command(script, settings).stdin(Stdio::null()).output().unwrap();
        (output.status, String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a script under the library, then kills the process. Returns what it printed.
    fn run(&self, script: &str, settings: &[(&str, &str)]) -> String {
        let mut command = self.command(script, settings);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        // The child ends by itself when its standard input closes, so this cannot wait for ever.
        while !said.contains(script::DONE) && output.read_line(&mut said).unwrap() > 0 {}
        child.kill().unwrap();
        child.wait().unwrap();
        output.read_to_string(&mut said).unwrap();
        assert!(said.contains(script::DONE), "the script failed:\n{said}");
        said
    }

    fn kept(&self) -> Tree {
        tree(&self.twin)
    }
}

/// Runs `script` in strict mode and compares what is left.
fn check(script: &str, expected: &[(&str, &str)]) {
    let cut = Cut::new();
    cut.run(script, &[]);
    assert_eq!(cut.kept(), texts(expected), "after {script}");
}

fn texts(expected: &[(&str, &str)]) -> Tree {
    expected.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
}

fn tree(dir: &Path) -> Tree {
    let mut found = Tree::new();
    let mut open = vec![(dir.to_owned(), String::new())];
    while let Some((dir, prefix)) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
            if entry.file_type().unwrap().is_dir() {
                found.insert(format!("{name}/"), Vec::new());
                open.push((entry.path(), format!("{name}/")));
            } else {
                found.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

fn library() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let places = exe.ancestors().skip(1).take(4).map(|dir| dir.join("libpowercut.so"));
    places.into_iter().find(|path| path.exists()).expect("cargo builds the library before its tests")
}

/// Not a test of its own: the program that runs under the library.
#[test]
fn child() {
    if let Ok(text) = std::env::var("SCRIPT") {
        script::run(&text);
    }
}

#[test]
fn data_and_name_need_a_sync_each() {
    check("write a 0 hello; sync a; syncdir .", &[("a", "hello")]);
    check("write a 0 hello; sync a", &[]);
    check("write a 0 hello; syncdir .", &[("a", "")]);
    check("write a 0 hello; datasync a; syncdir .; write a 5 lost", &[("a", "hello")]);
    check("write a 0 hello; syncdir .; datasync a", &[("a", "hello")]);
}

#[test]
fn each_way_to_write_is_seen() {
    let ways =
        "append b 12; append b 34; vector c 0 vec; patch c 1 E; copy b d; syncdir .; sync b; sync c; sync d";
    check(ways, &[("b", "1234"), ("c", "vEc"), ("d", "1234")]);
    check("open a; append a x; dup a y; sync a; syncdir .; dup a z", &[("a", "xy")]);
}

#[test]
fn a_file_opened_for_synchronous_writes_needs_no_sync() {
    check("syncwrite a 0 now; syncdir .", &[("a", "now")]);
}

#[test]
fn truncation_becomes_durable_with_the_next_sync() {
    check("write a 0 123456; sync a; syncdir .; truncate a 3", &[("a", "123456")]);
    check("write a 0 123456; sync a; syncdir .; truncate a 3; sync a", &[("a", "123")]);
    let regrown = "write a 0 123456; sync a; syncdir .; truncate a 2; truncate a 4; sync a";
    check(regrown, &[("a", "12\0\0")]);
    check("write a 0 123456; sync a; syncdir .; create a; write a 0 9; sync a", &[("a", "9")]);
    check("write a 0 12; allocate a 4; sync a; syncdir .", &[("a", "12\0\0")]);
    check("write a 0 12; reserve a 4096; sync a; syncdir .", &[("a", "12")]);
}

#[test]
fn a_rename_is_durable_after_its_directory_was_synced() {
    let before = "write CURRENT 0 1; sync CURRENT; syncdir .; write tmp 0 2; sync tmp; rename tmp CURRENT";
    check(before, &[("CURRENT", "1")]);
    check(&format!("{before}; syncdir ."), &[("CURRENT", "2")]);
}

#[test]
fn an_unlinked_file_returns_unless_its_directory_was_synced() {
    let before = "write a 0 1; sync a; syncdir .; unlink a";
    check(before, &[("a", "1")]);
    check(&format!("{before}; syncdir ."), &[]);
    // The inode number is often used again at once: the old content must not change.
    check(&format!("{before}; write b 0 2; sync b"), &[("a", "1")]);
    check(&format!("{before}; write a 0 2; sync a"), &[("a", "1")]);
    check(&format!("{before}; write a 0 2; sync a; syncdir ."), &[("a", "2")]);
}

#[test]
fn a_hard_link_shares_the_durable_data() {
    check("write a 0 1; sync a; link a b; syncdir .; write b 1 2; sync a", &[("a", "12"), ("b", "12")]);
    check(
        "write a 0 1; sync a; link a b; syncdir .; unlink a; syncdir .; append b 2; sync b",
        &[("b", "12")],
    );
}

#[test]
fn a_directory_needs_its_parent_synced() {
    let inner = "mkdir d; write d/a 0 1; sync d/a; syncdir d";
    check(inner, &[]);
    check(&format!("{inner}; syncdir ."), &[("d/", ""), ("d/a", "1")]);
    check("mkdir d; write d/a 0 1; sync d/a; syncdir .", &[("d/", "")]);
    check(&format!("{inner}; syncdir .; unlink d/a; rmdir d"), &[("d/", ""), ("d/a", "1")]);
    check(&format!("{inner}; syncdir .; unlink d/a; rmdir d; syncdir ."), &[]);
    check(&format!("{inner}; syncdir .; rename d e; syncdir ."), &[("e/", ""), ("e/a", "1")]);
    let moved = "syncdir .; mkdir x; syncdir .; rename d/a x/b; syncdir x";
    check(&format!("{inner}; {moved}"), &[("d/", ""), ("d/a", "1"), ("x/", ""), ("x/b", "1")]);
    let out = "mkdir d; mkdir d/e; write d/e/a 0 1; sync d/e/a; syncdir d/e; syncdir d; syncdir .; rename d/e e; rmdir d; syncdir .";
    check(out, &[("e/", ""), ("e/a", "1")]);
}

#[test]
fn what_exists_at_the_start_is_durable() {
    let cut = Cut::new();
    fs::create_dir_all(cut.data.join("d/e")).unwrap();
    fs::write(cut.data.join("d/e/old"), "old").unwrap();
    fs::write(cut.data.join("two"), "2").unwrap();
    fs::hard_link(cut.data.join("two"), cut.data.join("zwei")).unwrap();
    cut.run("append d/e/old +lost; append two +kept; sync zwei", &[]);
    let expected = [("d/", ""), ("d/e/", ""), ("d/e/old", "old"), ("two", "2+kept"), ("zwei", "2+kept")];
    assert_eq!(cut.kept(), texts(&expected));
}

#[test]
fn a_lying_disk_keeps_only_what_was_there_before() {
    let cut = Cut::new();
    fs::write(cut.data.join("old"), "old").unwrap();
    cut.run(
        "write a 0 1; sync a; syncdir .; append old x; datasync old; syncwrite s 0 1",
        &[("POWERCUT_MODE", "lie")],
    );
    assert_eq!(cut.kept(), texts(&[("old", "old")]));
}

#[test]
fn the_chosen_log_sync_fails_and_loses_its_data() {
    let cut = Cut::new();
    let script = "syncdir .; append 1.log a; append 2.txt t; sync 2.txt; syncdir .; sync 1.log; append 1.log b; \
                  failsync 1.log; append 1.log c; sync 1.log";
    cut.run(script, &[("POWERCUT_FAIL_SYNC_AFTER", "2")]);
    assert_eq!(cut.kept(), texts(&[("1.log", "a\0c"), ("2.txt", "t")]));
}

#[test]
fn torn_writes_leave_some_sectors_and_never_harm_synced_ones() {
    let cut = Cut::new();
    let old = vec![b'o'; 64 * 512];
    fs::write(cut.data.join("a"), &old).unwrap();
    let new = "n".repeat(48 * 512);
    cut.run(&format!("patch a 0 {new}; sync a; patch a {} {new}", 32 * 512), &[("POWERCUT_TORN", "7")]);
    let kept = fs::read(cut.twin.join("a")).unwrap();
    assert!(kept.len() > 64 * 512 && kept.len() <= 80 * 512, "{} bytes", kept.len());
    assert!(kept[..48 * 512].iter().all(|&byte| byte == b'n'), "synced bytes are whole");
    let sectors = kept[48 * 512..].chunks(512);
    assert!(
        sectors.clone().any(|sector| sector[0] == b'n') && sectors.clone().any(|sector| sector[0] != b'n')
    );
    assert!(sectors.clone().all(|sector| sector.iter().all(|byte| *byte == sector[0])), "sectors are whole");
}

#[test]
fn a_restart_keeps_the_difference_between_written_and_synced() {
    let cut = Cut::new();
    cut.run("write a 0 1; sync a; write b 0 1; sync b; mkdir d; write d/c 0 1; sync d/c; syncdir .", &[]);
    cut.run("append a 2; rename b e; syncdir d; mkdir f; write f/g 0 1; sync f/g; syncdir f", &[]);
    assert_eq!(cut.kept(), texts(&[("a", "1"), ("b", "1"), ("d/", ""), ("d/c", "1")]));
    cut.run("sync e; append e lost", &[]);
    assert_eq!(cut.kept(), texts(&[("a", "1"), ("b", "1"), ("d/", ""), ("d/c", "1")]));
    cut.run("sync a; syncdir .", &[]);
    let expected = [("a", "12"), ("d/", ""), ("d/c", "1"), ("e", "1"), ("f/", ""), ("f/g", "1")];
    assert_eq!(cut.kept(), texts(&expected));
}

#[test]
fn a_twin_of_other_origin_is_refused() {
    let cut = Cut::new();
    fs::create_dir(&cut.twin).unwrap();
    fs::write(cut.twin.join("x"), "x").unwrap();
    let output = Command::new("/bin/true")
        .env("LD_PRELOAD", library())
        .env("POWERCUT_DIR", &cut.data)
        .env("POWERCUT_TWIN", &cut.twin)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(97));
    assert!(String::from_utf8_lossy(&output.stderr).contains("was not made by this library"));
}

#[test]
fn acknowledged_appends_of_many_threads_survive() {
    let cut = Cut::new();
    let said = cut.run("threads 4 log", &[]);
    let acked: Vec<&str> = said.lines().filter_map(|line| line.strip_prefix("acked ")).collect();
    assert!(acked.len() > 100, "only {} acks", acked.len());
    let kept = String::from_utf8(cut.kept().remove("log").unwrap()).unwrap();
    let kept: std::collections::BTreeSet<&str> = kept.lines().collect();
    for line in acked {
        assert!(kept.contains(line), "{line} was synced and is gone");
    }
}

#[test]
fn random_operations_leave_what_the_model_says() {
    for round in 0..8 {
        let seed: u64 = rand::rng().random();
        println!("round {round} seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let cut = Cut::new();
        let mut model = Model::new();
        // Each part is a process of its own over what the one before left, killed.
        for part in 0..3 {
            let ops: Vec<Op> = (0..200).map(|_| model.step(&mut random)).collect();
            let text = ops.iter().map(Op::to_string).collect::<Vec<_>>().join("; ");
            cut.run(&text, &[]);
            assert_eq!(cut.kept(), model.durable(), "seed {seed} part {part}: {text}");
            assert_eq!(tree(&cut.data), model.live(), "seed {seed} part {part}: the live tree");
        }
    }
}
