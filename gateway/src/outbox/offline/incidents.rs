//! Incidents: what was found damaged or missing, as reports in `quarantine/`, and which of them an
//! operator has acknowledged.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::super::directory::QUARANTINE;
use super::Error;
use super::snapshot::check_outbox;

const REPORT: &str = "incident.json";
const ACKNOWLEDGED: &str = "acknowledged";

/// One incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Incident {
    /// The name of its folder: when it was found, in Unix milliseconds.
    pub id: String,
    /// Whether an operator has seen it.
    pub acknowledged: bool,
    /// Its report, or why that cannot be read.
    pub report: Result<Report, String>,
}

/// What `incident.json` says. Fields of later versions are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// When it was found, RFC 3339.
    pub at: String,
    /// The kind of damage.
    pub cause: String,
    /// What is gone.
    pub ranges: Vec<LostRange>,
    /// Whether it is proven that these were acknowledged.
    pub proven: bool,
    /// In words.
    pub detail: String,
}

/// Positions that are gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LostRange {
    /// The lane's name.
    pub lane: String,
    /// The first position.
    pub first: u64,
    /// The last position.
    pub last: u64,
    /// How many.
    pub messages: u64,
}

/// The incidents of `directory`, oldest first.
///
/// # Errors
///
/// When there is no outbox, or the folder cannot be listed.
pub fn list(directory: &Path) -> Result<Vec<Incident>, Error> {
    check_outbox(directory)?;
    let folder = directory.join(QUARANTINE);
    let failed = |source| Error::Io { path: folder.clone(), action: "list the incidents", source };
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let Some(id) = path.file_name().and_then(|name| name.to_str()).filter(|id| is_id(id)) else {
            continue;
        };
        let report = fs::read(path.join(REPORT)).map_err(|error| error.to_string());
        let report = report.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()));
        let acknowledged = path.join(ACKNOWLEDGED).exists();
        found.push(Incident { id: id.to_owned(), acknowledged, report });
    }
    found.sort_by_key(|incident| incident.id.parse::<u64>().unwrap_or(u64::MAX));
    Ok(found)
}

/// Notes that an operator has seen the incident `id`; after a power cut that is still so. Returns
/// whether it was not acknowledged before.
///
/// # Errors
///
/// When there is no such incident, or the file cannot be made durable.
pub fn acknowledge(directory: &Path, id: &str) -> Result<bool, Error> {
    check_outbox(directory)?;
    let folder = directory.join(QUARANTINE).join(id);
    if !is_id(id) || !folder.is_dir() {
        return Err(Error::Refused(format!("there is no incident {id:?}")));
    }
    let path = folder.join(ACKNOWLEDGED);
    let created = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(file) => file.sync_all().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    };
    // Also when it was there: whoever created it may not have come this far.
    let durable = created.and_then(|new| File::open(&folder)?.sync_all().map(|()| new));
    durable.map_err(|source| Error::Io { path, action: "acknowledge the incident", source })
}

/// Whether a name can be an incident's, and names no other place.
fn is_id(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit())
}
