//! What a drill of commands found, for people and as JSON.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::plan::Plan;
use super::play::Played;

/// The JSON report.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    verdict: &'static str,
    /// What was promised and not kept, one sentence each.
    pub(super) reasons: Vec<String>,
    options: String,
    gateway_kills: u64,
    /// What got in the way, each with its second.
    troubles: Vec<(&'static str, f64)>,
    /// What the fleet and its judge found.
    fleet: testkit::report::Report,
    control: Control,
}

/// How a faulty sender was found out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Control {
    stuck: u64,
    repeated: u64,
    out_of_order: u64,
}

impl Control {
    pub(super) fn of(found: &testkit::report::Report) -> Self {
        let counts = found.commands.unwrap_or_default().counts;
        Self { stuck: counts.stuck, repeated: counts.repeated, out_of_order: counts.out_of_order }
    }

    /// Whether every kind of fault was noticed.
    pub(super) const fn is_complete(self) -> bool {
        self.stuck > 0 && self.repeated > 0 && self.out_of_order > 0
    }

    pub(super) fn words(self) -> String {
        let Self { stuck, repeated, out_of_order } = self;
        format!("{stuck} commands stuck, {repeated} repeated, {out_of_order} out of order")
    }
}

impl Report {
    pub(super) fn new(plan: &Plan, played: &Played, control: Control) -> Self {
        let reasons = broken(plan, played);
        let mut fleet = played.fleet.clone();
        fleet.kills = played.kills;
        Self {
            verdict: if reasons.is_empty() { "pass" } else { "fail" },
            reasons,
            options: plan.words(),
            gateway_kills: played.kills,
            troubles: played.troubles.iter().map(|(name, at)| (*name, at.as_secs_f64())).collect(),
            fleet,
            control,
        }
    }

    pub(super) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)?;
        fs::write(file, text).with_context(|| file.display().to_string())
    }

    /// The last words of the drill.
    pub(super) fn summary(&self) -> String {
        let commands = self.fleet.commands.unwrap_or_default();
        let counts = commands.counts;
        format!(
            "{} commands, {} completed ({} dead-lettered), {} delivered again, {} troubles, gateways killed {} times, \
             reconnects {}, settled p50 {:.0} ms p99 {:.0} ms; stuck {}, repeated {}, unmarked {}, out of order {}, \
             early {}, burnt {}, ambiguous {}, contradicted {}, unexpected {}: {}",
            counts.sent,
            counts.completed,
            counts.dead_lettered,
            counts.again,
            self.troubles.len(),
            self.gateway_kills,
            self.fleet.reconnects,
            commands.settle_ms.p50,
            commands.settle_ms.p99,
            counts.stuck,
            counts.repeated,
            counts.unmarked,
            counts.out_of_order,
            counts.early,
            counts.burnt,
            counts.ambiguous,
            counts.contradicted,
            counts.unexpected,
            self.verdict
        )
    }
}

/// What was promised and not kept, one sentence each.
fn broken(plan: &Plan, played: &Played) -> Vec<String> {
    let mut broken = played.fleet.reasons.clone();
    let counts = played.fleet.commands.unwrap_or_default().counts;
    if counts.sent != plan.commands {
        broken.push(format!("{} commands were sent instead of {}", counts.sent, plan.commands));
    }
    if counts.completed != counts.sent {
        broken.push(format!("{} of {} commands were completed", counts.completed, counts.sent));
    }
    for status in played.stopped.iter().filter(|status| status.code() != Some(0)) {
        broken.push(format!("a gateway was asked to stop and ended with {status}"));
    }
    let happened = [
        ("no command was delivered again", counts.again),
        ("no device reconnected", played.fleet.reconnects),
        ("no command was refused or answered", counts.dead_lettered),
        ("no gateway was killed", played.kills),
    ];
    for (what, _) in happened.into_iter().filter(|(_, count)| *count == 0) {
        broken.push(format!("{what}, so nothing was proved"));
    }
    broken
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;
    use std::time::Duration;

    use testkit::report::Commands;

    use super::*;

    const PLAN: Plan =
        Plan { devices: 10, commands: 50, rate: None, lasts: Duration::from_secs(10), seed: 1 };

    fn check(change: impl FnOnce(&mut Played, &mut Commands), expected: &[&str]) {
        let mut commands = Commands::default();
        let counts = &mut commands.counts;
        (counts.sent, counts.completed, counts.again, counts.dead_lettered) = (50, 50, 3, 2);
        let fleet = testkit::report::Report { reconnects: 5, ..testkit::report::Report::default() };
        let stopped = vec![ExitStatus::from_raw(0); 2];
        let mut played = Played { fleet, kills: 1, troubles: Vec::new(), stopped };
        change(&mut played, &mut commands);
        played.fleet.commands = Some(commands);
        assert_eq!(broken(&PLAN, &played), expected);
    }

    #[test]
    fn each_broken_promise_is_named() {
        check(|_, _| (), &[]);
        check(|_, commands| commands.counts.completed = 49, &["49 of 50 commands were completed"]);
        let fewer = |_: &mut Played, commands: &mut Commands| {
            (commands.counts.sent, commands.counts.completed) = (49, 49);
        };
        check(fewer, &["49 commands were sent instead of 50"]);
        check(
            |played, _| played.stopped = vec![ExitStatus::from_raw(256)],
            &["a gateway was asked to stop and ended with exit status: 1"],
        );
        check(|played, _| played.fleet.reasons = vec!["x".to_owned()], &["x"]);
    }

    #[test]
    fn a_drill_in_which_nothing_happened_proves_nothing() {
        check(|played, _| played.kills = 0, &["no gateway was killed, so nothing was proved"]);
        let nothing = &["no command was delivered again, so nothing was proved"];
        check(|_, commands| commands.counts.again = 0, nothing);
    }

    #[test]
    fn a_control_must_be_caught_in_every_way() {
        let all = Control { stuck: 1, repeated: 2, out_of_order: 3 };
        assert!(all.is_complete());
        for one in
            [Control { stuck: 0, ..all }, Control { repeated: 0, ..all }, Control { out_of_order: 0, ..all }]
        {
            assert!(!one.is_complete(), "{one:?}");
        }
    }
}
