//! The verdict as text.

use testkit::report::{Commands, Outcome, Report};

/// The verdict table: a word, a figure and what it means, aligned; then the reasons.
pub(crate) fn table(report: &Report) -> String {
    let word = match report.verdict {
        Outcome::Pass => "pass",
        Outcome::Fail => "FAIL",
    };
    let mut rows = vec![
        ("verdict", word.to_owned(), String::new()),
        ("seed", report.seed.to_string(), format!("{} devices, {:.1} s", report.devices, report.seconds)),
        ("sent", report.sent.to_string(), format!("{} of them at QoS 0", report.qos0_sent)),
        ("acked", report.acked.to_string(), format!("{:.0} per second", report.acked_per_second)),
        (
            "unacked",
            report.unacked.to_string(),
            format!("{} refused, {} skipped", report.refused, report.skipped),
        ),
        ("reconnects", report.reconnects.to_string(), format!("{} kills of the gateway", report.kills)),
    ];
    if report.sessions_resumed + report.sessions_lost + report.takeovers > 0 {
        let said = format!("resumed, {} lost, {} take-overs", report.sessions_lost, report.takeovers);
        rows.push(("sessions", report.sessions_resumed.to_string(), said));
    }
    let ack = report.ack_ms;
    rows.push((
        "ack p50",
        format!("{:.1} ms", ack.p50),
        format!("p99 {:.1} ms, max {:.1} ms", ack.p99, ack.max),
    ));
    if let Some(cpu) = report.gateway_cpu_us_per_message {
        let mebibytes = report.gateway_rss_bytes.unwrap_or_default() / 1_048_576;
        rows.push(("gateway CPU", format!("{cpu:.1} us"), format!("per message; {mebibytes} MiB resident")));
    }
    let judged = [
        (
            "delivered",
            report.delivered,
            format!("readings, in {} records", report.records.unwrap_or_default()),
        ),
        ("lost", report.lost, "acknowledged and found nowhere".to_owned()),
        ("reordered", report.reordered, "first occurrences out of order".to_owned()),
        ("unexpected", report.unexpected, "records nothing explains".to_owned()),
        ("duplicated", report.duplicated, "the same identity again".to_owned()),
        ("resent", report.resent, "QoS 1 readings published again by their device".to_owned()),
        (
            "QoS 2 repeats",
            report.qos2_repeats,
            "QoS 2 readings published again after a lost session".to_owned(),
        ),
        ("QoS 0 missing", report.qos0_missing, "QoS 0 promises nothing".to_owned()),
    ];
    for (word, count, meaning) in judged {
        let figure = count.map_or_else(|| "not judged".to_owned(), |count| count.to_string());
        rows.push((word, figure, meaning));
    }
    if let Some(commands) = &report.commands {
        rows.extend(commanded(commands));
    }
    let width = rows.iter().map(|(_, figure, _)| figure.len()).max().unwrap_or_default();
    let mut text = String::new();
    for (word, figure, meaning) in rows {
        let row = format!("{word:<14}{figure:>width$}  {meaning}");
        text.push_str(row.trim_end());
        text.push('\n');
    }
    for reason in &report.reasons {
        text.push_str("  - ");
        text.push_str(reason);
        text.push('\n');
    }
    text
}

/// The rows about commands.
fn commanded(commands: &Commands) -> Vec<(&'static str, String, String)> {
    let Commands { counts, settle_ms, .. } = commands;
    let mut rows = vec![
        ("commands", counts.sent.to_string(), format!("{} reached their device", counts.received)),
        (
            "completed",
            counts.completed.to_string(),
            format!("{} of them dead-lettered; {} answers", counts.dead_lettered, commands.answered),
        ),
        (
            "settled p50",
            format!("{:.0} ms", settle_ms.p50),
            format!("p99 {:.0} ms, max {:.0} ms", settle_ms.p99, settle_ms.max),
        ),
        ("again", counts.again.to_string(), "deliveries whose acknowledgement never arrived".to_owned()),
    ];
    let judged = [
        ("stuck", counts.stuck, "no final status, or not settled"),
        ("repeated", counts.repeated, "delivered again after the gateway knew"),
        ("unmarked", counts.unmarked, "delivered again without saying so"),
        ("out of order", counts.out_of_order, "after a later command"),
        ("early", counts.early, "settled before the device was done"),
        ("burnt", counts.burnt, "failed deliveries that nobody used"),
        ("ambiguous", counts.ambiguous, "more than one final status"),
        ("contradicted", counts.contradicted, "status and settlement do not fit the device"),
        ("strangers", counts.unexpected, "what was never sent"),
    ];
    rows.extend(judged.map(|(word, count, meaning)| (word, count.to_string(), meaning.to_owned())));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned_and_ends_with_the_reasons() {
        let mut report = Report { seed: 42, acked: 1234, lost: Some(1), ..Report::default() };
        report.set_reasons(vec!["1 acknowledged readings are lost".to_owned()]);
        let text = table(&report);
        let column = |word: &str| text.lines().find(|line| line.starts_with(word)).unwrap().find("  ");
        assert_eq!(column("lost"), Some(4));
        assert!(text.contains("verdict             FAIL\n"), "{text}");
        assert!(text.contains("lost                   1  acknowledged and found nowhere"), "{text}");
        assert!(text.contains("delivered     not judged"), "{text}");
        assert!(!text.contains("commands"), "{text}");
        assert!(text.ends_with("  - 1 acknowledged readings are lost\n"), "{text}");
    }

    #[test]
    fn commands_have_rows_where_any_were_sent() {
        let mut report = Report { commands: Some(Commands::default()), ..Report::default() };
        if let Some(commands) = &mut report.commands {
            (commands.counts.sent, commands.counts.out_of_order) = (17, 3);
        }
        let text = table(&report);
        assert!(text.contains("commands              17  0 reached their device"), "{text}");
        assert!(text.contains("out of order           3  after a later command"), "{text}");
    }
}
