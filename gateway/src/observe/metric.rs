//! Metric declarations and the handles made from them.

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// The declaration of one metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// `penstock_<stage>_<noun>_<unit>`; counters end in `_total`.
    pub name: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// One sentence for operators.
    pub help: &'static str,
    /// Label names with every value each can take. A device is never a label.
    pub labels: &'static [(&'static str, &'static [&'static str])],
}

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution with the given upper bounds.
    Histogram(&'static [f64]),
}

/// Renders the text exposition format.
#[derive(Clone)]
pub struct Renderer(PrometheusHandle);

impl std::fmt::Debug for Renderer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Renderer")
    }
}

impl Renderer {
    /// Everything measured so far, in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Moves histogram samples into their buckets; call it every few seconds, or memory grows.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
    }
}

/// Installs the process-wide recorder and describes every metric to it.
///
/// # Errors
///
/// When a recorder is installed already, or a histogram has no buckets.
pub fn install(metrics: impl Iterator<Item = Metric> + Clone) -> Result<Renderer, BuildError> {
    let mut builder = PrometheusBuilder::new();
    for metric in metrics.clone() {
        if let Kind::Histogram(bounds) = metric.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)?;
        }
    }
    let handle = builder.install_recorder()?;
    for Metric { name, kind, help, .. } in metrics {
        match kind {
            Kind::Counter => metrics::describe_counter!(name, help),
            Kind::Gauge => metrics::describe_gauge!(name, help),
            Kind::Histogram(_) => metrics::describe_histogram!(name, help),
        }
    }
    Ok(Renderer(handle))
}

/// The handle of a counter without labels.
pub fn counter(metric: &Metric) -> Counter {
    debug_assert!(metric.kind == Kind::Counter && metric.labels.is_empty(), "{}", metric.name);
    metrics::counter!(metric.name)
}

/// The handle of a counter for one label value, which must be declared.
pub fn counter_with(metric: &Metric, label: &'static str, value: &'static str) -> Counter {
    debug_assert!(metric.kind == Kind::Counter && metric.declares(label, value), "{} {value}", metric.name);
    metrics::counter!(metric.name, label => value)
}

/// The handle of a counter for a value of each of its two labels, which must be declared.
pub fn counter_with_two(metric: &Metric, labels: [(&'static str, &'static str); 2]) -> Counter {
    let [(first, one), (second, two)] = labels;
    debug_assert!(metric.kind == Kind::Counter, "{}", metric.name);
    debug_assert!(metric.declares(first, one) && metric.declares(second, two), "{} {one} {two}", metric.name);
    metrics::counter!(metric.name, first => one, second => two)
}

/// The handle of a gauge without labels.
pub fn gauge(metric: &Metric) -> Gauge {
    debug_assert!(metric.kind == Kind::Gauge && metric.labels.is_empty(), "{}", metric.name);
    metrics::gauge!(metric.name)
}

/// The handle of a gauge for one label value, which must be declared.
pub fn gauge_with(metric: &Metric, label: &'static str, value: &'static str) -> Gauge {
    debug_assert!(metric.kind == Kind::Gauge && metric.declares(label, value), "{} {value}", metric.name);
    metrics::gauge!(metric.name, label => value)
}

/// The handle of a histogram without labels.
pub fn histogram(metric: &Metric) -> Histogram {
    debug_assert!(matches!(metric.kind, Kind::Histogram(_)) && metric.labels.is_empty(), "{}", metric.name);
    metrics::histogram!(metric.name)
}

impl Metric {
    fn declares(&self, label: &str, value: &str) -> bool {
        self.labels.iter().any(|(name, values)| *name == label && values.contains(&value))
    }
}
