//! What the environment says. A value that cannot be understood ends the process: a simulation that is
//! silently off would make every test with it pass.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::kill::Rule;

/// Which syncs count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Only what was synced is durable.
    Strict,
    /// A sync succeeds and makes nothing durable.
    Lie,
    /// The same for files whose name ends in `.log`; everything else is as in `Strict`.
    LieLogs,
}

#[derive(Debug)]
pub(crate) struct Settings {
    /// `POWERCUT_DIR`: the directory that is watched.
    pub(crate) dir: PathBuf,
    /// `POWERCUT_TWIN`: the directory that becomes what the disk holds.
    pub(crate) twin: PathBuf,
    /// `POWERCUT_MODE`.
    pub(crate) mode: Mode,
    /// `POWERCUT_FAIL_SYNC_AFTER`: this sync of a `.log` file, counted from 1, returns EIO.
    pub(crate) fail_sync: Option<u64>,
    /// `POWERCUT_TORN`: seed for sectors that reach the disk before their sync.
    pub(crate) torn: Option<u64>,
    /// `POWERCUT_KILL`: the call the process does not survive.
    pub(crate) kill: Option<Rule>,
    /// `POWERCUT_SPACE`: a file with the size of the disk.
    pub(crate) space: Option<PathBuf>,
    /// `POWERCUT_SYNC_DELAY_US`: how much longer each sync takes.
    pub(crate) sync_delay: Option<Duration>,
}

impl Settings {
    /// `None` without `POWERCUT_DIR`.
    pub(crate) fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Settings>, String> {
        let Some(dir) = variable("POWERCUT_DIR") else { return Ok(None) };
        let Some(twin) = variable("POWERCUT_TWIN") else {
            return Err("POWERCUT_DIR is set without POWERCUT_TWIN".to_owned());
        };
        let mode = match variable("POWERCUT_MODE") {
            None => Mode::Strict,
            Some(word) if word == "strict" => Mode::Strict,
            Some(word) if word == "lie" => Mode::Lie,
            Some(word) if word == "lie-logs" => Mode::LieLogs,
            Some(word) => return Err(format!("POWERCUT_MODE={} (strict, lie or lie-logs)", word.display())),
        };
        let number = |name: &str| match variable(name) {
            None => Ok(None),
            Some(word) => {
                let parsed = word.to_str().and_then(|word| word.parse::<u64>().ok());
                parsed.map(Some).ok_or_else(|| format!("{name}={} (a number)", word.display()))
            }
        };
        let kill = match variable("POWERCUT_KILL") {
            None => None,
            Some(text) => {
                let rule = text.to_str().and_then(Rule::parse);
                Some(rule.ok_or_else(|| {
                    format!("POWERCUT_KILL={} (before|after:OPERATION:PATTERN:N)", text.display())
                })?)
            }
        };
        Ok(Some(Settings {
            dir: dir.into(),
            twin: twin.into(),
            mode,
            fail_sync: number("POWERCUT_FAIL_SYNC_AFTER")?,
            torn: number("POWERCUT_TORN")?,
            kill,
            space: variable("POWERCUT_SPACE").map(PathBuf::from),
            sync_delay: number("POWERCUT_SYNC_DELAY_US")?.map(Duration::from_micros),
        }))
    }
}
