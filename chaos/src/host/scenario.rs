//! The frame of one end-to-end test: a runtime, and the logs of every process that
//! took part when the test fails.
//!
//! By the time that a failed test returns its error, its processes are already dropped;
//! each therefore leaves the end of its log here.

use std::{cell::RefCell, future::Future};

use anyhow::{Context as _, Result};
use tokio::{runtime::Builder, task_local};

task_local! {
    static ENDINGS: RefCell<Vec<Ending>>;
}

/// The last lines that a process wrote.
#[derive(Debug)]
struct Ending {
    name: String,
    tail: String,
}

/// Runs `test` on a runtime of its own. When it fails or panics, the end of the log of
/// each [`Process`](super::Process) that it started is printed.
pub fn scenario<F>(test: F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().context("start a runtime")?;
    runtime.block_on(ENDINGS.scope(RefCell::default(), async {
        let result = test.await;
        if result.is_err() {
            ENDINGS.with(|endings| endings.take().iter().for_each(print));
        }
        result
    }))
}

/// Keeps the end of the log of a process that is dropped; prints it at once when the
/// thread is panicking, as nobody will ask for it later.
pub(super) fn leave_ending(name: &str, tail: String) {
    let ending = Ending { name: name.to_owned(), tail };
    if std::thread::panicking() {
        print(&ending);
    } else {
        // Outside of a scenario there is nobody to read it: then it is let go.
        let _ = ENDINGS.try_with(|endings| endings.borrow_mut().push(ending));
    }
}

fn print(ending: &Ending) {
    eprintln!("---- last lines of {} ----\n{}", ending.name, ending.tail);
}
