//! Records that the service does not take, and how one is told from those that fell with it.
//!
//! A refusal that is about a record comes for a whole batch. Its entries are *suspects*: they are sent again
//! in groups, each alone in its chain, of half as many entries as the refused batch had. A refusal of a single
//! entry *condemns* it: it goes to lane `dead`. So one bad record among thousands costs a dozen attempts, and
//! everything around it arrives in order.

use penstock_proto::Seq;

use super::packer::Key;

/// What may be sent in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Anything.
    All,
    /// At most so many more entries together.
    Group(u32),
    /// Nothing before everything in flight is confirmed.
    Nothing,
}

/// Suspects and condemned entries.
#[derive(Debug, Default)]
pub(super) struct Caution {
    suspects: Vec<Suspects>,
    condemned: Vec<(Key, Seq, String)>,
}

#[derive(Debug)]
struct Suspects {
    key: Key,
    /// The last of them.
    until: Seq,
    /// How many may go together.
    group: u32,
    /// How many have gone since nothing of the chain was in flight.
    gone: u32,
}

impl Caution {
    /// Whether nothing is suspected: the normal case.
    pub(super) const fn is_empty(&self) -> bool {
        self.suspects.is_empty() && self.condemned.is_empty()
    }

    /// A batch or pack with `count` entries of a chain, the last one `last`, was refused.
    pub(super) fn refused(&mut self, key: Key, count: u32, last: Seq, reason: &str) {
        if count <= 1 {
            self.condemn(key, last, reason);
            return;
        }
        let group = (count / 2).max(1);
        match self.suspects.iter_mut().find(|suspects| suspects.key == key) {
            Some(known) => {
                known.until = known.until.max(last);
                known.group = known.group.min(group);
                known.gone = 0;
            }
            None => self.suspects.push(Suspects { key, until: last, group, gone: 0 }),
        }
    }

    /// The service, or the client library, never takes this entry.
    pub(super) fn condemn(&mut self, key: Key, seq: Seq, reason: &str) {
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
    }

    /// What may be sent in a chain from `seq` on, while `in_flight` records of it are on their way.
    pub(super) fn allowed(&mut self, key: Key, seq: Seq, in_flight: usize) -> Allowed {
        let Some(place) = self.suspects.iter().position(|suspects| suspects.key == key) else {
            return Allowed::All;
        };
        let Some(suspects) = self.suspects.get_mut(place) else { return Allowed::All };
        if in_flight == 0 {
            if seq > suspects.until {
                self.suspects.swap_remove(place);
                return Allowed::All;
            }
            suspects.gone = 0;
        }
        match suspects.group.saturating_sub(suspects.gone) {
            _ if seq > suspects.until => Allowed::Nothing,
            0 => Allowed::Nothing,
            left => Allowed::Group(left),
        }
    }

    /// An entry of a chain was sent, or joined a pack.
    pub(super) fn went(&mut self, key: Key) {
        if let Some(suspects) = self.suspects.iter_mut().find(|suspects| suspects.key == key) {
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

    use super::super::tracker::{ChainId, Target, TopicId};
    use super::*;

    fn key() -> Key {
        (2, ChainId { target: Target { topic: TopicId(0), partition: 3 }, stream: Stream::Live })
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
                if caution.allowed(key(), Seq(seq), group.len()) == Allowed::Nothing {
                    break;
                }
                caution.went(key());
                group.push(seq);
            }
            if group.contains(&bad) && !dead.contains(&bad) {
                let last = Seq(*group.last().unwrap());
                caution.refused(key(), u32::try_from(group.len()).unwrap(), last, "bad");
                caution.restart();
                rebuilds += 1;
                assert!(rebuilds < 30, "it never comes to an end");
            } else {
                next += group.len() as u64;
            }
        }
        assert_eq!(dead, [bad]);
        assert_eq!(caution.allowed(key(), Seq(1001), 0), Allowed::All);
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
    fn what_is_behind_the_suspects_waits_for_them() {
        let mut caution = Caution::default();
        caution.refused(key(), 4, Seq(9), "size");
        assert_eq!(caution.allowed(key(), Seq(5), 0), Allowed::Group(2));
        caution.went(key());
        caution.went(key());
        assert_eq!(caution.allowed(key(), Seq(7), 2), Allowed::Nothing);
        assert_eq!(caution.allowed(key(), Seq(7), 0), Allowed::Group(2));
        caution.went(key());
        assert_eq!(caution.allowed(key(), Seq(10), 1), Allowed::Nothing);
        assert_eq!(caution.allowed(key(), Seq(10), 0), Allowed::All);
        let other = (1, key().1);
        assert_eq!(caution.allowed(other, Seq(7), 5), Allowed::All);
    }
}
