//! Alerts of series in which nothing is wrong, beside the budget.

use super::super::{Budget, Detector, Gate, Series, Settings, Tuning};
use super::noise::Noise;

const SEED: u64 = 20_261_121;
const SERIES: u64 = 6;
const VALUES: u32 = 60_000;
const WARM_UP: u32 = 3000;

/// Scores of many series, after the warm-up.
fn scores(noise: Noise, every_ms: u32) -> Vec<Vec<f32>> {
    let detector =
        Detector::new(Tuning::SHIPPED, Settings { threshold: 1.0, ..Settings::every_ms(every_ms) });
    let one = |seed: u64| {
        let mut series = Series::NEW;
        let values = noise.values(SEED + seed, VALUES, every_ms);
        let observe = |(at, value): (u32, &f64)| {
            let at_ms = 1_700_000_000_000 + u64::from(at) * u64::from(every_ms);
            detector.observe(&mut series, at_ms, *value).unwrap().score
        };
        let scores: Vec<f32> = (0..).zip(&values).map(observe).collect();
        scores[WARM_UP as usize..].to_vec()
    };
    (0..SERIES).map(one).collect()
}

/// Alerts per 100,000 measurements.
fn rate(scores: &[Vec<f32>], threshold: f32) -> f64 {
    let alerts = |scores: &Vec<f32>| {
        let mut gate = Gate::NEW;
        scores.iter().filter(|score| gate.pass(Tuning::SHIPPED.quiet, threshold, **score, 1.0)).count()
    };
    let alerts: usize = scores.iter().map(alerts).sum();
    alerts as f64 * 1e5 / (SERIES as f64 * f64::from(VALUES - WARM_UP))
}

/// Figure 7 of what is demanded of alerts. Prints the table behind `CALIBRATION`.
#[test]
fn a_series_without_anomalies_alerts_as_often_as_its_budget_says() {
    println!("seed {SEED}");
    let scored: Vec<(Noise, u32, Vec<Vec<f32>>)> = [60_000, 300_000]
        .into_iter()
        .flat_map(|every_ms| Noise::ALL.map(|noise| (noise, every_ms, scores(noise, every_ms))))
        .collect();
    for percent in [40.0_f32, 42.5, 45.0, 47.5, 50.0, 52.5, 55.0, 57.5, 60.0] {
        let rates: Vec<f64> = scored.iter().map(|(.., scores)| rate(scores, percent / 100.0)).collect();
        let mean = rates.iter().map(|rate| rate.max(0.1).ln()).sum::<f64>() / rates.len() as f64;
        println!("{percent}: mean {:.2}, each {rates:.1?}", mean.exp());
    }
    for alerts in [100, 30, 10] {
        let budget = Budget::new(alerts, 100_000, 1).unwrap();
        let wanted = budget.per_interval() * 1e5;
        for (noise, every_ms, scores) in &scored {
            let measured = rate(scores, budget.threshold());
            let factor = measured / wanted;
            println!("{noise:?} every {every_ms} ms: {measured:.1} of {wanted:.1} per 100,000");
            assert!((1.0 / 3.0..=3.0).contains(&factor), "{noise:?}: {measured} of {wanted}");
        }
    }
}
