//! The simulation as a test: fixed seeds hold, the same seed gives the same trace, and every planted bug is found.

#![allow(clippy::print_stdout, reason = "what a seed covered is shown beside its test")]

use std::ops::RangeInclusive;

use windlass_chaos::{Options, Plant, cli, simulate};

/// Events of the safety phase in tests: short enough for a minute in a debug build, long enough for every kind of fault.
const STEPS: u64 = 2_000;

fn run(seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        let options = Options { steps: STEPS, ..Options::new(seed) };
        let outcome = simulate(&options);
        assert!(outcome.failure.is_none(), "{}", cli::describe(&options, &outcome));
        println!("{}", cli::describe(&options, &outcome));
    }
}

// Four tests, so that they share the cores.

#[test]
fn seeds_1_to_5_hold() {
    run(1..=5);
}

#[test]
fn seeds_6_to_10_hold() {
    run(6..=10);
}

#[test]
fn seeds_11_to_15_hold() {
    run(11..=15);
}

#[test]
fn seeds_16_to_20_hold() {
    run(16..=20);
}

/// Seeds that once found a bug.
#[test]
fn seeds_of_old_bugs_hold() {
    // Receipts of a restarted agent that were in the log before its session.
    for seed in [3, 4] {
        let options = Options::new(seed);
        let outcome = simulate(&options);
        assert!(outcome.failure.is_none(), "{}", cli::describe(&options, &outcome));
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let options = Options { steps: STEPS, ..Options::new(42) };
    let (first, second) = (simulate(&options), simulate(&options));
    assert_eq!(first.trace, second.trace);
    assert_eq!(first.coverage, second.coverage);
    let other = simulate(&Options { seed: 43, ..options });
    assert_ne!(first.trace, other.trace);
}

fn is_found(plant: Plant, seeds: RangeInclusive<u64>) {
    let found = seeds.clone().find_map(|seed| simulate(&Options { plant: Some(plant), ..Options::new(seed) }).failure);
    let failure = found.unwrap_or_else(|| panic!("{} is not found with seeds {seeds:?}", plant.name()));
    println!("{}: {}: {}", plant.name(), failure.invariant, failure.message);
}

#[test]
fn planted_bugs_of_replicas_are_found() {
    for plant in [Plant::OwnTime, Plant::SkipsEntry, Plant::NoPreconditions] {
        is_found(plant, 1..=6);
    }
}

#[test]
fn planted_bugs_of_agents_are_found() {
    for plant in [Plant::AbsenceDeletes, Plant::DiskRollsBack, Plant::ForgetsOperations, Plant::PrunesAlways] {
        is_found(plant, 1..=12);
    }
}

#[test]
fn planted_bugs_of_gateways_are_found() {
    for plant in [Plant::OlderGeneration, Plant::AcknowledgesEarly, Plant::PipelinesReceipts] {
        is_found(plant, 1..=6);
    }
    // A replica must be asked just while it is behind: few seeds do.
    is_found(Plant::RefusesFromMemory, 13..=18);
}
