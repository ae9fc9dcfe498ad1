//! Many devices, and everything at random.

use super::super::Dice;
use super::*;

#[test]
fn a_storm_of_reconnects_is_accepted_in_order_and_at_the_rate() {
    let mut bench = Bench::new(Limits { links_max: 10_000, accepts_per_second: 500, ..limits() });
    for device in 0..2000 {
        bench.present(&format!("d{device:04}"));
    }
    let mut order = Vec::new();
    while order.len() < 2000 {
        for action in bench.actions() {
            let Action::Accept { device, link, .. } = action else { panic!("{action:?}") };
            bench.dispatcher.accepted(&device, link, bench.now);
            order.push(device);
        }
        if order.len() < 2000 {
            bench.wait();
        }
    }
    let took = bench.now - bench.start;
    assert!(took >= Duration::from_millis(3700) && took <= Duration::from_millis(4100), "{took:?}");
    assert!(order.is_sorted(), "first come, first served");
}

#[test]
fn links_that_broke_together_come_back_spread() {
    let mut bench = Bench::new(Limits { links_max: 1000, accepts_per_second: 10_000, ..limits() });
    let links: Vec<_> = (0..1000).map(|n| (format!("d{n}"), bench.linked(&format!("d{n}")))).collect();
    bench.pass(Duration::from_secs(60));
    let broke = bench.now;
    for (device, link) in &links {
        bench.ended(device, *link, Ended::Lost);
    }
    let mut quarters = [0; 9];
    let mut accepted = 0;
    while accepted < 1000 {
        bench.wait();
        for action in bench.actions() {
            let Action::Accept { device, link, .. } = action else { panic!("{action:?}") };
            bench.dispatcher.accepted(&device, link, bench.now);
            quarters[usize::try_from((bench.now - broke).as_millis() / 250).unwrap()] += 1;
            accepted += 1;
        }
    }
    assert!(quarters[..8].iter().all(|count| (60..=190).contains(count)), "{quarters:?}");
}

/// What the world knows: which devices are present, and every link with what it was told.
#[derive(Default)]
struct World {
    present: BTreeSet<String>,
    accepting: BTreeMap<LinkNo, String>,
    asking: BTreeSet<LinkNo>,
    /// Whose session, and whether it gets commands, is to end after the one in hand, is to end at once.
    links: BTreeMap<LinkNo, (String, Told)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Serve,
    Hold,
    Finish,
    Close,
}

const DEVICES: u64 = 12;

impl World {
    fn apply(&mut self, action: Action) {
        match action {
            Action::Accept { device, link, .. } => {
                let device = device.to_string();
                assert!(self.present.contains(&device), "{device} is not here");
                assert!(!self.has_link(&device), "{device} has a link");
                assert!(!self.accepting.values().any(|other| *other == device), "{device} is being accepted");
                self.accepting.insert(link, device);
            }
            Action::Discover { link, .. } => assert!(self.asking.insert(link)),
            Action::Serve { link } => self.tell(link, Told::Serve),
            Action::Finish { link } => self.tell(link, Told::Finish),
            Action::Close { link } => self.tell(link, Told::Close),
        }
    }

    fn tell(&mut self, link: LinkNo, told: Told) {
        match self.links.get_mut(&link) {
            Some((_, state)) => *state = told,
            None => assert!(self.accepting.contains_key(&link), "{link:?} is told {told:?} and is no more"),
        }
    }

    /// A link that is open and was not told to close at once.
    fn has_link(&self, device: &str) -> bool {
        self.links.values().any(|(name, told)| name == device && *told != Told::Close)
    }

    fn check(&self, bench: &Bench, links_max: usize) {
        let counts = bench.counts();
        let serving = self.links.values().filter(|(_, told)| *told == Told::Serve).count();
        assert!(serving <= links_max, "{serving} links serve");
        assert_eq!(counts.asking, self.asking.len());
        for (device, told) in self.links.values() {
            let gone = !self.present.contains(device);
            assert!(!gone || *told != Told::Serve, "{device} is served and not here");
        }
        let parked = self.links.values().filter(|(_, told)| *told == Told::Hold).count();
        assert_eq!(counts.parked, parked);
        let known = counts.linked
            + counts.closing
            + counts.accepting
            + counts.ready
            + counts.pausing
            + counts.passive;
        assert!(known >= self.present.len(), "somebody was forgotten: {counts:?}");
    }
}

fn pick<T: Clone>(dice: &mut Dice, from: impl Iterator<Item = T>) -> Option<T> {
    let all: Vec<T> = from.collect();
    let place = dice.below(u64::try_from(all.len()).unwrap());
    all.get(usize::try_from(place).unwrap()).cloned()
}

/// One thing happens: somebody comes or goes, or a link answers, fails, ends or works.
fn happen(bench: &mut Bench, world: &mut World, dice: &mut Dice) {
    let device = format!("d{}", dice.below(DEVICES));
    match dice.below(9) {
        0 | 1 => {
            world.present.insert(device.clone());
            bench.present(&device);
        }
        2 => {
            world.present.remove(&device);
            bench.absent(&device);
            // What is due about its link is said in the same breath.
            bench.actions().into_iter().for_each(|action| world.apply(action));
        }
        3 | 4 => answer(bench, world, dice),
        5 => find(bench, world, dice, &device),
        6 => {
            let Some((link, (device, told))) = pick(dice, world.links.clone().into_iter()) else { return };
            let told_to = matches!(told, Told::Finish | Told::Close);
            let why = if told_to {
                Ended::Closed
            } else {
                [Ended::LockLost, Ended::Lost, Ended::Detached][link_dice(dice)]
            };
            world.links.remove(&link);
            bench.ended(&device, link, why);
        }
        7 => {
            if let Some((link, (device, _))) = pick(dice, world.links.clone().into_iter()) {
                bench.dispatcher.touched(&device, link, bench.now);
            }
        }
        _ => bench.pass(dice.between(Duration::ZERO, Duration::from_secs(20))),
    }
}

fn link_dice(dice: &mut Dice) -> usize {
    usize::try_from(dice.below(3)).unwrap()
}

fn answer(bench: &mut Bench, world: &mut World, dice: &mut Dice) {
    let Some((link, device)) = pick(dice, world.accepting.clone().into_iter()) else { return };
    world.accepting.remove(&link);
    let locked = world.links.values().any(|(name, _)| *name == device);
    let refusal = match dice.below(10) {
        _ if locked => Some(Refusal::Locked),
        0 => Some(Refusal::Locked),
        1 => Some(Refusal::Busy(Duration::ZERO)),
        2 => Some(Refusal::Lost),
        3 => Some(Refusal::TimedOut),
        4 => Some(Refusal::Forbidden),
        _ => None,
    };
    if let Some(refusal) = refusal {
        bench.refused(&device, link, refusal);
        return;
    }
    let told = if world.present.contains(&device) { Told::Serve } else { Told::Close };
    world.links.insert(link, (device.clone(), told));
    bench.dispatcher.accepted(&device, link, bench.now);
    // Whether it was told to close while it was being accepted, only the dispatcher knows.
    if bench.dispatcher.holds(&device) != Some(link) {
        world.tell(link, Told::Close);
    }
}

fn find(bench: &mut Bench, world: &mut World, dice: &mut Dice, session: &str) {
    let Some(link) = pick(dice, world.asking.clone().into_iter()) else { return };
    world.asking.remove(&link);
    let free = !world.links.values().any(|(name, _)| name == session);
    if !free || dice.below(3) == 0 {
        let refusal = (dice.below(4) == 0).then_some(Refusal::Lost);
        bench.dispatcher.found_none(QUEUE, link, refusal, bench.now);
        return;
    }
    let told = match bench.found(link, session) {
        Verdict::Serve => Told::Serve,
        Verdict::Park => Told::Hold,
        Verdict::Close => Told::Close,
    };
    assert!(told != Told::Serve || world.present.contains(session), "{session} is not here");
    world.links.insert(link, (session.to_owned(), told));
}

/// Lets everything succeed until nothing changes, and sees that every place is used.
fn settle(bench: &mut Bench, world: &mut World, links_max: usize) {
    for _ in 0..400 {
        for (link, device) in std::mem::take(&mut world.accepting) {
            bench.dispatcher.accepted(&device, link, bench.now);
            let told = if bench.dispatcher.holds(&device) == Some(link) { Told::Serve } else { Told::Close };
            world.links.insert(link, (device, told));
        }
        for link in std::mem::take(&mut world.asking) {
            bench.dispatcher.found_none(QUEUE, link, None, bench.now);
        }
        let over = |told: Told| matches!(told, Told::Finish | Told::Close);
        let ended: Vec<_> =
            world.links.iter().filter(|(_, (_, told))| over(*told)).map(|(link, _)| *link).collect();
        for link in ended {
            let (device, _) = world.links.remove(&link).expect("it is there");
            bench.ended(&device, link, Ended::Closed);
        }
        bench.pass(Duration::from_secs(2));
        bench.actions().into_iter().for_each(|action| world.apply(action));
    }
    let wanted = world.present.len().min(links_max);
    // One may be changing hands.
    let used = world.links.len() + world.accepting.len();
    assert!(used >= wanted, "{used} of {wanted} places are used");
}

#[test]
fn whatever_happens_no_device_has_two_links_and_nobody_is_forgotten() {
    let base: u64 = rand::random();
    println!("seed {base}");
    for round in 0..40 {
        let mut dice = Dice::new(base.wrapping_add(round));
        let links_max = usize::try_from(1 + dice.below(8)).unwrap();
        let mut bench = Bench::new(Limits { links_max, ..limits() });
        let mut world = World::default();
        for _ in 0..300 {
            happen(&mut bench, &mut world, &mut dice);
            bench.actions().into_iter().for_each(|action| world.apply(action));
            world.check(&bench, links_max);
        }
        settle(&mut bench, &mut world, links_max);
        world.check(&bench, links_max);
    }
}
