//! Deaths at a chosen call, a disk of a chosen size, slow syncs, and a disk that lies about logs only.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Cut, library, texts, tree};

/// Runs `script`, which `rule` must end before its end; `live` is then in the directory and `kept` on the disk.
fn check_kill(rule: &str, script: &str, live: &[(&str, &str)], kept: &[(&str, &str)]) {
    let cut = Cut::new();
    let (status, said) = cut.end(script, &[("POWERCUT_KILL", rule)]);
    assert_eq!(status.signal(), Some(libc::SIGKILL), "{rule} in {script}:\n{said}");
    assert_eq!(tree(&cut.data), texts(live), "the live tree after {rule} in {script}");
    assert_eq!(cut.kept(), texts(kept), "the twin after {rule} in {script}");
}

/// Runs `script` on a disk of `size` bytes.
fn on_a_disk(size: u64, script: &str) {
    let cut = Cut::new();
    let disk = cut.data.with_file_name("disk");
    fs::write(&disk, size.to_le_bytes()).unwrap();
    cut.run(script, &[("POWERCUT_SPACE", disk.to_str().unwrap())]);
}

#[test]
fn the_process_dies_before_or_after_the_chosen_call() {
    let script =
        "append 1.log a; syncdir .; sync 1.log; append 1.log b; sync 1.log; append 1.log c; sync 1.log";
    check_kill("before:sync:*.log:2", script, &[("1.log", "ab")], &[("1.log", "a")]);
    check_kill("after:sync:*.log:2", script, &[("1.log", "ab")], &[("1.log", "ab")]);
    check_kill("before:write:1.log:3", script, &[("1.log", "ab")], &[("1.log", "ab")]);
    check_kill("after:write:1.*:3", script, &[("1.log", "abc")], &[("1.log", "ab")]);
    check_kill("before:create:*:1", script, &[], &[]);
}

#[test]
fn each_operation_can_be_chosen() {
    let script = "write a 0 12; sync a; mkdir d; link a d/b; truncate a 1; rename a c; unlink c; syncdir .";
    let before = [("a", "12"), ("d/", ""), ("d/b", "12")];
    check_kill("before:mkdir:d:1", script, &[("a", "12")], &[]);
    check_kill("after:mkdir:*:1", script, &[("a", "12"), ("d/", "")], &[]);
    check_kill("before:link:d/*:1", script, &before[..2], &[]);
    check_kill("after:link:d/*:1", script, &before, &[]);
    check_kill("before:truncate:a:1", script, &before, &[]);
    check_kill("after:truncate:a:1", script, &[("a", "1"), ("d/", ""), ("d/b", "1")], &[]);
    check_kill("before:rename:c:1", script, &[("a", "1"), ("d/", ""), ("d/b", "1")], &[]);
    check_kill("after:rename:c:1", script, &[("c", "1"), ("d/", ""), ("d/b", "1")], &[]);
    check_kill("before:unlink:c:1", script, &[("c", "1"), ("d/", ""), ("d/b", "1")], &[]);
    check_kill("after:unlink:c:1", script, &[("d/", ""), ("d/b", "1")], &[]);
}

#[test]
fn a_rule_that_does_not_fit_kills_nobody() {
    for rule in ["before:sync:*.sst:1", "before:sync:*.log:3", "after:unlink:*:1", "before:sync:log:1"] {
        let cut = Cut::new();
        cut.run("append 1.log a; syncdir .; sync 1.log; sync 1.log", &[("POWERCUT_KILL", rule)]);
        assert_eq!(cut.kept(), texts(&[("1.log", "a")]), "{rule}");
    }
}

#[test]
fn a_bad_order_ends_the_process() {
    let orders = [
        ("POWERCUT_KILL", "before:sync:*.log"),
        ("POWERCUT_KILL", "before:read:*:1"),
        ("POWERCUT_KILL", "during:sync:*:1"),
        ("POWERCUT_KILL", "before:sync:*:0"),
        ("POWERCUT_MODE", "honest"),
        ("POWERCUT_SPACE", "/no/such/file"),
        ("POWERCUT_SPACE", "/dev/null"),
        ("POWERCUT_SYNC_DELAY_US", "soon"),
    ];
    for (name, value) in orders {
        let cut = Cut::new();
        let mut command = Command::new("/bin/true");
        command.env("LD_PRELOAD", library()).env("POWERCUT_DIR", &cut.data).env("POWERCUT_TWIN", &cut.twin);
        let output = command.env(name, value).output().unwrap();
        assert_eq!(output.status.code(), Some(97), "{name}={value}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(name), "{name}={value}");
    }
}

#[test]
fn a_disk_that_lies_about_logs_keeps_everything_else() {
    let cut = Cut::new();
    let script = "append 1.log a; append 2.sst b; syncdir .; sync 1.log; datasync 1.log; sync 2.sst";
    cut.run(script, &[("POWERCUT_MODE", "lie-logs")]);
    assert_eq!(cut.kept(), texts(&[("1.log", ""), ("2.sst", "b")]));
}

#[test]
fn a_full_disk_takes_what_fits_and_refuses_the_rest() {
    // Three blocks of 4096 bytes: one each for two files, one to grow into.
    on_a_disk(
        12288,
        "free 12288; create a; free 8192; create b; free 4096; zeros a 8192; free 0; nospace zeros a 1",
    );
    on_a_disk(
        12288,
        "part a 20000 12288; nospace append a x; nospace create b; nospace mkdir d; patch a 0 over",
    );
    on_a_disk(12288, "nospace copyin a 20000; free 0");
}

#[test]
fn reserved_space_counts_until_it_is_cut_off() {
    on_a_disk(12288, "reserve a 12000; free 0; append a x; truncate a 1; free 8192; nospace reserve b 12288");
    on_a_disk(12288, "allocate a 8192; free 4096; rawreserve a 12288; free 0; nospace append b x");
    on_a_disk(12288, "truncate a 100000; free 8192; patch a 0 x; free 8192");
}

#[test]
fn removing_truncating_and_replacing_give_space_back() {
    on_a_disk(8192, "zeros a 8192; nospace create b; unlink a; free 8192; zeros b 8192; create b; free 4096");
    on_a_disk(
        8192,
        "append a 1; append b 2; free 0; rename a b; free 4096; mkdir d; free 0; rmdir d; free 4096",
    );
    on_a_disk(8192, "append a 1; link a b; unlink a; free 4096; unlink b; free 8192");
}

#[test]
fn the_disk_may_shrink_and_grow_while_the_process_runs() {
    on_a_disk(
        1 << 20,
        "zeros a 8192; disk 4096; free 0; nospace zeros a 1; patch a 0 over; disk 16384; free 8192; zeros a 8192",
    );
}

#[test]
fn what_exists_at_the_start_occupies_the_disk() {
    let cut = Cut::new();
    fs::create_dir(cut.data.join("d")).unwrap();
    fs::write(cut.data.join("d/old"), [1; 5000]).unwrap();
    let disk = cut.data.with_file_name("disk");
    fs::write(&disk, 16384_u64.to_le_bytes()).unwrap();
    cut.run("free 4096; unlink d/old; free 12288", &[("POWERCUT_SPACE", disk.to_str().unwrap())]);
}

#[test]
fn syncs_take_longer_on_order() {
    let cut = Cut::new();
    let start = now();
    let script = "append a 1; sync a; datasync a; syncdir .; sync a";
    cut.run(script, &[("POWERCUT_SYNC_DELAY_US", "100000")]);
    // The directory itself is the disk's root; three syncs are of a file below it.
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert_eq!(cut.kept(), texts(&[("a", "1")]));
}

#[expect(clippy::disallowed_methods, reason = "a test has no other clock")]
fn now() -> Instant {
    Instant::now()
}
