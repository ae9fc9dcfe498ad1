//! What happens in an outage drill and when: all of it follows from the seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::BrokerKind;

/// One thing that is done to the cloud or to the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// The cloud-sim takes no connection and cuts those it has.
    Away,
    Back,
    /// Connections are cut, once.
    Cut,
    /// Every n-th request is stored and not answered; 0 ends it.
    LoseAcks(u64),
    /// Answers are held back for so many milliseconds; 0 ends it.
    Throttle(u32),
    /// Events per second that the namespace takes; 0 sets no limit.
    Quota(u64),
    /// So many requests are refused with a code of Kafka.
    Refuse(i16, u64),
    /// The cloud forgets the producers it knows.
    Forget,
    /// The right to send is taken away, or given back.
    Authorize(bool),
    /// `kill -9` of the gateway, which starts again at once.
    KillGateway,
    /// `kill -9` of the broker.
    KillBroker,
    /// The broker is asked to stop, and does so in order.
    StopBroker,
    StartBroker,
    /// The broker does nothing, and its connections stay open.
    Freeze,
    Thaw,
}

/// Something that begins, perhaps lasts, and ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) name: &'static str,
    /// When, since the start of the load.
    pub(super) acts: Vec<(Duration, Act)>,
}

impl Trouble {
    pub(super) fn begins(&self) -> Duration {
        self.acts.first().map_or(Duration::ZERO, |(at, _)| *at)
    }
}

/// The kinds of trouble that the stand-in can be ordered to make.
const SIM: [&str; 15] = [
    "away",
    "away, gateway killed",
    "away twice",
    "cuts",
    "lost acks",
    "lost acks, gateway killed",
    "throttled",
    "throttled beyond the timeout",
    "over the quota",
    "policy violation",
    "server error",
    "producers forgotten",
    "right to send withdrawn",
    "gateway killed",
    "gateway killed twice",
];
/// The kinds that a real broker makes by dying.
const KAFKA: [&str; 6] = [
    "broker killed",
    "broker killed, gateway killed",
    "broker stopped",
    "broker frozen",
    "gateway killed",
    "gateway killed twice",
];

/// Kafka's numbers of errors.
const UNKNOWN_SERVER_ERROR: i16 = -1;
const REQUEST_TIMED_OUT: i16 = 7;
const POLICY_VIOLATION: i16 = 44;

/// Every kind of trouble in random order, and again, until the time is up; each after a pause in which the uplink
/// may recover.
pub(super) fn troubles(broker: BrokerKind, seed: u64, lasts: Duration) -> Vec<Trouble> {
    let mut random = StdRng::seed_from_u64(seed);
    let kinds: &[&'static str] = match broker {
        BrokerKind::Sim => &SIM,
        BrokerKind::Kafka => &KAFKA,
    };
    // A longer drill has longer troubles as well as more of them.
    let scale = (lasts.as_secs_f64() / 30.0).sqrt().clamp(0.6, 6.0);
    let mut deck: Vec<&'static str> = Vec::new();
    let mut troubles = Vec::new();
    let mut now = Duration::from_secs(1);
    loop {
        if deck.is_empty() {
            deck.extend(kinds);
            deck.shuffle(&mut random);
        }
        let Some(name) = deck.pop() else { return troubles };
        let mut moment = |from: f64, to: f64| Duration::from_secs_f64(random.random_range(from..to) * scale);
        let (pause, length, within) = (moment(0.2, 1.2), moment(0.4, 2.4), moment(0.0, 0.4));
        let number = random.random_range(2..6);
        let acts: Vec<(Duration, Act)> =
            acts(name, length, within, number).into_iter().map(|(at, act)| (now + pause + at, act)).collect();
        let Some((end, _)) = acts.last() else { return troubles };
        if *end > lasts {
            return troubles;
        }
        now = *end;
        troubles.push(Trouble { name, acts });
    }
}

/// The acts of a kind of trouble that lasts for `length`, in order; `within` lies in its first part.
fn acts(name: &str, length: Duration, within: Duration, number: u64) -> Vec<(Duration, Act)> {
    const START: Duration = Duration::ZERO;
    let middle = length / 2;
    match name {
        "away" => vec![(START, Act::Away), (length, Act::Back)],
        "away, gateway killed" => {
            vec![(START, Act::Away), (within, Act::KillGateway), (length.max(within), Act::Back)]
        }
        "away twice" => {
            vec![
                (START, Act::Away),
                (middle, Act::Back),
                (middle + within, Act::Away),
                (length + within, Act::Back),
            ]
        }
        "cuts" => (0..number).map(|index| (within * u32::try_from(index).unwrap_or(0), Act::Cut)).collect(),
        "lost acks" => vec![(START, Act::LoseAcks(number)), (length, Act::LoseAcks(0))],
        "lost acks, gateway killed" => {
            vec![(START, Act::LoseAcks(number)), (middle, Act::KillGateway), (length, Act::LoseAcks(0))]
        }
        "throttled" => vec![(START, Act::Throttle(300)), (length, Act::Throttle(0))],
        "throttled beyond the timeout" => {
            // One request is stored and answered after the gateway has given its connection up.
            vec![(START, Act::Throttle(7000)), (Duration::from_millis(400), Act::Throttle(0))]
        }
        "over the quota" => vec![(START, Act::Quota(200 * number)), (length, Act::Quota(0))],
        "policy violation" => vec![(START, Act::Refuse(POLICY_VIOLATION, number))],
        "server error" => {
            vec![
                (START, Act::Refuse(UNKNOWN_SERVER_ERROR, 1)),
                (length, Act::Refuse(REQUEST_TIMED_OUT, number)),
            ]
        }
        "producers forgotten" => vec![(START, Act::Forget)],
        "right to send withdrawn" => vec![(START, Act::Authorize(false)), (length, Act::Authorize(true))],
        "gateway killed" => vec![(START, Act::KillGateway)],
        "gateway killed twice" => vec![(START, Act::KillGateway), (within, Act::KillGateway)],
        "broker killed" => vec![(START, Act::KillBroker), (length, Act::StartBroker)],
        "broker killed, gateway killed" => {
            vec![(START, Act::KillBroker), (within, Act::KillGateway), (length.max(within), Act::StartBroker)]
        }
        "broker stopped" => vec![(START, Act::StopBroker), (length, Act::StartBroker)],
        "broker frozen" => vec![(START, Act::Freeze), (length * 3, Act::Thaw)],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn the_same_seed_makes_the_same_troubles() {
        for broker in [BrokerKind::Sim, BrokerKind::Kafka] {
            assert_eq!(troubles(broker, 7, LONG), troubles(broker, 7, LONG));
            assert_ne!(troubles(broker, 7, LONG), troubles(broker, 8, LONG));
        }
    }

    #[test]
    fn every_kind_of_trouble_comes_and_ends_in_time() {
        for (broker, kinds) in [(BrokerKind::Sim, &SIM[..]), (BrokerKind::Kafka, &KAFKA[..])] {
            let troubles = troubles(broker, 3, LONG);
            let met: BTreeSet<&str> = troubles.iter().map(|trouble| trouble.name).collect();
            assert_eq!(met, kinds.iter().copied().collect());
            let moments: Vec<Duration> =
                troubles.iter().flat_map(|trouble| &trouble.acts).map(|(at, _)| *at).collect();
            assert!(moments.is_sorted() && moments.last() <= Some(&LONG), "{moments:?}");
        }
    }

    #[test]
    fn what_is_taken_away_comes_back() {
        for broker in [BrokerKind::Sim, BrokerKind::Kafka] {
            for trouble in troubles(broker, 5, LONG) {
                let count =
                    |wanted: &[Act]| trouble.acts.iter().filter(|(_, act)| wanted.contains(act)).count();
                assert_eq!(count(&[Act::Away]), count(&[Act::Back]), "{trouble:?}");
                assert_eq!(
                    count(&[Act::KillBroker, Act::StopBroker]),
                    count(&[Act::StartBroker]),
                    "{trouble:?}"
                );
                assert_eq!(count(&[Act::Freeze]), count(&[Act::Thaw]), "{trouble:?}");
                assert_eq!(count(&[Act::Authorize(false)]), count(&[Act::Authorize(true)]), "{trouble:?}");
            }
        }
    }
}
