//! `nab`: the learned detector on the Numenta Anomaly Benchmark.
//!
//! The corpus is not part of this project; `PENSTOCK_NAB_DIR` says where it is, and without it the benchmark is left
//! out. The detector sees each series row by row and nothing else: no file's range, no length, no labels.
//!
//! Two figures are told. *In-sample* are the shipped parameters with the thresholds that give most on the whole
//! corpus, as the published scoreboard has it. *Held out* is the honest one: files are split by their number modulo
//! 5; parameters and thresholds are searched on four parts and scored on the fifth, and the five results are added
//! up.

mod corpus;
mod scorer;
mod search;

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use penstock::alerts::learned::Tuning;
use serde::Serialize;

use crate::bars::Bar;
use crate::clock::now;
use crate::machine::Machine;
use corpus::Series;
use scorer::{PROFILES, Tally};
use search::Fit;

/// Says where the corpus is.
pub const FOLDER: &str = "PENSTOCK_NAB_DIR";
const FOLDS: usize = 5;
/// Least standard score of the shipped parameters.
const IN_SAMPLE_MIN: f64 = 62.0;
/// Least standard score on files that parameters were not fitted to.
const HELD_OUT_MIN: f64 = 57.0;

/// Everything one run found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Which benchmark.
    pub benchmark: &'static str,
    /// Where and when.
    pub machine: Machine,
    /// Of the searches.
    pub seed: u64,
    /// Scores of the shipped parameters: standard, low FP, low FN.
    pub in_sample: [f64; 3],
    /// The thresholds they have.
    pub thresholds: [f32; 3],
    /// Windows with an alert at the standard threshold, all windows, rows outside of windows that were alerts.
    pub found: [u32; 3],
    /// Scores on files that parameters were not fitted to.
    pub held_out: [f64; 3],
    /// Standard scores of the folds: fitted, held out.
    pub folds: Vec<(f64, f64)>,
    /// Nanoseconds per measurement, one series after the other.
    pub nanoseconds: f64,
    /// The bars and whether they hold.
    pub bars: Vec<Bar>,
}

/// Runs the benchmark on the corpus in `folder`; with `results`, files in the layout of the benchmark go there.
///
/// # Errors
/// The corpus cannot be read, or the files not be written.
pub fn run(folder: &Path, seed: u64, results: Option<&Path>, progress: fn(&str)) -> Result<Report> {
    let machine = Machine::look(folder);
    let corpus = corpus::read(folder)?;
    let all: Vec<&Series> = corpus.iter().collect();
    progress(&format!("{} series; searches with seed {seed}", all.len()));
    let started = now();
    for series in &all {
        std::hint::black_box(search::scores(&Tuning::SHIPPED, series));
    }
    let nanoseconds = per_row(started.elapsed(), &all);
    let shipped = search::fit_thresholds(&Tuning::SHIPPED, &all);
    let tally = tally(&shipped, 0, &all);
    if let Some(results) = results {
        write_results(results, &shipped, &all)?;
    }
    let folds = in_parallel(FOLDS, |fold| {
        let part = |is_held: bool| {
            let part = all.iter().enumerate().filter(|(number, _)| (number % FOLDS == fold) == is_held);
            part.map(|(_, series)| *series).collect::<Vec<_>>()
        };
        let (held, rest) = (part(true), part(false));
        let fit = search::fit(&rest, seed.wrapping_add(u64::try_from(fold).unwrap_or_default()));
        let tallies = [0, 1, 2].map(|profile| self::tally(&fit, profile, &held));
        progress(&format!(
            "fold {fold}: {:.1} fitted, {:.1} held out",
            fit.scores[0],
            tallies[0].score(&PROFILES[0])
        ));
        (fit, tallies)
    });
    let held_out = [0, 1, 2].map(|profile| {
        let mut sum = Tally::default();
        folds.iter().for_each(|(_, tallies)| sum.add(&tallies[profile]));
        sum.score(&PROFILES[profile])
    });
    let bars = vec![
        Bar::at_least("standard score in-sample", shipped.scores[0], IN_SAMPLE_MIN),
        Bar::at_least("standard score held out", held_out[0], HELD_OUT_MIN),
    ];
    Ok(Report {
        benchmark: "nab",
        machine,
        seed,
        in_sample: shipped.scores,
        thresholds: shipped.thresholds,
        found: [tally.found, tally.found + tally.missed, tally.false_rows],
        held_out,
        folds: folds.iter().map(|(fit, of)| (fit.scores[0], of[0].score(&PROFILES[0]))).collect(),
        nanoseconds,
        bars,
    })
}

impl Report {
    /// Whether every bar holds.
    pub fn pass(&self) -> bool {
        Bar::all(&self.bars)
    }

    /// The run as Markdown.
    ///
    /// # Errors
    /// None: writing into a text does not fail.
    pub fn markdown(&self) -> Result<String> {
        let mut text = format!("{}\n\n", self.machine.line());
        writeln!(text, "| | standard | low FP | low FN |\n|---|---|---|---|")?;
        for (name, [standard, low_fp, low_fn]) in
            [("shipped, in-sample", self.in_sample), ("5-fold held out", self.held_out)]
        {
            writeln!(text, "| {name} | {standard:.2} | {low_fp:.2} | {low_fn:.2} |")?;
        }
        let [found, windows, rows] = self.found;
        writeln!(
            text,
            "\nThreshold {:.3}: {found} of {windows} windows, {rows} rows outside.",
            self.thresholds[0]
        )?;
        write!(text, "Seed {}; folds, fitted and held out:", self.seed)?;
        for (fitted, held) in &self.folds {
            write!(text, " {fitted:.1}/{held:.1}")?;
        }
        writeln!(text, ". {:.0} ns per measurement.", self.nanoseconds)?;
        Bar::write(&self.bars, &mut text)?;
        Ok(text)
    }
}

/// What a fit does on series at its threshold for a profile.
fn tally(fit: &Fit, profile: usize, set: &[&Series]) -> Tally {
    let mut sum = Tally::default();
    for series in set {
        let scores = search::scores(&fit.tuning, series);
        let alerts = search::alerts(&fit.tuning, fit.thresholds[profile], &scores);
        sum.add(&series.windows.tally(alerts.map(|scored| scored.row)));
    }
    sum
}

/// Writes the files that the benchmark's own scorer reads: a row that is an alert has its score, others have 0.
fn write_results(folder: &Path, fit: &Fit, set: &[&Series]) -> Result<()> {
    for series in set {
        let (group, file) = series.name.split_once('/').context("a series has a group")?;
        let folder = folder.join("penstock").join(group);
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let scores = search::scores(&fit.tuning, series);
        let mut alerts = search::alerts(&fit.tuning, fit.thresholds[0], &scores).peekable();
        let mut text = "timestamp,value,anomaly_score,label\n".to_owned();
        for (number, row) in series.rows.iter().enumerate() {
            let score = alerts.next_if(|scored| scored.row == number).map_or(0.0, |scored| scored.score);
            let label = u8::from(series.windows.contains(number));
            writeln!(text, "{},{},{score},{label}", row.stamp, row.value)?;
        }
        let path = folder.join(format!("penstock_{file}"));
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn per_row(time: Duration, set: &[&Series]) -> f64 {
    let rows: u32 = set.iter().map(|series| u32::try_from(series.rows.len()).unwrap_or(u32::MAX)).sum();
    time.as_secs_f64() * 1e9 / f64::from(rows.max(1))
}

/// Calls `work` with 0 to below `count` on every processor, and returns what it gave, in order.
fn in_parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(count));
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..processors.min(count) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let result = work(number);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests;
