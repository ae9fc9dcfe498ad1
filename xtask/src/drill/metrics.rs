//! Reading the gateway's metrics.

/// The sum over all labels of a metric.
pub(crate) fn sum(metrics: &str, name: &str) -> f64 {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let values = lines.filter(|rest| rest.starts_with([' ', '{'])).filter_map(|rest| rest.rsplit_once(' '));
    values.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
}

/// The bound below which such a share of a histogram's values lies, over all labels; `None` without any, or when it lies
/// above every bound.
pub(crate) fn percentile(metrics: &str, name: &str, share: f64) -> Option<f64> {
    let start = format!("{name}_bucket{{");
    let mut bounds: Vec<(f64, f64)> = Vec::new();
    for line in metrics.lines().filter_map(|line| line.strip_prefix(&start)) {
        let (labels, value) = line.rsplit_once("} ")?;
        let (_, bound) = labels.split_once("le=\"")?;
        let bound = bound.split('"').next()?.parse().ok()?;
        let count: f64 = value.parse().ok()?;
        match bounds.iter_mut().find(|(known, _)| f64::total_cmp(known, &bound).is_eq()) {
            Some((_, sum)) => *sum += count,
            None => bounds.push((bound, count)),
        }
    }
    bounds.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let (_, all) = bounds.last().filter(|(_, all)| *all > 0.0)?;
    let (bound, _) = bounds.iter().find(|(_, count)| *count >= all * share)?;
    bound.is_finite().then_some(*bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_summed_over_its_labels() {
        let text = "# HELP a_total x\na_total{lane=\"x\"} 2\na_total{lane=\"y\"} 3\na_total_other 7\nb 1\n";
        assert!((sum(text, "a_total") - 5.0).abs() < f64::EPSILON);
        assert!((sum(text, "b") - 1.0).abs() < f64::EPSILON);
        assert!(sum(text, "c").abs() < f64::EPSILON);
    }

    #[test]
    fn a_percentile_is_the_bound_of_its_bucket() {
        let text = "a_seconds_bucket{le=\"0.1\"} 90\na_seconds_bucket{le=\"1\"} 99\n\
                    a_seconds_bucket{le=\"+Inf\"} 100\na_seconds_sum 7\n";
        assert_eq!(
            [0.5, 0.9, 0.95, 0.99].map(|share| percentile(text, "a_seconds", share)),
            [Some(0.1), Some(0.1), Some(1.0), Some(1.0)]
        );
        assert_eq!((percentile(text, "a_seconds", 0.999), percentile(text, "b_seconds", 0.5)), (None, None));
        let labelled = "b_bucket{x=\"1\",le=\"1\"} 1\nb_bucket{x=\"1\",le=\"+Inf\"} 1\n\
                        b_bucket{x=\"2\",le=\"1\"} 0\nb_bucket{x=\"2\",le=\"+Inf\"} 1\n";
        assert_eq!([0.5, 0.6].map(|share| percentile(labelled, "b", share)), [Some(1.0), None]);
    }
}
