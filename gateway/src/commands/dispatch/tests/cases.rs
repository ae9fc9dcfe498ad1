//! One device, and few: presence, refusals, losses.

use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_device_that_comes_is_accepted_at_once_and_closed_when_it_goes() {
    let mut bench = Bench::new(limits());
    let link = bench.linked("d1");
    assert_eq!((bench.counts().linked, bench.actions()), (1, vec![]));
    bench.present("d1");
    assert_eq!(bench.actions(), [], "it was there already");
    bench.absent("d1");
    assert_eq!(bench.actions(), [Action::Close { link }]);
    assert_eq!(bench.counts().closing, 1);
    bench.ended("d1", link, Ended::Closed);
    assert_eq!((bench.counts(), bench.dispatcher.wake_at(bench.now)), (Counts::default(), None));
}

#[test]
fn a_device_that_goes_while_it_waits_costs_nothing() {
    let mut bench = Bench::new(limits());
    bench.present("d1");
    bench.absent("d1");
    bench.absent("d1");
    assert_eq!((bench.actions(), bench.counts()), (vec![], Counts::default()));
}

#[test]
fn a_device_that_comes_back_waits_until_its_old_link_is_closed() {
    let mut bench = Bench::new(limits());
    let link = bench.linked("d1");
    bench.absent("d1");
    bench.present("d1");
    assert_eq!(bench.actions(), [Action::Close { link }], "never two links of one device");
    bench.ended("d1", link, Ended::Closed);
    let next = bench.accept("d1");
    assert_ne!(next, link);
}

#[test]
fn a_device_that_goes_during_its_accept_is_closed_behind_it() {
    let mut bench = Bench::new(limits());
    bench.present("d1");
    let link = bench.accept("d1");
    bench.absent("d1");
    assert_eq!(bench.actions(), [Action::Close { link }]);
    bench.dispatcher.accepted("d1", link, bench.now);
    assert_eq!(bench.counts().linked, 0, "what was told to close stays so");
    bench.ended("d1", link, Ended::Closed);
    assert_eq!(bench.counts(), Counts::default());
}

#[test]
fn reports_about_a_link_that_is_no_more_change_nothing() {
    let mut bench = Bench::new(limits());
    let old = bench.linked("d1");
    bench.ended("d1", old, Ended::LockLost);
    let (_, link) = bench.wait_for_accept("d1");
    bench.dispatcher.accepted("d1", old, bench.now);
    bench.refused("d1", old, Refusal::Locked);
    bench.ended("d1", old, Ended::Lost);
    bench.dispatcher.touched("d1", old, bench.now);
    assert_eq!((bench.counts().accepting, bench.actions()), (1, vec![]));
    bench.dispatcher.accepted("d1", link, bench.now);
    assert_eq!(bench.counts().linked, 1);
}

/// A device moved here from another replica, which still holds the lock.
#[test]
fn a_locked_session_is_tried_from_a_tenth_of_a_second_to_two_while_the_device_is_there() {
    let mut bench = Bench::new(limits());
    bench.present("d1");
    let mut link = bench.accept("d1");
    for whole in [100, 200, 400, 800, 1600, 2000, 2000] {
        bench.refused("d1", link, Refusal::Locked);
        let waited;
        (waited, link) = bench.wait_for_accept("d1");
        assert!(waited >= ms(whole / 2) && waited <= ms(whole + 5), "{whole}: {waited:?}");
    }
    bench.refused("d1", link, Refusal::Locked);
    bench.absent("d1");
    assert_eq!((bench.counts(), bench.dispatcher.wake_at(bench.now)), (Counts::default(), None));
}

#[test]
fn a_lost_lock_is_taken_again_soon_and_ever_later_if_it_is_lost_again() {
    let mut bench = Bench::new(limits());
    let mut link = bench.linked("d1");
    let mut waits = Vec::new();
    for _ in 0..8 {
        bench.ended("d1", link, Ended::LockLost);
        let waited;
        (waited, link) = bench.wait_for_accept("d1");
        bench.dispatcher.accepted("d1", link, bench.now);
        waits.push(waited);
    }
    assert!(waits[0] <= ms(105) && waits[7] >= ms(6400), "{waits:?}");
    bench.pass(Duration::from_secs(60));
    bench.ended("d1", link, Ended::LockLost);
    assert!(bench.wait_for_accept("d1").0 <= ms(105), "it was well in between");
}

/// A message that ends its link each time it comes must not turn into a loop: the link works for a moment every time.
#[test]
fn a_link_that_fails_of_every_message_is_tried_less_and_less_often() {
    let mut bench = Bench::new(limits());
    let mut link = bench.linked("d1");
    let mut waits = Vec::new();
    for _ in 0..9 {
        bench.dispatcher.touched("d1", link, bench.now);
        bench.ended("d1", link, Ended::Failed);
        let waited;
        (waited, link) = bench.wait_for_accept("d1");
        bench.dispatcher.accepted("d1", link, bench.now);
        waits.push(waited);
    }
    assert!(waits[0] <= ms(205) && waits[8] >= ms(15_000), "{waits:?}");
    for _ in 0..11 {
        bench.pass(Duration::from_secs(1));
        bench.dispatcher.touched("d1", link, bench.now);
    }
    bench.ended("d1", link, Ended::Failed);
    assert!(bench.wait_for_accept("d1").0 <= ms(205), "it lived for a while, whenever it worked last");
}

#[test]
fn a_busy_service_is_left_alone_for_ten_seconds_at_least_and_then_one_device_tries() {
    let mut bench = Bench::new(limits());
    bench.present("d1");
    bench.present("d2");
    bench.present("d3");
    let links: Vec<_> = bench
        .actions()
        .into_iter()
        .map(|action| match action {
            Action::Accept { device, link, .. } => (device, link),
            other => panic!("{other:?}"),
        })
        .collect();
    for (device, link) in &links {
        bench.refused(device, *link, Refusal::Busy(Duration::ZERO));
    }
    assert_eq!(bench.actions(), []);
    assert!(bench.dispatcher.down_for(QUEUE, bench.now).is_some_and(|left| left >= ms(10_000)));
    let since = bench.now;
    let (_, probe) = bench.wait_for_accept("d1");
    assert!(bench.now - since >= ms(10_000));
    assert_eq!((bench.counts().accepting, bench.dispatcher.wake_at(bench.now)), (1, None));
    bench.refused("d1", probe, Refusal::Busy(Duration::from_secs(30)));
    let since = bench.now;
    let (_, probe) = bench.wait_for_accept("d2");
    assert!(bench.now - since >= ms(30_000), "as it asked for");
    bench.dispatcher.accepted("d2", probe, bench.now);
    assert_eq!(bench.actions().len(), 2, "it is over: the others follow");
}

#[test]
fn who_tries_for_all_and_goes_lets_the_next_one_try() {
    let mut bench = Bench::new(limits());
    bench.present("d1");
    bench.present("d2");
    let first = bench.actions();
    for action in first {
        let Action::Accept { device, link, .. } = action else { panic!("{action:?}") };
        bench.refused(&device, link, Refusal::Lost);
    }
    let (_, probe) = bench.wait_for_accept("d1");
    bench.absent("d1");
    assert_eq!(bench.actions(), [Action::Close { link: probe }]);
    bench.ended("d1", probe, Ended::Closed);
    bench.accept("d2");
}

#[test]
fn a_missing_entity_is_asked_for_by_one_device_and_less_and_less_often() {
    let mut bench = Bench::new(limits());
    bench.present("d1");
    let mut link = bench.accept("d1");
    let mut waits = Vec::new();
    for _ in 0..10 {
        bench.refused("d1", link, Refusal::Forbidden);
        let waited;
        (waited, link) = bench.wait_for_accept("d1");
        waits.push(waited);
    }
    assert!(waits[0] >= ms(2500) && waits[9] >= ms(30_000) && waits[9] <= ms(60_005), "{waits:?}");
}

#[test]
fn entities_do_not_wait_for_each_other() {
    let start = clock::now();
    let mut dispatcher = Dispatcher::new(limits(), 2, 7, start);
    dispatcher.present(&Arc::from("a"), EntityNo(0), start);
    let Some(Action::Accept { device, link, .. }) = dispatcher.next(start) else { panic!("accepted") };
    dispatcher.refused(&device, link, Refusal::Forbidden, start);
    dispatcher.present(&Arc::from("b"), EntityNo(1), start);
    assert!(matches!(dispatcher.next(start), Some(Action::Accept { entity: EntityNo(1), .. })));
    assert_eq!(dispatcher.next(start), None);
    assert!(dispatcher.down_for(EntityNo(1), start).is_none());
}
