//! What the disk costs by itself: append 4 KiB and fdatasync, in the folder the server writes to and in the same
//! run. An acknowledgement that waits for a sync cannot be faster than this.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use crate::clock::now;
use crate::realtime;

/// Bytes of one append.
pub const APPEND_BYTES: usize = 4096;

/// Appends and syncs `times` times in `folder`; the milliseconds each took. The file is removed afterwards.
///
/// # Errors
/// The folder cannot be written to.
pub fn run(folder: &Path, times: usize) -> io::Result<Vec<f64>> {
    let path = folder.join("probe");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let block = [0x5a; APPEND_BYTES];
    let mut samples = Vec::with_capacity(times);
    for _ in 0..times {
        let start = now();
        file.write_all(&block)?;
        file.sync_data()?;
        samples.push(start.elapsed().as_secs_f64() * 1e3);
    }
    drop(file);
    fs::remove_file(&path)?;
    Ok(samples)
}

/// The same on a thread of its own with the committer's priority; and whether it got that.
///
/// # Errors
/// The folder cannot be written to, or there is no thread.
pub fn run_as_committer(folder: &Path, times: usize) -> io::Result<(Vec<f64>, bool)> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("probe".to_owned());
        let probe = thread.spawn_scoped(scope, || {
            let realtime = realtime::ask();
            run(folder, times).map(|samples| (samples, realtime))
        })?;
        probe.join().map_err(|_| io::Error::other("the probe panicked"))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_measures_each_append_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(run(folder.path(), 3).unwrap().len(), 3);
        assert_eq!(run_as_committer(folder.path(), 2).unwrap().0.len(), 2);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
