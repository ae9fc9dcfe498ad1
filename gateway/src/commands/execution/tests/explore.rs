//! All orders in small worlds, and many in larger ones; and what has to be noticed when something is done wrong.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::world::{Action, Budget, Flaw, World};
use crate::commands::contract::Completion::{self, Answered, Delivered};

const CALM: Budget = Budget {
    crashes: 0,
    failures: 0,
    link_losses: 0,
    departures: 0,
    refusals: 0,
    timeouts: 0,
    answers: 0,
    vanishings: 0,
};

/// Every order of actions, up to states that were seen before. From every one of them everything comes to its end.
fn explore(completions: &[Completion], budget: Budget, flaw: Option<Flaw>) -> Result<usize, String> {
    let hasher = RandomState::new();
    let first = World::new(completions, budget, flaw);
    let mut seen = HashSet::from([hasher.hash_one(&first)]);
    let mut open: Vec<(World, Vec<Action>)> = vec![(first, Vec::new())];
    while let Some((world, path)) = open.pop() {
        let told = |broken: String, path: &[Action]| format!("{broken}\nafter {path:?}");
        world.clone().finish().map_err(|broken| told(broken, &path))?;
        for action in world.actions() {
            let mut next = world.clone();
            let path: Vec<_> = path.iter().copied().chain([action]).collect();
            next.act(action).map_err(|broken| told(broken, &path))?;
            if seen.insert(hasher.hash_one(&next)) {
                open.push((next, path));
            }
        }
    }
    Ok(seen.len())
}

fn check(completions: &[Completion], budget: Budget) {
    match explore(completions, budget, None) {
        Ok(states) => println!("{states} states of {completions:?} with {budget:?}"),
        Err(broken) => panic!("{broken}"),
    }
}

#[test]
fn all_orders_of_answers_crashes_and_lost_locks() {
    check(&[Answered], Budget { crashes: 1, link_losses: 1, answers: 2, ..CALM });
    check(&[Answered], Budget { crashes: 2, timeouts: 1, answers: 1, ..CALM });
}

#[test]
fn all_orders_of_departures_refusals_and_timeouts() {
    check(&[Answered], Budget { departures: 1, refusals: 1, timeouts: 2, answers: 1, ..CALM });
    check(
        &[Delivered],
        Budget { departures: 2, refusals: 1, timeouts: 2, link_losses: 1, crashes: 1, ..CALM },
    );
}

#[test]
fn all_orders_of_failed_writes() {
    check(&[Answered], Budget { failures: 1, answers: 2, crashes: 1, ..CALM });
    check(&[Answered], Budget { failures: 2, answers: 1, link_losses: 1, departures: 1, ..CALM });
    check(&[Delivered], Budget { failures: 2, crashes: 1, link_losses: 1, ..CALM });
}

#[test]
fn all_orders_with_a_second_command_behind() {
    check(&[Delivered, Delivered], Budget { crashes: 1, link_losses: 1, vanishings: 1, ..CALM });
    check(&[Answered, Delivered], Budget { vanishings: 1, answers: 1, link_losses: 1, timeouts: 1, ..CALM });
}

#[test]
fn many_orders_of_everything_at_once() {
    let seed = rand::rng().next_u64();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..1500 {
        let mut few = || random.random_range(0..4);
        let budget = Budget {
            crashes: few(),
            failures: few(),
            link_losses: few(),
            departures: few(),
            refusals: few(),
            timeouts: few(),
            answers: few(),
            vanishings: few() / 3,
        };
        let completions: Vec<_> = (0..random.random_range(1..5))
            .map(|_| if random.random_bool(0.7) { Answered } else { Delivered })
            .collect();
        if let Err((broken, path)) = walk(&completions, budget, None, &mut random) {
            panic!("{broken}\nafter {path:?}");
        }
    }
}

/// One random way through.
fn walk(
    completions: &[Completion],
    budget: Budget,
    flaw: Option<Flaw>,
    random: &mut StdRng,
) -> Result<(), (String, Vec<Action>)> {
    let (mut world, mut path) = (World::new(completions, budget, flaw), Vec::new());
    for _ in 0..random.random_range(1..120) {
        let actions = world.actions();
        if actions.is_empty() {
            break;
        }
        let action = actions[random.random_range(0..actions.len())];
        path.push(action);
        world.act(action).map_err(|broken| (broken, path.clone()))?;
    }
    world.finish().map_err(|broken| (broken, path))
}

/// What is done wrong is found, and called by its name.
fn check_flaw(completion: Completion, flaw: Flaw, budget: Budget, expected: &str) {
    let broken = explore(&[completion], budget, Some(flaw)).expect_err("a flaw that nobody notices");
    println!("{flaw:?}: {broken}");
    assert!(broken.contains(expected), "{broken}");
}

#[test]
fn settling_before_the_write_is_durable_is_noticed() {
    let expected = "settles before the final event is durable";
    check_flaw(Answered, Flaw::SettlesEarly, CALM, expected);
    check_flaw(Delivered, Flaw::SettlesEarly, CALM, expected);
}

#[test]
fn publishing_again_after_an_acknowledgement_is_noticed() {
    let budget = Budget { departures: 1, ..CALM };
    check_flaw(
        Answered,
        Flaw::ForgetsAcknowledgements,
        budget,
        "it publishes what is recorded as Some(Record {",
    );
    let budget = Budget { link_losses: 1, ..CALM };
    check_flaw(Answered, Flaw::ForgetsWithLink, budget, "it publishes what the device has from it");
}

#[test]
fn publishing_before_the_record_is_durable_is_noticed() {
    check_flaw(Answered, Flaw::PublishesEarly, CALM, "it publishes what is recorded as None");
}

#[test]
fn a_second_final_event_is_noticed() {
    let expected = "two final events";
    check_flaw(Delivered, Flaw::BelievesFailures, Budget { failures: 1, ..CALM }, expected);
    check_flaw(Delivered, Flaw::EventAlone, Budget { crashes: 1, ..CALM }, expected);
}

#[test]
fn an_event_out_of_its_order_is_noticed() {
    check_flaw(Answered, Flaw::BelievesFailures, Budget { failures: 1, ..CALM }, "told twice");
    let budget = Budget { answers: 1, ..CALM };
    check_flaw(Answered, Flaw::LateSubmission, budget, "an event behind the final one");
}
