//! Progress on stderr while the fleet runs.

use std::io::{IsTerminal, Write, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle as BarStyle};

use crate::cli::ProgressStyle;
use crate::stats::{AckTimes, Snapshot, Stats};

/// Shows how a fleet is doing.
#[derive(Debug)]
pub(crate) struct Progress {
    shown: Shown,
    devices: usize,
    publish_for: Duration,
    before: Snapshot,
    before_at: Duration,
}

#[derive(Debug)]
enum Shown {
    Nothing,
    Lines,
    Bar(ProgressBar),
}

impl Progress {
    pub(crate) fn new(style: ProgressStyle, devices: usize, publish_for: Duration) -> Self {
        let shown = match style {
            ProgressStyle::None => Shown::Nothing,
            ProgressStyle::Bar if stderr().is_terminal() => Shown::Bar(bar(publish_for)),
            ProgressStyle::Bar | ProgressStyle::Plain => Shown::Lines,
        };
        Self { shown, devices, publish_for, before: Snapshot::default(), before_at: Duration::ZERO }
    }

    /// Shows the state after a further second, and collects the times measured in it.
    pub(crate) fn show(&mut self, elapsed: Duration, stats: &Stats, times: &mut AckTimes) {
        let p99 = stats.collect(times);
        let now = stats.snapshot();
        let seconds = elapsed.saturating_sub(self.before_at).as_secs_f64();
        if seconds < 0.1 {
            return;
        }
        let text = line(self.devices, seconds, self.before, now, p99);
        (self.before, self.before_at) = (now, elapsed);
        match &self.shown {
            Shown::Nothing => {}
            // A closed stderr must not end a run.
            Shown::Lines => drop(writeln!(stderr().lock(), "{:>5.0} s  {text}", elapsed.as_secs_f64())),
            Shown::Bar(bar) => {
                bar.set_position(elapsed.min(self.publish_for).as_secs());
                bar.set_message(text);
            }
        }
    }

    /// Shows the last state.
    pub(crate) fn finish(&mut self, elapsed: Duration, stats: &Stats, times: &mut AckTimes) {
        self.show(elapsed, stats, times);
        if let Shown::Bar(bar) = &self.shown {
            bar.finish();
        }
    }
}

fn bar(publish_for: Duration) -> ProgressBar {
    let bar = ProgressBar::new(publish_for.as_secs());
    if let Ok(style) = BarStyle::with_template("{bar:30} {pos:>4}/{len} s  {msg}") {
        bar.set_style(style);
    }
    bar
}

fn line(devices: usize, seconds: f64, before: Snapshot, now: Snapshot, p99: Option<Duration>) -> String {
    let rate = |before: u64, now: u64| float(now.saturating_sub(before)) / seconds;
    let (sent, acked) = (rate(before.sent, now.sent), rate(before.acked, now.acked));
    let p99 = p99.map_or_else(|| "-".to_owned(), |p99| format!("{:.1} ms", p99.as_secs_f64() * 1000.0));
    let Snapshot { connected, reconnects, commands_sent, commands_settled, .. } = now;
    let commands = if commands_sent > 0 {
        format!("  commands settled {commands_settled}/{commands_sent}")
    } else {
        String::new()
    };
    format!(
        "connected {connected}/{devices}  sent {sent:.0}/s  acked {acked:.0}/s  p99 {p99}  reconnects {reconnects}{commands}"
    )
}

/// A count as a floating point number; exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "rates are shown rounded")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_last_interval() {
        let before = Snapshot { connected: 1, sent: 100, acked: 90, ..Snapshot::default() };
        let now = Snapshot { connected: 2, sent: 300, acked: 190, reconnects: 3, ..before };
        assert_eq!(
            line(5, 2.0, before, now, Some(Duration::from_micros(2500))),
            "connected 2/5  sent 100/s  acked 50/s  p99 2.5 ms  reconnects 3"
        );
        let commanded = Snapshot { commands_sent: 7, commands_settled: 6, ..now };
        assert!(line(5, 2.0, before, commanded, None).ends_with("reconnects 3  commands settled 6/7"));
    }
}
