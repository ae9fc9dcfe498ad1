//! What a partition remembers of idempotent producers: for each, its epoch and the last five batches.
//!
//! The rule per batch, as Kafka applies it: the batch that continues the sequence is appended; one of the
//! last five seen again is a repeat, answered with the offset it got the first time; anything else is out
//! of order. A producer not known here may only start at sequence 0. (Kafka itself takes any first sequence
//! from an unknown producer; a test double had better be strict, for a hole would go unnoticed.)

use std::collections::{HashMap, VecDeque};

use crate::protocol::ErrorCode;
use crate::protocol::batch::BatchHeader;

/// Batches remembered per producer: a client has at most five requests in flight.
const WINDOW: usize = 5;
/// Producers remembered per partition; the one unused for longest makes room.
const PRODUCERS_MAX: usize = 4_096;

/// What to do with a batch that was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is next in sequence.
    Append,
    /// It was appended before, at this offset.
    Repeat(i64),
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    first: i32,
    last: i32,
    offset: i64,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    batches: VecDeque<Remembered>,
    used: u64,
}

/// All producers of a partition.
#[derive(Debug)]
pub(super) struct Producers {
    known: HashMap<i64, Producer>,
    uses: u64,
    /// What a producer that is not known gets if it does not start at 0.
    unknown: ErrorCode,
}

impl Default for Producers {
    fn default() -> Self {
        Self { known: HashMap::new(), uses: 0, unknown: ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER }
    }
}

impl Producers {
    /// Judges a batch. Changes nothing: [`Producers::appended`] follows once the log holds it.
    pub(super) fn judge(&self, batch: &BatchHeader) -> Result<Verdict, ErrorCode> {
        if !batch.is_idempotent() {
            return Ok(Verdict::Append);
        }
        let starts = batch.base_sequence == 0;
        let known = self.known.get(&batch.producer_id);
        let Some((known, newest)) = known.and_then(|known| Some((known, known.batches.back()?))) else {
            return if starts { Ok(Verdict::Append) } else { Err(self.unknown) };
        };
        if batch.producer_epoch < known.epoch {
            return Err(ErrorCode::INVALID_PRODUCER_EPOCH);
        }
        if batch.producer_epoch > known.epoch {
            return if starts { Ok(Verdict::Append) } else { Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER) };
        }
        let expected = sequence_after(newest.last, 1);
        if batch.base_sequence == expected {
            return Ok(Verdict::Append);
        }
        let last = last_sequence(batch);
        let repeat = known.batches.iter().find(|seen| seen.first == batch.base_sequence && seen.last == last);
        match repeat {
            Some(seen) => Ok(Verdict::Repeat(seen.offset)),
            // All of it lies before what is remembered, so it was appended, but where is forgotten.
            None if known.batches.front().is_some_and(|oldest| precedes(last, oldest.first)) => {
                Err(ErrorCode::DUPLICATE_SEQUENCE_NUMBER)
            }
            None => Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER),
        }
    }

    /// Notes a batch that the log holds at `batch.base_offset`.
    pub(super) fn appended(&mut self, batch: &BatchHeader) {
        if !batch.is_idempotent() {
            return;
        }
        self.uses += 1;
        if !self.known.contains_key(&batch.producer_id) && self.known.len() >= PRODUCERS_MAX {
            self.forget_oldest();
        }
        let producer = self.known.entry(batch.producer_id).or_insert_with(|| Producer {
            epoch: batch.producer_epoch,
            batches: VecDeque::with_capacity(WINDOW),
            used: 0,
        });
        producer.used = self.uses;
        if producer.epoch != batch.producer_epoch {
            producer.epoch = batch.producer_epoch;
            producer.batches.clear();
        }
        if producer.batches.len() >= WINDOW {
            producer.batches.pop_front();
        }
        let (first, last) = (batch.base_sequence, last_sequence(batch));
        producer.batches.push_back(Remembered { first, last, offset: batch.base_offset });
    }

    /// Forgets every producer, as a broker does when their state expires. From now on `unknown` is what
    /// a producer that is not known gets unless it starts at 0. Returns how many were forgotten.
    pub(super) fn forget_all(&mut self, unknown: ErrorCode) -> usize {
        let count = self.known.len();
        self.known.clear();
        self.unknown = unknown;
        count
    }

    fn forget_oldest(&mut self) {
        let oldest = self.known.iter().min_by_key(|(_id, producer)| producer.used).map(|(id, _)| *id);
        if let Some(id) = oldest {
            self.known.remove(&id);
        }
    }
}

fn last_sequence(batch: &BatchHeader) -> i32 {
    sequence_after(batch.base_sequence, batch.last_offset_delta)
}

/// Sequences count from 0 to `i32::MAX` and start again at 0.
fn sequence_after(sequence: i32, step: i32) -> i32 {
    sequence.wrapping_add(step) & i32::MAX
}

/// Whether `a` lies before `b` on the circle of sequences, by the shorter way.
fn precedes(a: i32, b: i32) -> bool {
    let distance = b.wrapping_sub(a) & i32::MAX;
    distance != 0 && distance < i32::MAX / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::{Producers, Verdict, sequence_after};
    use crate::protocol::ErrorCode;
    use crate::protocol::batch::BatchHeader;
    use crate::protocol::batch::tests::Sample;

    fn batch(epoch: i16, sequence: i32, records: i32) -> BatchHeader {
        let sample = Sample { producer: (9, epoch, sequence), records, ..Sample::default() };
        BatchHeader::decode(&sample.encode()).unwrap()
    }

    /// Judges and, when it is to be appended, notes the batch at `offset`.
    fn offer(producers: &mut Producers, mut batch: BatchHeader, offset: i64) -> Result<Verdict, ErrorCode> {
        let verdict = producers.judge(&batch)?;
        if verdict == Verdict::Append {
            batch.base_offset = offset;
            producers.appended(&batch);
        }
        Ok(verdict)
    }

    fn filled() -> Producers {
        let mut producers = Producers::default();
        for round in 0..7 {
            let offset = i64::from(round) * 10;
            assert_eq!(offer(&mut producers, batch(0, round * 10, 10), offset), Ok(Verdict::Append));
        }
        producers
    }

    #[track_caller]
    fn check(offered: BatchHeader, expected: Result<Verdict, ErrorCode>) {
        assert_eq!(filled().judge(&offered), expected);
    }

    #[test]
    fn a_repeat_within_the_window_gets_its_first_offset() {
        check(batch(0, 60, 10), Ok(Verdict::Repeat(60)));
        check(batch(0, 20, 10), Ok(Verdict::Repeat(20)));
    }

    #[test]
    fn a_repeat_beyond_the_window_is_a_duplicate() {
        check(batch(0, 10, 10), Err(ErrorCode::DUPLICATE_SEQUENCE_NUMBER));
    }

    #[test]
    fn a_gap_and_an_overlap_are_out_of_order() {
        check(batch(0, 71, 10), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
        check(batch(0, 65, 10), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
        check(batch(0, 60, 9), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_an_old_one_is_fenced() {
        check(batch(1, 0, 1), Ok(Verdict::Append));
        check(batch(1, 70, 1), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
        let mut producers = filled();
        assert_eq!(offer(&mut producers, batch(1, 0, 1), 70), Ok(Verdict::Append));
        assert_eq!(producers.judge(&batch(0, 70, 1)), Err(ErrorCode::INVALID_PRODUCER_EPOCH));
        assert_eq!(producers.judge(&batch(1, 1, 1)), Ok(Verdict::Append));
    }

    #[test]
    fn an_unknown_producer_starts_at_zero() {
        for unknown in [ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode::UNKNOWN_PRODUCER_ID] {
            let mut producers = filled();
            assert_eq!(producers.forget_all(unknown), 1);
            assert_eq!(producers.judge(&batch(0, 70, 1)), Err(unknown));
            assert_eq!(producers.judge(&batch(0, 0, 1)), Ok(Verdict::Append));
        }
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 3), 1);
    }

    proptest! {
        /// Whatever is offered again, nothing is appended twice and the sequence has no hole.
        #[test]
        fn repeats_never_append(offers in proptest::collection::vec((any::<bool>(), 1usize..6), 1..60)) {
            let mut producers = Producers::default();
            let mut next = 0;
            let mut sent: Vec<i32> = Vec::new();
            for (again, back) in offers {
                if again && back <= sent.len() {
                    let sequence = sent[sent.len() - back];
                    let verdict = producers.judge(&batch(0, sequence, 2));
                    prop_assert_eq!(verdict, Ok(Verdict::Repeat(i64::from(sequence))));
                } else {
                    let verdict = offer(&mut producers, batch(0, next, 2), i64::from(next));
                    prop_assert_eq!(verdict, Ok(Verdict::Append));
                    sent.push(next);
                    next += 2;
                }
            }
        }
    }
}
