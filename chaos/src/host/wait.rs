//! Waiting for a state that can only be polled: an object in an API server, a file.
//!
//! The wait is bounded, and its error carries the last thing that was seen, because
//! "timed out" alone is of no use in a log. Where something can notify, wait for that.

use std::{fmt::Display, time::Duration};

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep, timeout_at};

/// How long a peer or a program may take to start on a busy machine with two cores.
pub const START_DEADLINE: Duration = Duration::from_secs(120);

/// How long a test waits for a state before it fails. Far above what any state needs:
/// a deadline tells broken from slow, it is no measurement.
pub const WAIT_DEADLINE: Duration = Duration::from_secs(60);

/// The pause between two looks: short beside what is waited for, and cheap.
const PAUSE: Duration = Duration::from_millis(50);

/// Calls `probe` until it gives `Ok(Some(value))`, at most for `deadline`.
///
/// `Ok(None)` means not yet. So does an error, since a server that is starting refuses
/// connections; `anyhow::ensure!(ready == 3, "{ready} of 3 ready")` is thus the way to say
/// what was seen instead. The error after the deadline names `what` and the last one seen.
pub async fn wait_until<T>(
    deadline: Duration,
    what: impl Display,
    mut probe: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    let mut seen = None;
    loop {
        match timeout_at(end, probe()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => seen = Some(format!("{error:#}")),
            // Cut off by the deadline: what was seen before says more, if anything was.
            Err(_) => {
                seen.get_or_insert_with(|| "the probe itself did not return".to_owned());
            }
        }
        if Instant::now() >= end {
            let seen = seen.unwrap_or_else(|| "nothing".to_owned());
            bail!("{what}: not within {deadline:?}; last seen: {seen}");
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;

    const SHORT: Duration = Duration::from_millis(120);

    #[tokio::test]
    async fn gives_the_value_once_there() {
        let mut looks = 0;
        let value = wait_until(WAIT_DEADLINE, "the third look", async || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(value.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn says_what_it_saw_last() {
        let result: Result<()> = wait_until(SHORT, "the deployment", async || {
            ensure!(false, "1 of 3 ready");
            Ok(None)
        })
        .await;
        let message = result.unwrap_err().to_string();
        assert!(message.contains("the deployment: not within 120ms"), "{message}");
        assert!(message.contains("1 of 3 ready"), "{message}");
    }

    #[tokio::test]
    async fn a_probe_that_hangs_is_cut_off() {
        let result: Result<()> = wait_until(SHORT, "a hung server", async || {
            std::future::pending::<()>().await;
            Ok(None)
        })
        .await;
        assert!(result.unwrap_err().to_string().contains("did not return"));
    }
}
