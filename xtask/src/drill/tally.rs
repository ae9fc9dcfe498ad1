//! What all episodes of a drill found together.

use std::collections::BTreeMap;

use testkit::report::Report;

use super::episode::Played;

/// Sums over episodes.
#[derive(Debug, Default)]
pub(super) struct Tally {
    episodes: u64,
    failed: Vec<u32>,
    acked: u64,
    lost: u64,
    duplicated: u64,
    reordered: u64,
    unexpected: u64,
    deaths: u64,
    /// Name of a point -> how often it was ordered and reached.
    points: BTreeMap<&'static str, (u64, u64)>,
}

impl Tally {
    pub(super) fn add(&mut self, number: u32, played: &Played, deaths: usize) {
        let report = &played.outcome.report;
        self.deaths += deaths as u64;
        self.acked += report.acked;
        self.lost += report.lost.unwrap_or(0);
        self.duplicated += report.duplicated.unwrap_or(0);
        self.reordered += report.reordered.unwrap_or(0);
        self.unexpected += report.unexpected.unwrap_or(0);
        for (name, reached) in &played.points {
            let (ordered, met) = self.points.entry(name).or_default();
            *ordered += 1;
            *met += u64::from(*reached);
        }
        self.ended(number, played.outcome.broken().is_empty());
    }

    /// An episode that could not be played to its end.
    pub(super) fn broke_off(&mut self, number: u32) {
        self.ended(number, false);
    }

    fn ended(&mut self, number: u32, kept: bool) {
        self.episodes += 1;
        if !kept {
            self.failed.push(number);
        }
    }

    /// The numbers of the episodes in which a promise was broken.
    pub(super) fn failed(&self) -> &[u32] {
        &self.failed
    }

    /// One line for each point: how often it was reached.
    pub(super) fn points(&self) -> Vec<String> {
        let line = |(name, (ordered, met)): (&&str, &(u64, u64))| match met {
            0 => format!("point {name}: never reached in {ordered}"),
            _ => format!("point {name}: reached {met} of {ordered} times"),
        };
        self.points.iter().map(line).collect()
    }

    /// The last line.
    pub(super) fn summary(&self, seed: u64) -> String {
        let Tally { episodes, deaths, acked, lost, duplicated, reordered, unexpected, .. } = self;
        format!(
            "episodes {episodes}, failed {}, deaths {deaths}, acked {acked}, lost {lost}, duplicated {duplicated}, \
             reordered {reordered}, unexpected {unexpected}, seed {seed}",
            self.failed.len()
        )
    }
}

/// What one episode found.
pub(crate) fn line(report: &Report) -> String {
    let count = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
    format!(
        "acked {}, lost {}, duplicated {}, reordered {}, resent {}",
        report.acked,
        count(report.lost),
        count(report.duplicated),
        count(report.reordered),
        count(report.resent)
    )
}
