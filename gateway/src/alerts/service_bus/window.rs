//! What is in hand: commands between the lane and Service Bus. No clock and no I/O of its own.
//!
//! Many are on their way at once, but of each device only one: what is sent again after a failure then never comes behind
//! what was raised later for the same device.

use std::collections::{HashSet, VecDeque};

use penstock_proto::Seq;

use super::posting::Posting;

/// Commands in hand, in the order of the lane.
#[derive(Debug)]
pub(super) struct Window {
    items: VecDeque<Item>,
    /// Of those that are not done.
    bytes: usize,
    on_their_way: usize,
    /// Everything below it was looked at.
    next: Seq,
}

#[derive(Debug)]
struct Item {
    seq: Seq,
    /// `None` once it is dealt with: positions leave in order.
    posting: Option<Posting>,
    on_its_way: bool,
    /// How often the service refused it for what it is.
    refusals: u32,
}

/// What a refusal of one command leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is sent once more, with nothing else on its way: it may have been the fault of another.
    Alone,
    /// It was alone, and it was not the first time.
    Guilty,
}

/// Most commands in hand.
pub(super) const COMMANDS_MAX: usize = 64;
/// Most bytes of commands in hand; one alone may have more.
pub(super) const BYTES_MAX: usize = 1 << 20;

impl Window {
    /// An empty one; the lane is read from `next` on.
    pub(super) const fn new(next: Seq) -> Self {
        Self { items: VecDeque::new(), bytes: 0, on_their_way: 0, next }
    }

    /// The first position of the lane that was not looked at.
    pub(super) const fn next(&self) -> Seq {
        self.next
    }

    /// The first position that is not dealt with.
    pub(super) fn low(&self) -> Seq {
        self.items.front().map_or(self.next, |item| item.seq)
    }

    /// How many are not dealt with.
    pub(super) fn len(&self) -> usize {
        self.open().count()
    }

    /// Whether nothing is in hand.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether an answer is awaited.
    pub(super) const fn is_sending(&self) -> bool {
        self.on_their_way > 0
    }

    /// Whether one of so many bytes may come in.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.items.is_empty()
            || (self.items.len() < COMMANDS_MAX && self.bytes.saturating_add(bytes) <= BYTES_MAX)
    }

    /// Takes a command in.
    pub(super) fn push(&mut self, seq: Seq, posting: Posting) {
        self.bytes += posting.bytes();
        self.next = seq.next();
        self.items.push_back(Item { seq, posting: Some(posting), on_its_way: false, refusals: 0 });
    }

    /// Nothing below `next` concerns this destination, or is there any more.
    pub(super) fn pass(&mut self, next: Seq) {
        self.next = self.next.max(next);
    }

    /// The next command that may be sent; it is on its way from now on. Of each device the oldest only, and alone while one
    /// is suspected.
    pub(super) fn send(&mut self) -> Option<(Seq, &Posting)> {
        let suspects = self.open().any(|item| item.refusals > 0);
        if suspects && self.on_their_way > 0 {
            return None;
        }
        let mut devices = HashSet::new();
        let place = self.items.iter().position(|item| {
            let device = item.posting.as_ref().map(|posting| &posting.device);
            device.is_some_and(|device| devices.insert(device)) && !item.on_its_way
        })?;
        let item = self.items.get_mut(place)?;
        item.on_its_way = true;
        self.on_their_way += 1;
        item.posting.as_ref().map(|posting| (item.seq, posting))
    }

    /// The service took it.
    pub(super) fn taken(&mut self, seq: Seq) -> Option<Posting> {
        self.again(seq);
        self.done(seq)
    }

    /// It was not taken, and is sent again.
    pub(super) fn again(&mut self, seq: Seq) {
        if let Some(item) = self.items.iter_mut().find(|item| item.seq == seq && item.on_its_way) {
            item.on_its_way = false;
            self.on_their_way -= 1;
        }
    }

    /// The link is gone, and with it what was on its way.
    pub(super) fn all_again(&mut self) {
        self.items.iter_mut().for_each(|item| item.on_its_way = false);
        self.on_their_way = 0;
    }

    /// The service refused it for what it is. It waits to be sent again, or to be given up.
    pub(super) fn refused(&mut self, seq: Seq) -> Verdict {
        let alone = self.on_their_way == 1;
        self.again(seq);
        let Some(item) = self.items.iter_mut().find(|item| item.seq == seq) else { return Verdict::Alone };
        item.refusals = item.refusals.saturating_add(1);
        if alone && item.refusals > 1 { Verdict::Guilty } else { Verdict::Alone }
    }

    /// It is dealt with: it was taken, or is given up.
    pub(super) fn done(&mut self, seq: Seq) -> Option<Posting> {
        let item = self.items.iter_mut().find(|item| item.seq == seq)?;
        let posting = item.posting.take()?;
        self.bytes -= posting.bytes();
        while self.items.front().is_some_and(|item| item.posting.is_none()) {
            self.items.pop_front();
        }
        Some(posting)
    }

    /// The first position that is not dealt with when this one is.
    pub(super) fn low_without(&self, seq: Seq) -> Seq {
        self.open().find(|item| item.seq != seq).map_or(self.next, |item| item.seq)
    }

    /// Gives up what nobody wants any more; what is on its way is left to the service.
    pub(super) fn expire(&mut self, now_ms: u64) -> Vec<Posting> {
        let over = |item: &&Item| {
            !item.on_its_way && item.posting.as_ref().is_some_and(|posting| posting.expires_ms <= now_ms)
        };
        let expired: Vec<Seq> = self.items.iter().filter(over).map(|item| item.seq).collect();
        expired.into_iter().filter_map(|seq| self.done(seq)).collect()
    }

    fn open(&self) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(|item| item.posting.is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    fn posting(device: &str, bytes: usize) -> Posting {
        Posting::for_tests(device, "id", bytes)
    }

    fn sent(window: &mut Window) -> Vec<u64> {
        std::iter::from_fn(|| window.send().map(|(seq, _)| seq.0)).collect()
    }

    fn with(devices: &[&str]) -> Window {
        let mut window = Window::new(Seq(1));
        for (seq, device) in (1..).zip(devices) {
            window.push(Seq(seq), posting(device, 10));
        }
        window
    }

    #[test]
    fn of_each_device_one_is_on_its_way_and_the_oldest() {
        let mut window = with(&["a", "b", "a", "c", "b"]);
        assert_eq!(sent(&mut window), [1, 2, 4]);
        assert!(window.taken(Seq(2)).is_some());
        assert_eq!((sent(&mut window), window.low()), (vec![5], Seq(1)));
        window.again(Seq(1));
        assert_eq!(sent(&mut window), [1], "before the later one of its device");
        assert!(window.taken(Seq(1)).is_some());
        assert_eq!((sent(&mut window), window.low()), (vec![3], Seq(3)));
    }

    #[test]
    fn positions_are_dealt_with_in_order_and_what_is_passed_counts() {
        let mut window = with(&["a", "b"]);
        window.pass(Seq(9));
        sent(&mut window);
        window.taken(Seq(2));
        assert_eq!((window.low(), window.low_without(Seq(1)), window.len()), (Seq(1), Seq(9), 1));
        window.taken(Seq(1));
        assert_eq!((window.low(), window.is_empty(), window.is_sending()), (Seq(9), true, false));
    }

    #[test]
    fn it_is_full_at_its_count_and_at_its_bytes() {
        let mut window = Window::new(Seq(1));
        for seq in 1..=COMMANDS_MAX as u64 {
            assert!(window.has_room(10), "{seq}");
            window.push(Seq(seq), posting(&format!("d-{seq}"), 10));
        }
        assert!(!window.has_room(0));
        let mut window = Window::new(Seq(1));
        assert!(window.has_room(3 * BYTES_MAX), "one alone");
        window.push(Seq(1), posting("a", BYTES_MAX / 2));
        assert!(window.has_room(BYTES_MAX / 4) && !window.has_room(BYTES_MAX / 2 + 1));
        window.done(Seq(1));
        assert!(window.has_room(3 * BYTES_MAX));
    }

    #[test]
    fn what_nobody_wants_any_more_goes_unless_it_is_on_its_way() {
        let mut window = Window::new(Seq(1));
        for (seq, expires_ms) in [(1, 50), (2, 40), (3, 90)] {
            window.push(Seq(seq), Posting { expires_ms, ..posting(&format!("d-{seq}"), 10) });
        }
        assert_eq!(window.send().map(|(seq, _)| seq), Some(Seq(1)));
        assert_eq!(window.expire(50).len(), 1);
        assert_eq!(window.low(), Seq(1));
        window.all_again();
        assert_eq!((window.expire(50).len(), window.low(), window.len()), (1, Seq(3), 1));
    }

    #[test]
    fn one_that_is_refused_is_tried_alone_before_it_is_given_up() {
        let mut window = with(&["a", "b", "c"]);
        assert_eq!(sent(&mut window), [1, 2, 3]);
        assert_eq!(window.refused(Seq(2)), Verdict::Alone);
        assert_eq!(sent(&mut window), [0_u64; 0], "not while others are on their way");
        window.taken(Seq(1));
        window.taken(Seq(3));
        assert_eq!(sent(&mut window), [2]);
        assert_eq!(window.refused(Seq(2)), Verdict::Guilty);
        assert_eq!(window.low_without(Seq(2)), Seq(4));
        window.done(Seq(2));
        assert_eq!(window.low(), Seq(4));
        // A link that ends for one of them tells of all that were on their way.
        let mut window = with(&["a", "b"]);
        sent(&mut window);
        for seq in [1, 2] {
            assert_eq!(window.refused(Seq(seq)), Verdict::Alone, "{seq}");
        }
        assert_eq!(sent(&mut window), [1]);
        window.taken(Seq(1));
        assert_eq!(sent(&mut window), [2]);
        assert_eq!(window.refused(Seq(2)), Verdict::Guilty);
    }

    /// Whatever happens to what is on its way, each is taken or given up, and of each device in order.
    #[test]
    fn nothing_is_lost_and_devices_keep_their_order_under_random_failures() {
        for _ in 0..20 {
            let seed: u64 = rand::random();
            let mut random = StdRng::seed_from_u64(seed);
            let mut window = Window::new(Seq(1));
            let (mut last, mut flying, mut ends) = (HashMap::new(), Vec::new(), BTreeMap::new());
            let (total, mut dealt) = (300, 1);
            while ends.len() < usize::try_from(total).unwrap() {
                while window.next().0 <= total && window.has_room(10) {
                    let device = format!("d-{}", random.random_range(0..7));
                    window.push(window.next(), Posting::for_tests(&device, &window.next().0.to_string(), 10));
                }
                while let Some((seq, posting)) = window.send() {
                    let before = last.insert(posting.device.clone(), seq);
                    assert!(
                        before.is_none_or(|before| before <= seq),
                        "seed {seed}: {before:?} before {seq}"
                    );
                    flying.push(seq);
                }
                let place = random.random_range(0..flying.len());
                let seq = flying.swap_remove(place);
                let end = match random.random_range(0..10) {
                    0 => {
                        window.all_again();
                        flying.clear();
                        None
                    }
                    1 | 2 => {
                        window.again(seq);
                        None
                    }
                    3 if window.refused(seq) == Verdict::Guilty => window.done(seq),
                    3 => None,
                    _ => window.taken(seq),
                };
                if let Some(posting) = end {
                    assert!(ends.insert(seq, posting).is_none(), "seed {seed}: {seq} ends twice");
                }
                assert!(window.low() <= window.next(), "seed {seed}");
                while dealt < window.low().0 {
                    assert!(ends.contains_key(&Seq(dealt)), "seed {seed}: {dealt} was passed");
                    dealt += 1;
                }
            }
            let numbers = ends.values().map(|posting| posting.message.message_id.clone().unwrap());
            assert!(numbers.eq((1..=total).map(|number| number.to_string())), "seed {seed}");
            assert!(window.is_empty() && window.bytes == 0, "seed {seed}");
        }
    }
}
