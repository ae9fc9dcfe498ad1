//! More devices than places.

use super::*;

/// Four devices with links, of which `d1` was idle the longest, and `d5` without.
fn crowded() -> (Bench, [LinkNo; 4]) {
    let mut bench = Bench::new(limits());
    let links = ["d1", "d2", "d3", "d4"].map(|device| {
        bench.pass(Duration::from_secs(1));
        bench.linked(device)
    });
    bench.present("d5");
    (bench, links)
}

#[test]
fn receivers_wait_for_any_session_only_while_a_device_has_no_place() {
    let mut bench = Bench::new(limits());
    for device in ["d1", "d2", "d3", "d4"] {
        bench.linked(device);
    }
    assert_eq!(bench.actions(), []);
    bench.present("d5");
    let actions = bench.actions();
    assert_eq!(actions.len(), 2, "{actions:?}");
    assert!(actions.iter().all(|action| matches!(action, Action::Discover { .. })));
    let Action::Discover { link, .. } = actions[0] else { panic!("as said") };
    bench.absent("d5");
    bench.dispatcher.found_none(QUEUE, link, None, bench.now);
    assert_eq!(bench.actions(), [], "nobody is without a place any more");
}

#[test]
fn a_found_session_of_a_device_here_gets_the_place_of_the_link_that_was_idle_the_longest() {
    let (mut bench, links) = crowded();
    let receiver = bench.discover();
    bench.dispatcher.touched("d1", links[0], bench.now);
    assert_eq!(bench.found(receiver, "d5"), Verdict::Serve);
    assert_eq!(bench.actions(), [Action::Finish { link: links[1] }], "d2, since d1 just worked");
    bench.ended("d2", links[1], Ended::Closed);
    let counts = bench.counts();
    assert_eq!((counts.linked, counts.closing, counts.passive), (4, 0, 1));
    assert!(bench.actions().iter().all(|action| matches!(action, Action::Discover { .. })), "d2 waits now");
}

#[test]
fn a_free_place_goes_to_a_device_without_one() {
    let (mut bench, links) = crowded();
    bench.discover();
    bench.absent("d3");
    assert_eq!(bench.actions(), [Action::Close { link: links[2] }]);
    bench.ended("d3", links[2], Ended::Closed);
    bench.accept("d5");
}

#[test]
fn an_evicted_device_that_goes_is_closed_without_waiting_for_its_command() {
    let (mut bench, links) = crowded();
    let receiver = bench.discover();
    bench.found(receiver, "d5");
    assert_eq!(bench.actions(), [Action::Finish { link: links[0] }]);
    bench.absent("d1");
    assert_eq!(bench.actions(), [Action::Close { link: links[0] }]);
    bench.ended("d1", links[0], Ended::Closed);
    assert_eq!(bench.counts().passive, 0);
}

#[test]
fn sessions_of_devices_that_are_not_here_are_held_for_a_time_and_up_to_a_bound() {
    let (mut bench, _) = crowded();
    let mut parked = Vec::new();
    for n in 0..3 {
        let receiver = bench.discover();
        assert_eq!(bench.found(receiver, &format!("away-{n}")), Verdict::Park);
        parked.push(receiver);
    }
    let receiver = bench.discover();
    assert_eq!(bench.found(receiver, "away-3"), Verdict::Close, "three is the bound");
    assert_eq!(bench.counts().parked, 3);
    bench.pass(Duration::from_secs(20));
    let closed: Vec<_> =
        bench.actions().into_iter().filter(|action| matches!(action, Action::Close { .. })).collect();
    assert_eq!(closed, parked.iter().map(|link| Action::Close { link: *link }).collect::<Vec<_>>());
    assert_eq!(bench.counts().parked, 0);
    for (n, link) in parked.into_iter().enumerate() {
        bench.ended(&format!("away-{n}"), link, Ended::Closed);
    }
    assert_eq!(bench.counts().parked, 0);
}

#[test]
fn a_held_session_serves_its_device_as_soon_as_that_comes() {
    let (mut bench, links) = crowded();
    let receiver = bench.discover();
    assert_eq!(bench.found(receiver, "away"), Verdict::Park);
    bench.present("away");
    let actions = bench.actions();
    assert!(actions.contains(&Action::Serve { link: receiver }), "{actions:?}");
    assert!(actions.contains(&Action::Finish { link: links[0] }), "{actions:?}");
    assert_eq!(bench.counts().parked, 0);
}

#[test]
fn a_held_session_whose_lock_is_lost_is_forgotten() {
    let (mut bench, _) = crowded();
    let receiver = bench.discover();
    assert_eq!(bench.found(receiver, "away"), Verdict::Park);
    bench.ended("away", receiver, Ended::LockLost);
    assert_eq!(bench.counts().parked, 0);
    bench.pass(Duration::from_secs(20));
    assert!(!bench.actions().contains(&Action::Close { link: receiver }));
}

/// A thousand sessions with messages whose devices are away: the service offers one as soon as another is closed.
#[test]
fn a_backlog_of_devices_that_are_away_does_not_spin() {
    let (mut bench, _) = crowded();
    let mut found = 0_u32;
    let until = bench.now + Duration::from_secs(60);
    while bench.now < until {
        for action in bench.actions() {
            if let Action::Discover { link, .. } = action {
                let session = format!("away-{}", found % 1000);
                found += 1;
                bench.found(link, &session);
            }
        }
        if bench.dispatcher.wake_at(bench.now).is_none() {
            break;
        }
        bench.wait();
    }
    // Ten in vain per second, and what is held comes on top: three per 20 s.
    assert!((100..=620).contains(&found), "{found}");
}

#[test]
fn a_session_that_comes_again_too_early_puts_its_receiver_to_rest() {
    let mut bench = Bench::new(Limits { parked_max: 0, receivers: 1, ..limits() });
    for device in ["d1", "d2", "d3", "d4"] {
        bench.linked(device);
    }
    bench.present("d5");
    let receiver = bench.discover();
    assert_eq!(bench.found(receiver, "away"), Verdict::Close);
    bench.wait();
    let receiver = bench.discover();
    assert_eq!(bench.found(receiver, "away"), Verdict::Close);
    let since = bench.now;
    bench.wait();
    bench.discover();
    let rested = bench.now - since;
    assert!(rested >= Duration::from_secs(4) && rested <= Duration::from_secs(5), "{rested:?}");
}

#[test]
fn a_device_that_discovery_does_not_reach_gets_the_place_of_an_idle_one_after_a_minute() {
    let mut bench = Bench::new(Limits { parked_max: 0, ..limits() });
    let links = ["d1", "d2", "d3", "d4"].map(|device| bench.linked(device));
    bench.present("d5");
    // What both receivers find came too early, again and again, so that they rest.
    let mut finished = Vec::new();
    while bench.now - bench.start < Duration::from_secs(200) && finished.is_empty() {
        for action in bench.actions() {
            match action {
                Action::Discover { link, .. } => drop(bench.found(link, "away")),
                Action::Finish { link } => finished.push(link),
                Action::Close { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        bench.wait();
    }
    assert_eq!(finished, [links[0]]);
    bench.ended("d1", links[0], Ended::Closed);
    assert!(
        bench
            .actions()
            .iter()
            .any(|action| matches!(action, Action::Accept { device, .. } if &**device == "d5"))
    );
}

#[test]
fn without_receivers_devices_take_turns() {
    let mut bench = Bench::new(Limits { receivers: 0, links_max: 1, ..limits() });
    let first = bench.linked("d1");
    bench.present("d2");
    assert_eq!(bench.actions(), []);
    assert_eq!(bench.wait(), Duration::from_secs(60));
    assert_eq!(bench.actions(), [Action::Finish { link: first }]);
    bench.ended("d1", first, Ended::Closed);
    let second = bench.accept("d2");
    bench.dispatcher.accepted("d2", second, bench.now);
    assert_eq!(bench.wait(), Duration::from_secs(60));
    assert_eq!(bench.actions(), [Action::Finish { link: second }]);
}
