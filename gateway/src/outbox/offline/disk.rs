//! What a directory takes on the disk, by purpose.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::Serialize;

use super::super::directory::{DATABASE, QUARANTINE};

/// Bytes allocated on the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct DiskUse {
    /// Files of the lanes and of `meta`.
    pub files: u64,
    /// The write-ahead log.
    pub log: u64,
    /// The database's own book-keeping.
    pub manifest: u64,
    /// Kept evidence of incidents.
    pub quarantine: u64,
    /// Everything else, such as the ballast and logs that were set aside.
    pub other: u64,
}

/// The unit of [`std::os::unix::fs::MetadataExt::blocks`], whatever the file system's own is.
const BLOCK_BYTES: u64 = 512;

impl DiskUse {
    /// Measures `directory`. Files that vanish meanwhile count as nothing.
    ///
    /// # Errors
    ///
    /// When a directory cannot be listed.
    pub fn measure(directory: &Path) -> io::Result<Self> {
        let mut found = Self::default();
        let mut folders = vec![directory.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let path = entry?.path();
                let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
                if metadata.is_dir() {
                    folders.push(path);
                } else {
                    let below = path.strip_prefix(directory).unwrap_or(&path);
                    *found.part(below) += metadata.blocks() * BLOCK_BYTES;
                }
            }
        }
        Ok(found)
    }

    /// All of it.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.files + self.log + self.manifest + self.quarantine + self.other
    }

    fn part(&mut self, path: &Path) -> &mut u64 {
        let extension = path.extension().unwrap_or_default();
        if path.starts_with(QUARANTINE) {
            &mut self.quarantine
        } else if !path.starts_with(DATABASE) {
            &mut self.other
        } else if extension == "sst" {
            &mut self.files
        } else if extension == "log" {
            &mut self.log
        } else {
            &mut self.manifest
        }
    }
}
