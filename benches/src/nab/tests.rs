use std::path::PathBuf;
use std::process::Command;

use super::scorer::Worth;
use super::*;

/// The published scores of two detectors, from the result files beside the corpus.
#[test]
fn the_scorer_gives_two_detectors_their_published_scores() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else {
        println!("skipped: {FOLDER} does not say where the corpus is");
        return;
    };
    let corpus = corpus::read(&folder).unwrap();
    let check = |detector: &str, expected: [f64; 3]| {
        let found = [0, 1, 2].map(|profile| published(&folder, detector, &corpus, profile));
        for (found, expected) in found.into_iter().zip(expected) {
            assert!((found - expected).abs() < 0.01, "{detector}: {found}, published {expected}");
        }
    };
    check("ARTime", [74.85, 65.15, 80.36]);
    check("relativeEntropy", [54.64, 47.60, 58.84]);
}

/// The best score over all thresholds that occur.
fn published(folder: &Path, detector: &str, corpus: &[Series], profile: usize) -> f64 {
    let profile = &PROFILES[profile];
    let mut rows = Vec::new();
    for (number, series) in corpus.iter().enumerate() {
        let (group, file) = series.name.split_once('/').unwrap();
        let path = folder.join(format!("results/{detector}/{group}/{detector}_{file}.gz"));
        let unpacked = Command::new("gzip").arg("-dc").arg(&path).output().unwrap();
        let text = String::from_utf8(unpacked.stdout).unwrap();
        let head = text.lines().next().unwrap();
        let column = head.split(',').position(|name| name == "anomaly_score").unwrap();
        for (row, line) in text.lines().skip(1).enumerate() {
            let score: f64 = line.split(',').nth(column).unwrap().parse().unwrap();
            rows.push((score, number, row));
        }
    }
    rows.sort_by(|one, other| other.0.total_cmp(&one.0));
    let windows: u32 = corpus.iter().map(|series| u32::try_from(series.windows.count()).unwrap()).sum();
    let mut sum = Tally { missed: windows, ..Tally::default() };
    let mut best: Vec<Vec<f64>> =
        corpus.iter().map(|series| vec![f64::NAN; series.windows.count()]).collect();
    let (mut most, mut last) = (sum.score(profile), f64::NAN);
    for (score, number, row) in rows {
        if score != last {
            (most, last) = (most.max(sum.score(profile)), score);
        }
        match corpus[number].windows.worth(row) {
            Worth::Unscored => {}
            Worth::False(cost) => sum.false_cost += cost,
            Worth::Hit(window, worth) => {
                let known = &mut best[number][window];
                if known.is_nan() {
                    (sum.found, sum.missed) = (sum.found + 1, sum.missed - 1);
                    sum.earned += worth;
                    *known = worth;
                } else if worth > *known {
                    sum.earned += worth - *known;
                    *known = worth;
                }
            }
        }
    }
    most.max(sum.score(profile))
}

#[test]
fn work_is_done_in_parallel_and_comes_back_in_order() {
    assert_eq!(in_parallel(7, |number| number * number), [0, 1, 4, 9, 16, 25, 36]);
}
