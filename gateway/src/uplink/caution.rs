//! Records that the service does not take, and how one is told from those that fell with it.
//!
//! A refusal that is about a record comes for a whole batch, which may hold entries of every chain of its
//! partition. They are *suspects*: while there are any, entries go to that partition in groups, nothing else with
//! them, of half as many as the refused batch had. A refusal of a single entry *condemns* it: it goes to lane
//! `dead`. So one bad record among thousands costs a dozen attempts, and everything around it arrives in order.

use penstock_proto::Seq;

use super::packer::Key;
use super::tracker::Target;

/// What may be sent to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Anything.
    All,
    /// At most so many more entries together.
    Group(u32),
    /// Nothing before everything in flight is confirmed.
    Nothing,
}

/// Entries of one partition that were refused together: per chain how many, and the last one.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) target: Target,
    pub(super) chains: Vec<(Key, u32, Seq)>,
    pub(super) reason: String,
}

/// Suspects and condemned entries.
#[derive(Debug, Default)]
pub(super) struct Caution {
    suspects: Vec<Suspects>,
    condemned: Vec<(Key, Seq, String)>,
}

#[derive(Debug)]
struct Suspects {
    target: Target,
    /// Per chain the last of them.
    until: Vec<(Key, Seq)>,
    /// How many may go together.
    group: u32,
    /// How many have gone since nothing was in flight.
    gone: u32,
}

impl Caution {
    /// Whether nothing is suspected: the normal case.
    pub(super) const fn is_empty(&self) -> bool {
        self.suspects.is_empty() && self.condemned.is_empty()
    }

    /// A batch or a pack was refused.
    pub(super) fn refused(&mut self, refusal: &Refusal) {
        let count: u32 = refusal.chains.iter().map(|(_, count, _)| *count).sum();
        if let (1, Some((key, _, seq))) = (count, refusal.chains.first()) {
            self.condemn(*key, *seq, &refusal.reason);
            return;
        }
        let group = (count / 2).max(1);
        let place = self.suspects.iter().position(|suspects| suspects.target == refusal.target);
        let place = place.unwrap_or_else(|| {
            let target = refusal.target;
            self.suspects.push(Suspects { target, until: Vec::new(), group, gone: 0 });
            self.suspects.len() - 1
        });
        let suspects = &mut self.suspects[place];
        suspects.group = suspects.group.min(group);
        suspects.gone = 0;
        for (key, _, last) in &refusal.chains {
            match suspects.until.iter_mut().find(|(known, _)| known == key) {
                Some((_, until)) => *until = (*until).max(*last),
                None => suspects.until.push((*key, *last)),
            }
        }
    }

    /// The service, or the client library, never takes this entry.
    fn condemn(&mut self, key: Key, seq: Seq, reason: &str) {
        if self.condemned(key, seq).is_none() {
            self.condemned.push((key, seq, reason.to_owned()));
        }
    }

    /// Why an entry is condemned, if it is.
    pub(super) fn condemned(&self, key: Key, seq: Seq) -> Option<&str> {
        let known = self.condemned.iter().find(|(at, condemned, _)| *at == key && *condemned == seq);
        known.map(|(_, _, reason)| reason.as_str())
    }

    /// A condemned entry is in lane `dead`.
    pub(super) fn buried(&mut self, key: Key, seq: Seq) {
        self.condemned.retain(|(at, condemned, _)| !(*at == key && *condemned == seq));
        self.confirmed(key, seq);
    }

    /// Everything of a chain up to `last` is confirmed.
    pub(super) fn confirmed(&mut self, key: Key, last: Seq) {
        for suspects in &mut self.suspects {
            suspects.until.retain(|(known, until)| *known != key || *until > last);
        }
        self.suspects.retain(|suspects| !suspects.until.is_empty());
    }

    /// What may be sent to a partition while `in_flight` records to it are on their way.
    pub(super) fn allowed(&mut self, target: Target, in_flight: usize) -> Allowed {
        let Some(suspects) = self.suspects.iter_mut().find(|suspects| suspects.target == target) else {
            return Allowed::All;
        };
        if in_flight == 0 {
            suspects.gone = 0;
        }
        match suspects.group.saturating_sub(suspects.gone) {
            0 => Allowed::Nothing,
            left => Allowed::Group(left),
        }
    }

    /// An entry was sent to a partition, or joined a pack.
    pub(super) fn went(&mut self, target: Target) {
        if let Some(suspects) = self.suspects.iter_mut().find(|suspects| suspects.target == target) {
            suspects.gone += 1;
        }
    }

    /// A new session: nothing is in flight.
    pub(super) fn restart(&mut self) {
        self.suspects.iter_mut().for_each(|suspects| suspects.gone = 0);
    }
}

#[cfg(test)]
mod tests {
    use penstock_proto::Stream;

    use super::super::tracker::{ChainId, TopicId};
    use super::*;

    const TARGET: Target = Target { topic: TopicId(0), partition: 3 };

    fn key() -> Key {
        (2, ChainId { target: TARGET, stream: Stream::Live })
    }

    fn refusal(count: u32, last: u64) -> Refusal {
        Refusal { target: TARGET, chains: vec![(key(), count, Seq(last))], reason: "size".to_owned() }
    }

    /// Sends entries 1 to 1000, of which one is refused, the way the uplink does; returns the rebuilds.
    fn find(bad: u64, batch: u32) -> u32 {
        let mut caution = Caution::default();
        let (mut next, mut rebuilds) = (1, 0);
        let mut dead = Vec::new();
        while next <= 1000 {
            // What goes together: as many as a batch holds and caution allows.
            let mut group = Vec::new();
            while next + group.len() as u64 <= 1000 && group.len() < batch as usize {
                let seq = next + group.len() as u64;
                if caution.condemned(key(), Seq(seq)).is_some() {
                    if group.is_empty() {
                        caution.buried(key(), Seq(seq));
                        dead.push(seq);
                        next += 1;
                        continue;
                    }
                    break;
                }
                if caution.allowed(TARGET, group.len()) == Allowed::Nothing {
                    break;
                }
                caution.went(TARGET);
                group.push(seq);
            }
            if group.contains(&bad) && !dead.contains(&bad) {
                caution.refused(&refusal(u32::try_from(group.len()).unwrap(), *group.last().unwrap()));
                caution.restart();
                rebuilds += 1;
                assert!(rebuilds < 30, "it never comes to an end");
            } else {
                next += group.len() as u64;
                caution.confirmed(key(), Seq(next - 1));
            }
        }
        assert_eq!(dead, [bad]);
        assert!(caution.is_empty());
        rebuilds
    }

    #[test]
    fn one_bad_entry_is_found_in_few_attempts() {
        for bad in [1, 2, 499, 500, 999] {
            for batch in [1, 7, 100, 1000] {
                assert!(find(bad, batch) <= 12, "{bad} of batches of {batch}");
            }
        }
    }

    #[test]
    fn nothing_goes_with_a_group_of_suspects() {
        let mut caution = Caution::default();
        caution.refused(&refusal(4, 9));
        assert_eq!(caution.allowed(TARGET, 0), Allowed::Group(2));
        caution.went(TARGET);
        caution.went(TARGET);
        assert_eq!(caution.allowed(TARGET, 2), Allowed::Nothing);
        assert_eq!(caution.allowed(TARGET, 0), Allowed::Group(2));
        caution.confirmed(key(), Seq(8));
        caution.went(TARGET);
        assert_eq!(caution.allowed(TARGET, 1), Allowed::Group(1));
        caution.confirmed(key(), Seq(9));
        assert_eq!(caution.allowed(TARGET, 1), Allowed::All);
        let other = Target { partition: 4, ..TARGET };
        assert_eq!(caution.allowed(other, 5), Allowed::All);
    }

    #[test]
    fn one_entry_of_a_lane_among_others_is_suspected_and_not_condemned() {
        let mut caution = Caution::default();
        let alert = (0, key().1);
        let chains = vec![(key(), 9, Seq(50)), (alert, 1, Seq(7))];
        caution.refused(&Refusal { target: TARGET, chains, reason: "size".to_owned() });
        assert_eq!(caution.condemned(alert, Seq(7)), None);
        assert_eq!(caution.allowed(TARGET, 0), Allowed::Group(5));
        caution.confirmed(key(), Seq(50));
        assert_eq!(caution.allowed(TARGET, 0), Allowed::Group(5), "the alert is not confirmed");
        caution.refused(&Refusal {
            target: TARGET,
            chains: vec![(alert, 1, Seq(7))],
            reason: "size".to_owned(),
        });
        assert_eq!(caution.condemned(alert, Seq(7)), Some("size"));
        caution.buried(alert, Seq(7));
        assert!(caution.is_empty());
    }
}
