//! Histories that must pass, and planted lies that must be found.

use super::*;

/// `client: action from sent to answered -> outcome`, small and by hand.
fn operation(client: usize, action: Action, outcome: Outcome, invoked: u64, returned: u64) -> Operation {
    Operation { client, action, outcome, invoked, returned }
}

fn read(seen: Option<u64>, invoked: u64, returned: u64) -> Operation {
    operation(9, Action::Read, Outcome::Saw(seen), invoked, returned)
}

fn create(value: u64, outcome: Outcome, invoked: u64, returned: u64) -> Operation {
    operation(1, Action::Create(value), outcome, invoked, returned)
}

fn swap(expected: u64, value: u64, outcome: Outcome, invoked: u64, returned: u64) -> Operation {
    operation(2, Action::Swap { expected, value }, outcome, invoked, returned)
}

fn delete(expected: u64, outcome: Outcome, invoked: u64, returned: u64) -> Operation {
    operation(3, Action::Delete(expected), outcome, invoked, returned)
}

#[track_caller]
fn check(history: &[Operation], linearizable: bool) {
    let result = check_key("key", history);
    assert_eq!(result.is_ok(), linearizable, "{result:?}");
}

use Outcome::{Done, Refused, Unknown};

#[test]
fn accepts_what_one_register_can_do() {
    check(&[], true);
    check(&[create(1, Done, 0, 1), swap(1, 2, Done, 2, 3), read(Some(2), 4, 5), delete(2, Done, 6, 7)], true);
    check(&[create(1, Done, 0, 1), delete(1, Done, 2, 3), read(None, 4, 5), create(2, Done, 6, 7)], true);
    check(&[create(1, Done, 0, 1), create(2, Refused, 2, 3), swap(7, 3, Refused, 4, 5)], true);
}

#[test]
fn accepts_any_order_of_what_is_concurrent() {
    // Two readers of one swap under way may see either side of it, but not back and forth.
    check(&[create(1, Done, 0, 1), swap(1, 2, Done, 2, 9), read(Some(2), 3, 4), read(Some(2), 5, 6)], true);
    check(&[create(1, Done, 0, 1), swap(1, 2, Done, 2, 9), read(Some(1), 3, 6), read(Some(2), 3, 6)], true);
    check(&[create(1, Done, 0, 1), swap(1, 2, Done, 2, 9), read(Some(2), 3, 4), read(Some(1), 5, 6)], false);
    // Of two swaps of one version exactly one wins.
    check(&[create(1, Done, 0, 1), swap(1, 2, Done, 2, 5), swap(1, 3, Refused, 2, 5)], true);
    check(&[create(1, Done, 0, 1), swap(1, 2, Done, 2, 5), swap(1, 3, Done, 2, 5)], false);
}

#[test]
fn rejects_a_stale_read() {
    check(&[create(1, Done, 0, 1), swap(1, 2, Done, 2, 3), read(Some(1), 4, 5)], false);
    check(&[create(1, Done, 0, 1), read(None, 2, 3)], false);
}

#[test]
fn rejects_a_lost_write() {
    check(&[create(1, Done, 0, 1), swap(1, 2, Done, 2, 3), read(Some(2), 4, 5), read(Some(1), 6, 7)], false);
    check(&[create(1, Done, 0, 1), swap(1, 2, Done, 2, 3), swap(1, 3, Done, 4, 5)], false);
    check(&[create(1, Done, 0, 1), create(2, Done, 2, 3)], false);
}

#[test]
fn rejects_a_refusal_without_a_reason() {
    check(&[create(1, Done, 0, 1), swap(1, 2, Refused, 2, 3)], false);
    check(&[create(1, Refused, 0, 1)], false);
}

#[test]
fn an_unknown_outcome_may_be_either() {
    check(&[create(1, Done, 0, 1), swap(1, 2, Unknown, 2, 3), read(Some(1), 4, 5), read(Some(2), 6, 7)], true);
    check(&[create(1, Done, 0, 1), swap(1, 2, Unknown, 2, 3), read(Some(1), 4, 5), swap(1, 3, Done, 6, 7)], true);
    // But only once, and not before it was sent.
    check(
        &[
            create(1, Done, 0, 1),
            swap(1, 2, Unknown, 2, 3),
            swap(1, 3, Done, 4, 5),
            read(Some(3), 6, 7),
            read(Some(2), 8, 9),
        ],
        false,
    );
    check(&[create(1, Done, 0, 1), read(Some(2), 2, 3), swap(1, 2, Unknown, 4, 5)], false);
}

/// A real register driven by several clients with random delays, then broken in one place.
#[test]
fn long_histories_are_decided_and_planted_lies_found() {
    for seed in 1..=20 {
        let mut history = simulated(seed, 3_000);
        check(&history, true);
        let mut random = Random::new(seed);
        let reads: Vec<usize> =
            (1_000..history.len()).filter(|index| matches!(history[*index].outcome, Outcome::Saw(Some(_)))).collect();
        let victim = *random.pick(&reads).unwrap();
        // A value of long ago.
        let old = history[..500].iter().find_map(|one| match (one.action, one.outcome) {
            (Action::Create(value) | Action::Swap { value, .. }, Done) => Some(value),
            _ => None,
        });
        history[victim].outcome = Outcome::Saw(old);
        check(&history, false);
    }
}

/// Eight clients on one register; an operation takes effect somewhere between being sent and being answered.
fn simulated(seed: u64, count: usize) -> Vec<Operation> {
    let mut random = Random::new(seed);
    let (mut content, mut value, mut history) = (None, 0, Vec::new());
    let mut known: [Option<u64>; 8] = [None; 8];
    for moment in 1..=count as u64 {
        let client = usize::try_from(random.below(8)).unwrap();
        value += 1;
        let action = match (random.below(4), known[client]) {
            (0 | 1, _) => Action::Read,
            (_, None) => Action::Create(value),
            (2, Some(expected)) => Action::Swap { expected, value },
            (_, Some(expected)) => Action::Delete(expected),
        };
        let at = moment * 100;
        let mut one = operation(client, action, Done, at - random.below(400).min(at), at + random.below(400));
        let mut effect = true;
        one.outcome = match step(&one, content) {
            _ if action == Action::Read => Outcome::Saw(content),
            Some(_) if random.chance(50) => {
                effect = random.chance(500);
                Unknown
            }
            Some(_) => Done,
            None => Refused,
        };
        if effect && let Some(after) = step(&one, content) {
            content = after;
        }
        known[client] = content;
        history.push(one);
    }
    history
}
