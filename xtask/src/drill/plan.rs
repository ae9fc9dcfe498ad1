//! What happens in an episode. Everything follows from the seed and the number of the episode.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use testkit::drill::points::{POINTS, Point, Situation};
use testkit::drill::stage::Load;
use testkit::gateway::Config;

use super::Kind;

/// Most lives of the gateway before the one that delivers.
const LIVES_MAX: usize = 3;
/// One in so many episodes moves enough data for files to be written and removed.
const HEAVY_EVERY: u32 = 4;
/// How long a life under load waits for its point.
const POINT_WITHIN: Duration = Duration::from_secs(3);
/// The read-back of an episode gives up after this long without a record.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// An episode.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) number: u32,
    pub(super) load: Load,
    /// The gateway's settings that differ from the defaults, as `(section, line)`.
    pub(super) settings: Vec<(&'static str, &'static str)>,
    pub(super) lane: &'static str,
    /// The cloud comes back only after the last death: until then the outbox alone has what was acknowledged.
    pub(super) cloud_away: bool,
    /// A part of what was not synced survives too.
    pub(super) torn: Option<u64>,
    /// How much longer each sync takes. A plain `kill -9` has no library that could make it so.
    pub(super) sync_delay: Option<Duration>,
    pub(super) deaths: Vec<Death>,
}

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// This long after the gateway was ready.
    After(Duration),
    /// At a named point, at the call with this number.
    At(&'static Point, u64),
}

impl Plan {
    pub(super) fn new(kind: Kind, seed: u64, number: u32) -> Plan {
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(u64::from(number).wrapping_mul(STRIDE)));
        let heavy = number.is_multiple_of(HEAVY_EVERY);
        let lives = 1 + random.random_range(0..LIVES_MAX).min(random.random_range(0..LIVES_MAX));
        let cloud_away = !heavy && random.random();
        let deaths: Vec<Death> = (0..lives).map(|life| death(&mut random, heavy, cloud_away, life)).collect();
        let settings = settings(&mut random, heavy);
        let load = Load {
            seed: random.random(),
            devices: random.random_range(10..=120),
            rate: if heavy { 2500 } else { random.random_range(1000..=6000) },
            payload_bytes: if heavy { 8000 } else { pick(&mut random, &[150, 300, 1000]) },
            give_up_after: GIVE_UP_AFTER,
        };
        let lane = pick(&mut random, &["telemetry", "telemetry", "bulk", "status", "alerts"]);
        let torn = (kind == Kind::PowerCut && number.is_multiple_of(2)).then(|| random.random());
        let sync_delay = pick(&mut random, &[None, None, Some(2), Some(8)]).map(Duration::from_millis);
        let mut plan = Plan { number, load, settings, lane, cloud_away, torn, sync_delay, deaths };
        if kind == Kind::Crash && !plan.has_points() {
            plan.sync_delay = None;
        }
        plan
    }

    /// An episode in which a disk that lies must be found out.
    pub(super) fn control(seed: u64) -> Plan {
        let mut random = StdRng::seed_from_u64(seed);
        let life = Duration::from_millis(random.random_range(500..900));
        let load =
            Load { seed, devices: 40, rate: 2000, payload_bytes: 300, give_up_after: Duration::from_secs(2) };
        let deaths = vec![Death::After(life)];
        Plan {
            number: 0,
            load,
            settings: Vec::new(),
            lane: "telemetry",
            cloud_away: true,
            torn: None,
            sync_delay: None,
            deaths,
        }
    }

    /// The gateway's configuration.
    pub(super) fn config(&self) -> Config {
        let start = Config::default().lane(self.lane);
        self.settings.iter().fold(start, |config, (section, line)| config.set(section, line))
    }

    /// Whether any life ends at a named point.
    pub(super) fn has_points(&self) -> bool {
        self.deaths.iter().any(|death| matches!(death, Death::At(..)))
    }
}

impl Death {
    /// The rule that makes the gateway kill itself.
    pub(super) fn rule(self) -> Option<String> {
        match self {
            Death::After(_) => None,
            Death::At(point, number) => Some(point.rule(number)),
        }
    }

    /// How long to wait for it at most.
    pub(super) fn within(self) -> Duration {
        match self {
            Death::After(time) => time,
            Death::At(..) => POINT_WITHIN,
        }
    }
}

/// Spreads the seeds of episodes (the golden ratio of 2^64).
const STRIDE: u64 = 0x9E37_79B9_7F4A_7C15;
fn death(random: &mut StdRng, heavy: bool, cloud_away: bool, life: usize) -> Death {
    if random.random() {
        let most = if heavy { 1800 } else { 800 };
        return Death::After(Duration::from_millis(random.random_range(100..most)));
    }
    let possible = |point: &&Point| match point.situation {
        // Their tests have them: a new directory holds nothing yet, a damaged or full one loses something.
        Situation::Creation | Situation::Repair | Situation::Dropping => false,
        Situation::Load => true,
        Situation::Flush => heavy,
        Situation::Trim => heavy && !cloud_away,
        Situation::Opening => life > 0,
    };
    let points: Vec<&'static Point> = POINTS.iter().filter(possible).collect();
    let point = pick(random, &points);
    let (first, last) = point.numbers;
    Death::At(point, random.random_range(first..=last))
}

fn settings(random: &mut StdRng, heavy: bool) -> Vec<(&'static str, &'static str)> {
    let mut chosen = vec![
        (
            "outbox",
            pick(random, &["commit_floor = \"0us\"", "commit_floor = \"1ms\"", "commit_floor = \"5ms\""]),
        ),
        ("outbox", pick(random, &["segment_bytes_max = \"64KiB\"", "segment_bytes_max = \"1MiB\""])),
        ("outbox", pick(random, &["segment_messages_max = 7", "segment_messages_max = 4096"])),
        ("uplink", pick(random, &["linger = \"0us\"", "linger = \"20ms\""])),
    ];
    // Enough data to fill memory must not be compressed away.
    let codecs = ["body_codec = \"none\"", "body_codec = \"lz4\""];
    chosen.push(("outbox", if heavy { codecs[0] } else { pick(random, &codecs) }));
    chosen
}

fn pick<T: Copy>(random: &mut StdRng, from: &[T]) -> T {
    from[random.random_range(0..from.len())]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_episodes() {
        for number in 1..20 {
            let plan = || format!("{:?}", Plan::new(Kind::PowerCut, 7, number));
            assert_eq!(plan(), plan());
        }
        let other = format!("{:?}", Plan::new(Kind::PowerCut, 8, 1));
        assert_ne!(format!("{:?}", Plan::new(Kind::PowerCut, 7, 1)), other);
    }

    #[test]
    fn episodes_meet_every_point_lane_and_kind_of_disk() {
        let plans: Vec<Plan> = (1..=600).map(|number| Plan::new(Kind::PowerCut, 1, number)).collect();
        let met: BTreeSet<&str> = plans
            .iter()
            .flat_map(|plan| &plan.deaths)
            .filter_map(|death| match death {
                Death::At(point, _) => Some(point.name),
                Death::After(_) => None,
            })
            .collect();
        use Situation::{Flush, Load, Opening, Trim};
        let wanted = POINTS.iter().filter(|point| matches!(point.situation, Load | Flush | Trim | Opening));
        assert_eq!(met, wanted.map(|point| point.name).collect());
        assert_eq!(plans.iter().map(|plan| plan.lane).collect::<BTreeSet<_>>().len(), 4);
        assert_eq!(plans.iter().filter(|plan| plan.torn.is_some()).count(), 300);
        assert!(plans.iter().any(|plan| plan.cloud_away) && plans.iter().any(|plan| !plan.cloud_away));
    }

    #[test]
    fn a_first_life_never_ends_in_an_opening() {
        for number in 1..300 {
            let first = Plan::new(Kind::Crash, 3, number).deaths[0];
            let opening = matches!(first, Death::At(Point { situation: Situation::Opening, .. }, _));
            assert!(!opening, "episode {number}");
        }
    }
}
