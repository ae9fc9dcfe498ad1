//! Reading the gateway's metrics.

/// The sum over all labels of a metric.
pub(crate) fn sum(metrics: &str, name: &str) -> f64 {
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let values = lines.filter(|rest| rest.starts_with([' ', '{'])).filter_map(|rest| rest.rsplit_once(' '));
    values.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
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
}
