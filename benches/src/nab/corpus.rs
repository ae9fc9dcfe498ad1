//! The corpus as it lies on disk: series as CSV, windows as JSON, both unchanged.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::scorer::Windows;

/// A labelled series.
#[derive(Debug, Clone)]
pub(super) struct Series {
    /// Group and file, as in `realKnownCause/nyc_taxi.csv`.
    pub(super) name: String,
    /// Each row: its time as the file writes it, the same in milliseconds, and its value.
    pub(super) rows: Vec<Row>,
    /// Where its anomalies are.
    pub(super) windows: Windows,
}

/// One row of a series.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// The time as the file writes it, as in `2014-07-01 00:30:00`.
    pub(super) stamp: String,
    /// The time in milliseconds since 1970, read as UTC: the files name no zone.
    pub(super) time_ms: u64,
    /// What was measured.
    pub(super) value: f64,
}

/// Reads the corpus; series come in the order of their names, which decides the folds.
///
/// # Errors
/// Something is missing below `folder` or not as the benchmark writes it.
pub(super) fn read(folder: &Path) -> Result<Vec<Series>> {
    let labels = folder.join("labels/combined_windows.json");
    let text = fs::read_to_string(&labels).with_context(|| labels.display().to_string())?;
    let labels: BTreeMap<String, Vec<(String, String)>> = serde_json::from_str(&text)?;
    let series = labels.into_iter().map(|(name, windows)| {
        let path = folder.join("data").join(&name);
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        series(name.clone(), &text, &windows).with_context(|| name)
    });
    series.collect()
}

fn series(name: String, text: &str, windows: &[(String, String)]) -> Result<Series> {
    let rows = text.lines().skip(1).map(|line| {
        let (stamp, value) = line.split_once(',').context("a row has two columns")?;
        let time_ms = milliseconds(stamp)?;
        Ok(Row { stamp: stamp.to_owned(), time_ms, value: value.trim().parse()? })
    });
    let rows: Vec<Row> = rows.collect::<Result<_>>()?;
    let index = |stamp: &str| {
        let time_ms = milliseconds(stamp)?;
        rows.iter().position(|row| row.time_ms == time_ms).context("a window begins and ends at a row")
    };
    let windows = windows.iter().map(|(from, to)| Ok((index(from)?, index(to)?)));
    let windows = Windows::new(rows.len(), windows.collect::<Result<Vec<_>>>()?);
    Ok(Series { name, rows, windows })
}

/// Reads `YYYY-MM-DD hh:mm:ss`, with or without a fraction, which is zero throughout.
fn milliseconds(stamp: &str) -> Result<u64> {
    let fields: Vec<i64> = stamp
        .split(['-', ' ', ':', '.'])
        .map(|field| field.parse().with_context(|| stamp.to_owned()))
        .collect::<Result<_>>()?;
    ensure!(fields.len() >= 6, "{stamp} is no time");
    let (year, month, day) = (fields[0], fields[1], fields[2]);
    // Days since 1970 in the Gregorian calendar, with years that begin in March.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719_469;
    let seconds = ((days * 24 + fields[3]) * 60 + fields[4]) * 60 + fields[5];
    u64::try_from(seconds * 1000).with_context(|| format!("{stamp} is before 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let check = |stamp: &str, seconds: u64| assert_eq!(milliseconds(stamp).unwrap(), seconds * 1000);
        check("1970-01-01 00:00:00", 0);
        check("2014-02-14 14:27:00", 1_392_388_020);
        check("2016-02-29 23:59:59.000000", 1_456_790_399);
        check("2016-03-01 00:00:00", 1_456_790_400);
        assert!(milliseconds("2014-02-14").is_err() && milliseconds("today").is_err());
    }

    #[test]
    fn windows_are_rows() {
        let text =
            "timestamp,value\n2014-02-14 00:00:00,1\n2014-02-14 00:05:00,2.5\n2014-02-14 00:10:00,-3\n";
        let windows = [("2014-02-14 00:05:00.000000".to_owned(), "2014-02-14 00:10:00.000000".to_owned())];
        let series = series("a/b.csv".to_owned(), text, &windows).unwrap();
        assert_eq!(series.windows, Windows::new(3, vec![(1, 2)]));
        assert_eq!(series.rows[2].value, -3.0);
    }
}
