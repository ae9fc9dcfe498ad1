//! Starts a process so that a kill is a power cut: finds `libpowercut.so` and prepares what it needs.
//!
//! The library keeps, below the twin directory, what the disk would hold: data that was synced under names
//! that were synced. Start the child with [`PowerCut::environment`], kill it, then open the twin with a fresh
//! process without that environment. `docs/power-cut.md` says what is modelled.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which syncs make data durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// What was synced survives, nothing else.
    Strict,
    /// Syncs succeed and keep nothing: the negative control, in which a promise of durability must break.
    Lie,
    /// Syncs of `.log` files succeed and keep nothing, everything else is as in `Strict`: what a program leaves
    /// that does not sync its log.
    LieLogs,
}

/// Why a power cut cannot be simulated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The library was not built, or lies elsewhere.
    #[error(
        "{LIBRARY} is in none of {searched:?}: build it with `cargo build --release --workspace --all-targets`"
    )]
    NoLibrary { searched: Vec<PathBuf> },
    /// The twin holds what an earlier process left.
    #[error("{} is not empty: each process needs a fresh twin", .0.display())]
    TwinInUse(PathBuf),
    /// A directory could not be made or read.
    #[error("cannot prepare {}: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
}

/// A prepared power cut for one process.
#[derive(Clone, Debug)]
pub struct PowerCut {
    library: PathBuf,
    data: PathBuf,
    twin: PathBuf,
    mode: Mode,
    fail_sync: Option<u64>,
    torn: Option<u64>,
    kill: Option<String>,
    space: Option<PathBuf>,
    sync_delay: Option<Duration>,
}

/// A pretended disk for [`PowerCut::on`]: a file with its size, which may change while the process runs.
#[derive(Clone, Debug)]
pub struct Disk {
    file: PathBuf,
}

impl Disk {
    /// Writes the size into `file`, which must not lie in the directory that is watched.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn new(file: &Path, bytes: u64) -> io::Result<Disk> {
        fs::write(file, bytes.to_le_bytes())?;
        Ok(Disk { file: file.to_owned() })
    }

    /// Changes the size: a smaller one is a disk that others have filled.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn resize(&self, bytes: u64) -> io::Result<()> {
        // In place: the process has mapped this very file.
        fs::OpenOptions::new().write(true).open(&self.file)?.write_all_at(&bytes.to_le_bytes(), 0)
    }
}

impl PowerCut {
    /// Makes both directories if they are missing. What `data` holds when the process starts counts as durable.
    ///
    /// # Errors
    /// The library is not found, the twin is not empty, or a directory cannot be made.
    pub fn prepare(data: &Path, twin: &Path, mode: Mode) -> Result<PowerCut, Error> {
        let library = locate(&places())?;
        for path in [data, twin] {
            fs::create_dir_all(path).map_err(|source| Error::Directory { path: path.to_owned(), source })?;
        }
        let mut held =
            fs::read_dir(twin).map_err(|source| Error::Directory { path: twin.to_owned(), source })?;
        if held.next().is_some() {
            return Err(Error::TwinInUse(twin.to_owned()));
        }
        Ok(PowerCut {
            library,
            data: data.to_owned(),
            twin: twin.to_owned(),
            mode,
            fail_sync: None,
            torn: None,
            kill: None,
            space: None,
            sync_delay: None,
        })
    }

    /// The process kills itself at a call: `before|after:OPERATION:PATTERN:N`, as `docs/power-cut.md` says.
    #[must_use]
    pub fn killed(self, rule: &str) -> PowerCut {
        PowerCut { kill: Some(rule.to_owned()), ..self }
    }

    /// The directory lies on a disk of its own.
    #[must_use]
    pub fn on(self, disk: &Disk) -> PowerCut {
        PowerCut { space: Some(disk.file.clone()), ..self }
    }

    /// Every sync takes longer; counted in whole microseconds.
    #[must_use]
    pub fn delayed(self, by: Duration) -> PowerCut {
        PowerCut { sync_delay: Some(by), ..self }
    }

    /// The sync of a `.log` file with this number, counted from 1, returns EIO once.
    #[must_use]
    pub fn failing_sync(self, number: u64) -> PowerCut {
        PowerCut { fail_sync: Some(number), ..self }
    }

    /// About one in four sectors (512 bytes) of unsynced writes survives too, chosen by `seed`.
    #[must_use]
    pub fn torn(self, seed: u64) -> PowerCut {
        PowerCut { torn: Some(seed), ..self }
    }

    /// The environment of the process under test. It must be given to that process itself, not to a wrapper
    /// that stays alive beside it. A process started again with it, after a kill, goes on with the same twin:
    /// what the first had not synced is still not durable.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mode = match self.mode {
            Mode::Strict => "strict",
            Mode::Lie => "lie",
            Mode::LieLogs => "lie-logs",
        };
        let mut pairs = vec![
            ("LD_PRELOAD", self.library.clone().into_os_string()),
            ("POWERCUT_DIR", self.data.clone().into_os_string()),
            ("POWERCUT_TWIN", self.twin.clone().into_os_string()),
            ("POWERCUT_MODE", mode.into()),
        ];
        pairs.extend(self.fail_sync.map(|number| ("POWERCUT_FAIL_SYNC_AFTER", number.to_string().into())));
        pairs.extend(self.torn.map(|seed| ("POWERCUT_TORN", seed.to_string().into())));
        pairs.extend(self.kill.as_ref().map(|rule| ("POWERCUT_KILL", rule.into())));
        pairs.extend(self.space.as_ref().map(|file| ("POWERCUT_SPACE", file.into())));
        let delay = self.sync_delay.map(|delay| delay.as_micros().to_string().into());
        pairs.extend(delay.map(|micros| ("POWERCUT_SYNC_DELAY_US", micros)));
        pairs
    }

    /// What the disk holds once the process was killed.
    pub fn twin(&self) -> &Path {
        &self.twin
    }
}

const LIBRARY: &str = "libpowercut.so";

/// Where the library may lie, best first.
fn places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    places.extend(std::env::var_os("PENSTOCK_BIN_DIR").map(PathBuf::from));
    if let Ok(exe) = std::env::current_exe() {
        places.extend(exe.ancestors().skip(1).take(3).map(Path::to_owned));
    }
    places.extend(std::env::var_os("CARGO_TARGET_DIR").map(|target| PathBuf::from(target).join("release")));
    places.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release"));
    places
}

fn locate(places: &[PathBuf]) -> Result<PathBuf, Error> {
    let found = places.iter().map(|dir| dir.join(LIBRARY)).find_map(|path| path.canonicalize().ok());
    found.ok_or_else(|| Error::NoLibrary { searched: places.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_with_the_library_wins() {
        let home = tempfile::tempdir().unwrap();
        let dirs = ["empty", "second", "third"].map(|name| home.path().join(name));
        for dir in &dirs {
            fs::create_dir(dir).unwrap();
        }
        assert!(matches!(locate(&dirs), Err(Error::NoLibrary { searched }) if searched == dirs));
        fs::write(dirs[1].join(LIBRARY), "").unwrap();
        fs::write(dirs[2].join(LIBRARY), "").unwrap();
        assert_eq!(locate(&dirs).unwrap(), dirs[1].canonicalize().unwrap().join(LIBRARY));
    }

    #[test]
    fn the_environment_says_what_was_asked_for() {
        let cut = PowerCut {
            library: "/lib/libpowercut.so".into(),
            data: "/data".into(),
            twin: "/twin".into(),
            mode: Mode::Lie,
            fail_sync: None,
            torn: None,
            kill: None,
            space: None,
            sync_delay: None,
        };
        let text = |cut: &PowerCut| {
            let pairs = cut.environment().into_iter();
            pairs.map(|(name, value)| format!("{name}={}", value.display())).collect::<Vec<_>>().join(" ")
        };
        let expected =
            "LD_PRELOAD=/lib/libpowercut.so POWERCUT_DIR=/data POWERCUT_TWIN=/twin POWERCUT_MODE=lie";
        assert_eq!(text(&cut), expected);
        let expected = format!("{expected} POWERCUT_FAIL_SYNC_AFTER=3 POWERCUT_TORN=9");
        let cut = cut.failing_sync(3).torn(9);
        assert_eq!(text(&cut), expected);
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("disk");
        let disk = Disk::new(&file, 1 << 20).unwrap();
        disk.resize(4096).unwrap();
        assert_eq!(fs::read(&file).unwrap(), 4096_u64.to_le_bytes());
        let cut = cut.killed("before:sync:*.log:2").on(&disk).delayed(Duration::from_millis(2));
        let expected = format!(
            "{expected} POWERCUT_KILL=before:sync:*.log:2 POWERCUT_SPACE={} POWERCUT_SYNC_DELAY_US=2000",
            file.display()
        );
        assert_eq!(text(&cut), expected);
    }
}
