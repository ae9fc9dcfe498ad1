//! Rules against slow models that keep everything they have seen.

use proptest::prelude::*;

use super::{Bench, origin};
use crate::alerts::nouns::{Change, Origin, Subject};

/// One severity of the model: raise above, clear below, for how long.
#[derive(Debug, Clone, Copy)]
struct Level {
    raise: f64,
    clear: f64,
    for_ms: u64,
}

/// What a threshold rule says after each sample, from the whole history of the series.
#[derive(Debug)]
struct Model {
    levels: Vec<Level>,
    min_samples: usize,
    keep_ms: u64,
    history: Vec<(f64, u64)>,
    /// After how many samples which level was last raised and ended.
    raised: Vec<bool>,
}

impl Model {
    /// Which level is raised now.
    fn take(&mut self, value: f64, at_ms: u64) -> Option<usize> {
        if self.history.last().is_some_and(|(_, last)| at_ms < *last) {
            return self.raised.iter().rposition(|raised| *raised);
        }
        self.history.push((value, at_ms));
        // Everything anew, from the first sample on.
        for (place, level) in self.levels.iter().enumerate() {
            let mut raised = false;
            let mut turned = 0;
            for (number, (_, now)) in self.history.iter().enumerate() {
                let run = self.history[turned..=number]
                    .iter()
                    .rev()
                    .take_while(|(value, _)| if raised { *value < level.clear } else { *value > level.raise })
                    .collect::<Vec<_>>();
                let Some((_, first)) = run.last() else { continue };
                let done = if raised {
                    now - first >= self.keep_ms
                } else {
                    now - first >= level.for_ms && run.len() >= self.min_samples
                };
                if done {
                    raised = !raised;
                    turned = number + 1;
                }
            }
            self.raised[place] = raised;
        }
        self.raised.iter().rposition(|raised| *raised)
    }
}

fn seconds(ms: u64) -> String {
    format!("{ms}ms")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn thresholds_do_what_the_whole_history_says(
        for_ms in 0..4_000_u64,
        high_for_ms in 0..4_000_u64,
        keep_ms in 0..4_000_u64,
        min_samples in 1..4_usize,
        values in prop::collection::vec((0..60_u8, 1..2_500_u64, 0..12_u8), 1..80),
    ) {
        let text = format!(
            "[[rule]]\nid = \"r\"\nmetric = \"x\"\nraise = \"> 30\"\nclear = \"< 20\"\nfor = \"{}\"\n\
             keep_firing_for = \"{}\"\nmin_samples = {min_samples}\n\
             critical = {{ raise = \"> 45\", clear = \"< 40\", for = \"{}\" }}",
            seconds(for_ms), seconds(keep_ms), seconds(high_for_ms),
        );
        let mut bench = Bench::new(&text);
        let levels = vec![
            Level { raise: 30.0, clear: 20.0, for_ms },
            Level { raise: 45.0, clear: 40.0, for_ms: high_for_ms },
        ];
        let mut model = Model { levels, min_samples, keep_ms, history: Vec::new(), raised: vec![false; 2] };
        let mut at_ms = 10_000;
        let mut told = None;
        let mut late = 0;
        for (value, step, kind) in values {
            // Some come late, and mean nothing.
            let time = if kind == 0 { at_ms - step.clamp(1, 2) } else { at_ms + step };
            late += u64::from(model.history.last().is_some_and(|(_, last)| time < *last));
            at_ms = at_ms.max(time);
            let edges = bench.device("d", &[("x", f64::from(value), time)]);
            let expected = model.take(f64::from(value), time);
            let name = |level: usize| ["warning", "critical"][level];
            match (told, expected) {
                (before, after) if before == after => prop_assert_eq!(&edges, &[]),
                (None, Some(level)) => {
                    let [edge] = edges.as_slice() else { return Err(TestCaseError::fail("one edge")) };
                    let Change::Raised { severity, started_ms, .. } = edge.change else {
                        return Err(TestCaseError::fail("raised"));
                    };
                    prop_assert_eq!(severity.name(), name(level));
                    // It began with the first of the samples above the limit that led here.
                    let run = model.history.iter().rev().take_while(|(value, _)| *value > 30.0);
                    prop_assert_eq!(run.last().map(|(_, at_ms)| *at_ms), Some(started_ms));
                }
                (Some(_), Some(level)) => {
                    let [edge] = edges.as_slice() else { return Err(TestCaseError::fail("one edge")) };
                    let Change::Severity { severity, .. } = edge.change else {
                        return Err(TestCaseError::fail("severity"));
                    };
                    prop_assert_eq!(severity.name(), name(level));
                }
                (Some(_), None) => {
                    prop_assert_eq!(edges.len(), 1);
                    prop_assert_eq!(edges[0].change, Change::Cleared);
                }
                (None, None) => prop_assert_eq!(&edges, &[]),
            }
            told = expected;
        }
        prop_assert_eq!(bench.evaluator.counts().late, late);
    }

    #[test]
    fn edges_of_every_kind_alternate(
        records in prop::collection::vec(
            (0..4_u8, 0..3_u8, -3..3_i8, 0..8_000_u64, 0..40_u8), 1..300),
    ) {
        let mut bench = Bench::new(super::snapshot::EVERY_KIND);
        let mut now_ms = 1_000_000;
        let mut open = std::collections::BTreeSet::new();
        for (device, metric, value, step, what) in records {
            now_ms += step;
            let mut edges = bench.advance(now_ms);
            let device = ["a", "b", "c", "d"][usize::from(device)];
            let metric = ["x", "y", "z"][usize::from(metric)];
            let class = if what == 0 { "pump" } else { "boiler" };
            let from = Origin { now_ms, class: Some(class), ..origin(device) };
            let value = f64::from(value) * if what > 30 { 100.0 } else { 1.0 };
            edges.extend(bench.entry(from, &[(metric, value, now_ms)]));
            if what == 1 {
                edges.extend(bench.replace(&super::snapshot::EVERY_KIND.replace("> 1\"", "> 1.5\"")));
            } else if what == 2 {
                edges.extend(bench.replace(super::snapshot::EVERY_KIND));
            } else if what == 3 {
                bench.evaluator.hold(now_ms);
            }
            for edge in &edges {
                let subject = (edge.rule.clone(), edge.device.clone(), edge.metric.clone());
                match edge.change {
                    Change::Raised { .. } => prop_assert!(open.insert(subject), "{:?}", edge),
                    Change::Severity { .. } => prop_assert!(open.contains(&subject), "{:?}", edge),
                    Change::Cleared => prop_assert!(open.remove(&subject), "{:?}", edge),
                }
            }
        }
        for rule in bench.rules.places().map(|(place, _)| place) {
            for device in ["a", "b", "c", "d"] {
                for metric in [None, Some("x"), Some("y"), Some("z"), Some("w")] {
                    let subject = (bench.rules.rule(rule).id.clone(), device.to_owned(), metric.map(str::to_owned));
                    let is_raised = bench.evaluator.is_raised(&Subject { rule, device, metric });
                    prop_assert_eq!(is_raised, open.contains(&subject), "{:?}", subject);
                }
            }
        }
        prop_assert!(bench.replace("").len() == open.len());
    }
}
