//! Whether a history of one register is linearizable: each operation took effect at one moment between being sent and being
//! answered, and what clients saw fits the order of these moments.
//!
//! The search is that of Wing and Gong ("Testing and verifying concurrent objects", JPDC 1993) with the memory of Lowe
//! ("Testing for linearizability", CCPE 2017): operations that are under way are tried one by one, going back where no order
//! fits, and a set of done operations with its register is never looked into twice. Operations of unknown outcome may take
//! effect at any time after they were sent, or never. Never looks at more than one key: registers are independent (Herlihy
//! and Wing, TOPLAS 1990), so a history is linearizable exactly when that of each key is.

use std::collections::{BTreeMap, HashSet};

use super::history::{Action, Operation, Outcome};
use crate::sim::Random;

/// Steps of the search for one key before it is given up as undecided. A history of thousands of operations takes about as
/// many steps; a limit a thousand times above that is only met when something is wrong.
const STEPS_MAX: u64 = 20_000_000;

/// Why a history is not linearizable, or not shown to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// No order of the operations explains what was seen.
    #[error("{key}: no order explains the history; it fits up to operation {longest} of {total}, around:\n{around}")]
    NotLinearizable {
        /// The register.
        key: String,
        /// Operations that the best attempt explained.
        longest: usize,
        /// Operations with a known outcome.
        total: usize,
        /// The operations where it got stuck, one a line.
        around: String,
    },
    /// The search took too many steps.
    #[error("{key}: undecided after {STEPS_MAX} steps")]
    Undecided {
        /// The register.
        key: String,
    },
}

/// Checks every key; gives all violations.
#[must_use]
pub fn check(history: &BTreeMap<String, Vec<Operation>>) -> Vec<Violation> {
    history.iter().filter_map(|(key, operations)| check_key(key, operations).err()).collect()
}

/// Checks the operations on one key.
///
/// # Errors
/// [`Violation`].
pub fn check_key(key: &str, operations: &[Operation]) -> Result<(), Violation> {
    Search::new(operations).run(key)
}

/// What an operation does to a register that holds `content`; `None` where its outcome does not fit.
fn step(operation: &Operation, content: Option<u64>) -> Option<Option<u64>> {
    let (fits, after) = match operation.action {
        Action::Read => (true, content),
        Action::Create(value) => (content.is_none(), Some(value)),
        Action::Swap { expected, value } => (content == Some(expected), Some(value)),
        Action::Delete(expected) => (content == Some(expected), None),
    };
    match operation.outcome {
        Outcome::Saw(seen) => (seen == content).then_some(content),
        Outcome::Refused => (!fits).then_some(content),
        Outcome::Done | Outcome::Unknown => fits.then_some(after),
    }
}

/// A depth-first search over the orders of operations.
///
/// An operation is known by its place: those with a known outcome come first, then the others.
struct Search {
    /// With a known outcome, by the time they were sent.
    known: Vec<Operation>,
    /// Of unknown outcome.
    open: Vec<Operation>,
    /// Places of the open ones by the content that they need.
    by_need: BTreeMap<Option<u64>, Vec<usize>>,
    /// A random number for each: a set of operations is known by the exclusive or of theirs (Zobrist 1970).
    marks: Vec<u128>,
    done: Vec<bool>,
    /// All known operations before this one are done.
    first: usize,
    known_done: usize,
    path: Vec<Taken>,
    set: u128,
    content: Option<u64>,
    seen: HashSet<(u128, Option<u64>)>,
}

/// An operation that was placed, and how things stood before.
struct Taken {
    place: usize,
    content: Option<u64>,
}

impl Search {
    fn new(operations: &[Operation]) -> Self {
        let mut operations = operations.to_vec();
        operations.sort_by_key(|operation| operation.invoked);
        let mut random = Random::new(operations.len() as u64);
        let mut mark = || u128::from(random.next()) << 64 | u128::from(random.next());
        let marks = operations.iter().map(|_| mark()).collect();
        let done = vec![false; operations.len()];
        let (open, known): (Vec<_>, Vec<_>) = operations.into_iter().partition(|one| one.outcome == Outcome::Unknown);
        let mut by_need: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        for (number, one) in open.iter().enumerate() {
            let need = match one.action {
                Action::Read => continue,
                Action::Create(_) => None,
                Action::Swap { expected, .. } | Action::Delete(expected) => Some(expected),
            };
            by_need.entry(need).or_default().push(known.len() + number);
        }
        Self {
            known,
            open,
            by_need,
            marks,
            done,
            first: 0,
            known_done: 0,
            path: Vec::new(),
            set: 0,
            content: None,
            seen: HashSet::new(),
        }
    }

    fn run(mut self, key: &str) -> Result<(), Violation> {
        let (mut from, mut steps) = (0, 0_u64);
        let (mut longest, mut stuck) = (0, Vec::new());
        while self.known_done < self.known.len() {
            steps += 1;
            if steps > STEPS_MAX {
                return Err(Violation::Undecided { key: key.to_owned() });
            }
            if let Some((place, after)) = self.candidate(from) {
                self.take(place, after);
                if self.seen.insert((self.set, self.content)) {
                    from = 0;
                } else {
                    self.give_back();
                    from = place + 1;
                }
                continue;
            }
            if self.known_done > longest || stuck.is_empty() {
                longest = self.known_done;
                stuck = self.around();
            }
            match self.give_back() {
                Some(place) => from = place + 1,
                None => {
                    let (key, around) = (key.to_owned(), stuck.join("\n"));
                    return Err(Violation::NotLinearizable { key, longest, total: self.known.len(), around });
                }
            }
        }
        Ok(())
    }

    /// The first operation from a place on that may come next: nothing that was answered before it was sent is left out.
    fn candidate(&self, from: usize) -> Option<(usize, Option<u64>)> {
        let mut answered = u64::MAX;
        for (place, operation) in self.known.iter().enumerate().skip(self.first) {
            if operation.invoked > answered {
                break;
            }
            if self.is_done(place) {
                continue;
            }
            answered = answered.min(operation.returned);
            if place >= from
                && let Some(after) = step(operation, self.content)
            {
                return Some((place, after));
            }
        }
        let open = self.by_need.get(&self.content)?.iter().filter(|place| **place >= from && !self.is_done(**place));
        open.filter_map(|place| Some((*place, self.operation(*place)?)))
            .find(|(_, operation)| operation.invoked <= answered)
            .and_then(|(place, operation)| Some((place, step(operation, self.content)?)))
    }

    fn take(&mut self, place: usize, after: Option<u64>) {
        self.path.push(Taken { place, content: self.content });
        self.content = after;
        self.flip(place, true);
    }

    fn give_back(&mut self) -> Option<usize> {
        let taken = self.path.pop()?;
        self.content = taken.content;
        self.flip(taken.place, false);
        Some(taken.place)
    }

    fn flip(&mut self, place: usize, done: bool) {
        if let Some(flag) = self.done.get_mut(place) {
            *flag = done;
        }
        self.set ^= self.marks.get(place).copied().unwrap_or_default();
        if place >= self.known.len() {
            return;
        }
        if done {
            self.known_done += 1;
            while self.first < self.known.len() && self.is_done(self.first) {
                self.first += 1;
            }
        } else {
            self.known_done = self.known_done.saturating_sub(1);
            self.first = self.first.min(place);
        }
    }

    fn is_done(&self, place: usize) -> bool {
        self.done.get(place).copied().unwrap_or_default()
    }

    fn operation(&self, place: usize) -> Option<&Operation> {
        match place.checked_sub(self.known.len()) {
            None => self.known.get(place),
            Some(number) => self.open.get(number),
        }
    }

    /// What had been placed last, and what could not follow.
    fn around(&self) -> Vec<String> {
        let last = self.path.iter().rev().take(5).rev();
        let placed = last.filter_map(|taken| self.operation(taken.place)).map(|one| format!("  placed {one:?}"));
        let left = self.known.iter().enumerate().skip(self.first).filter(|(place, _)| !self.is_done(*place));
        let left = left.take(5).map(|(_, one)| format!("  left   {one:?}"));
        let content = format!("  holds  {:?}", self.content);
        placed.chain([content]).chain(left).collect()
    }
}

#[cfg(test)]
mod tests;
