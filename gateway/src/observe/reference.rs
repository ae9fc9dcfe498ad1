//! The metrics reference, generated from the declarations.

use super::{Kind, Metric};

/// The text of `docs/metrics.md` for these stages' declarations.
#[must_use]
pub fn reference(stages: &[(&str, &[Metric])]) -> String {
    let mut text = String::from(INTRODUCTION);
    for (stage, metrics) in stages {
        write_stage(&mut text, stage, metrics);
    }
    text
}

const INTRODUCTION: &str = "# Metrics

`GET /metrics` on the health listener serves these in Prometheus' text format. Counters end in `_total`;
times are seconds, sizes are bytes. Labels take only the values listed here; a device is never a label.

This file is generated from the declarations in each stage's `metrics.rs`, and a test compares the two:
`PENSTOCK_UPDATE_DOCS=1 cargo test --release --workspace --test reference` writes it anew.
";

fn write_stage(text: &mut String, stage: &str, metrics: &[Metric]) {
    text.push_str(&format!("\n## {stage}\n\n| metric | kind | labels | meaning |\n|---|---|---|---|\n"));
    for Metric { name, kind, help, labels } in metrics {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        let labels: Vec<String> =
            labels.iter().map(|(label, values)| format!("`{label}`: {}", values.join(", "))).collect();
        text.push_str(&format!("| `{name}` | {kind} | {} | {help} |\n", labels.join("; ")));
    }
}
