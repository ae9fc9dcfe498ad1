//! What a measurement cost this process: processor time and bytes written, by the kernel's own accounts.
//!
//! RocksDB flushes in threads named `rocksdb:high…` and compacts in `rocksdb:low…`, so the kernel can tell
//! their bytes apart without asking RocksDB.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use testkit::process::Usage;

/// Sums since the process began.
#[derive(Debug, Clone, Copy, Default)]
pub struct Accounts {
    /// Processor time, generator included.
    pub cpu: Duration,
    /// Bytes that dirtied the page cache: what goes to the device. Journal blocks of the file system are not in it.
    pub device_bytes: u64,
    /// Bytes that RocksDB's flush threads wrote.
    pub flush_bytes: u64,
    /// Bytes that RocksDB's compaction threads wrote.
    pub compaction_bytes: u64,
}

impl Accounts {
    /// Reads them now.
    ///
    /// # Errors
    /// The kernel keeps no such accounts.
    pub fn now() -> io::Result<Self> {
        let mut accounts = Self {
            cpu: Usage::of(std::process::id())?.cpu,
            device_bytes: field(&fs::read_to_string("/proc/self/io")?, "write_bytes")?,
            ..Self::default()
        };
        for task in fs::read_dir("/proc/self/task")? {
            let task = task?.path();
            // Tasks may end between the listing and the look.
            let Ok(name) = fs::read_to_string(task.join("comm")) else { continue };
            let Ok(io) = fs::read_to_string(task.join("io")) else { continue };
            if name.starts_with("rocksdb:high") {
                accounts.flush_bytes += field(&io, "wchar")?;
            } else if name.starts_with("rocksdb:low") {
                accounts.compaction_bytes += field(&io, "wchar")?;
            }
        }
        Ok(accounts)
    }

    /// What was added since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            device_bytes: self.device_bytes.saturating_sub(before.device_bytes),
            flush_bytes: self.flush_bytes.saturating_sub(before.flush_bytes),
            compaction_bytes: self.compaction_bytes.saturating_sub(before.compaction_bytes),
        }
    }
}

fn field(io: &str, name: &str) -> io::Result<u64> {
    let found = io.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok());
    found.ok_or_else(|| io::Error::other(format!("the kernel does not account for {name}")))
}

/// Bytes that the files below `folder` take on the disk; of those whose name ends in `suffix` only.
///
/// # Errors
/// The folder cannot be read. Files that vanish meanwhile count nothing.
pub fn disk_bytes(folder: &Path, suffix: &str) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(metadata) = entry.metadata() else { continue };
        if metadata.is_dir() {
            bytes += disk_bytes(&entry.path(), suffix)?;
        } else if entry.file_name().to_string_lossy().ends_with(suffix) {
            // Blocks, not length: logs are allocated ahead.
            bytes += metadata.blocks() * 512;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_accounts_are_read() {
        let text = "rchar: 1\nwchar: 22\nwrite_bytes: 333\ncancelled_write_bytes: 4\n";
        assert_eq!(field(text, "wchar").unwrap(), 22);
        assert_eq!(field(text, "write_bytes").unwrap(), 333);
        assert!(field(text, "bytes").is_err());
    }

    #[test]
    fn written_bytes_are_counted_and_found_on_the_disk() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let before = Accounts::now().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("inner/a.log"), vec![1; 1 << 20]).unwrap();
        fs::write(folder.path().join("b.sst"), vec![1; 1 << 16]).unwrap();
        fs::File::open(folder.path().join("inner/a.log")).unwrap().sync_all().unwrap();
        fs::File::open(folder.path().join("b.sst")).unwrap().sync_all().unwrap();
        assert_eq!(disk_bytes(folder.path(), ".log").unwrap(), 1 << 20);
        assert_eq!(disk_bytes(folder.path(), "").unwrap(), (1 << 20) + (1 << 16));
        let spent = Accounts::now().unwrap().since(&before);
        assert!(spent.device_bytes >= (1 << 20), "{spent:?}");
    }
}
