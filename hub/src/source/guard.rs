//! Bounds one remote operation in time, rate and size, and carries the reason when it ends early.
//!
//! gix sees only an interrupt flag and failing reads; the first fault recorded here is what the caller reports.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{SourceConfig, SourceError};

/// Shared by the task that waits and the thread that works.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    label: String,
    /// gix looks at this between objects.
    interrupt: AtomicBool,
    cancelled: CancellationToken,
    deadline: Instant,
    timeout: Duration,
    window: Duration,
    window_bytes: u64,
    progress: Mutex<Progress>,
    runtime: Handle,
}

#[derive(Debug)]
struct Progress {
    fault: Option<SourceError>,
    waited: Duration,
    received: u64,
    total: u64,
    limit: (&'static str, u64),
}

impl Guard {
    /// Must be called inside the tokio runtime; `cancelled` is the sources' shutdown token.
    pub(super) fn new(label: &str, config: &SourceConfig, cancelled: CancellationToken) -> Self {
        Self {
            inner: Arc::new(Inner {
                label: label.to_owned(),
                interrupt: AtomicBool::new(false),
                cancelled,
                deadline: Instant::now() + config.operation_timeout,
                timeout: config.operation_timeout,
                window: config.stall_window,
                window_bytes: config.stall_min_bytes,
                progress: Mutex::new(Progress {
                    fault: None,
                    waited: Duration::ZERO,
                    received: 0,
                    total: 0,
                    limit: ("max_listing_bytes", config.max_listing_bytes),
                }),
                runtime: Handle::current(),
            }),
        }
    }

    pub(super) fn label(&self) -> &str {
        &self.inner.label
    }

    /// The flag for gix.
    pub(super) fn interrupt(&self) -> &AtomicBool {
        &self.inner.interrupt
    }

    pub(super) fn deadline(&self) -> Instant {
        self.inner.deadline
    }

    /// Sets the bytes that may still arrive, under the name of the limit they come from.
    pub(super) fn allow(&self, name: &'static str, bytes: u64) {
        let mut progress = self.progress();
        progress.total = 0;
        progress.limit = (name, bytes);
    }

    /// Records why the operation ends and stops it. The first reason stands.
    pub(super) fn fail(&self, fault: SourceError) -> SourceError {
        self.inner.interrupt.store(true, Ordering::Relaxed);
        self.progress().fault.get_or_insert(fault).clone()
    }

    /// The recorded reason.
    pub(super) fn fault(&self) -> Option<SourceError> {
        self.progress().fault.clone()
    }

    /// Stops an operation that ran past its deadline.
    pub(super) fn expire(&self) -> SourceError {
        self.fail(SourceError::TimedOut { repository: self.inner.label.clone(), seconds: self.inner.timeout.as_secs() })
    }

    /// Fails if the operation was stopped; for loops that do not wait.
    pub(super) fn check(&self) -> Result<(), SourceError> {
        if let Some(fault) = self.fault() {
            return Err(fault);
        }
        if self.inner.cancelled.is_cancelled() {
            return Err(self.fail(SourceError::Closed));
        }
        if Instant::now() >= self.inner.deadline {
            return Err(self.expire());
        }
        Ok(())
    }

    /// Counts bytes that arrived.
    pub(super) fn received(&self, bytes: usize) -> Result<(), SourceError> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let mut progress = self.progress();
        progress.received = progress.received.saturating_add(bytes);
        progress.total = progress.total.saturating_add(bytes);
        let (limit, allowed) = progress.limit;
        let exceeded = progress.total > allowed;
        drop(progress);
        if exceeded {
            return Err(self.fail(SourceError::TooLarge { repository: self.inner.label.clone(), limit, allowed }));
        }
        Ok(())
    }

    /// Waits on the network from a blocking thread. Only time spent waiting counts for the stall window.
    pub(super) fn wait<T>(&self, work: impl Future<Output = T>) -> Result<T, SourceError> {
        self.check()?;
        let started = Instant::now();
        let patience = self.inner.window.saturating_sub(self.progress().waited);
        let inner = &self.inner;
        let outcome = inner.runtime.block_on(async {
            let mut work = std::pin::pin!(work);
            let mut patience = patience;
            loop {
                tokio::select! {
                    biased;
                    () = inner.cancelled.cancelled() => return Err(self.fail(SourceError::Closed)),
                    value = &mut work => return Ok(value),
                    () = tokio::time::sleep_until(inner.deadline) => return Err(self.expire()),
                    () = tokio::time::sleep(patience) => {
                        self.end_window()?;
                        patience = inner.window;
                    }
                }
            }
        })?;
        let elapsed = started.elapsed();
        let mut progress = self.progress();
        // A window that ended inside the wait has been judged; what is left of the wait is less than one window.
        progress.waited += if elapsed > patience { Duration::ZERO } else { elapsed };
        let judged = progress.waited >= inner.window;
        drop(progress);
        if judged {
            self.end_window()?;
        }
        Ok(outcome)
    }

    fn end_window(&self) -> Result<(), SourceError> {
        let mut progress = self.progress();
        let received = std::mem::take(&mut progress.received);
        progress.waited = Duration::ZERO;
        drop(progress);
        if received < self.inner.window_bytes {
            return Err(self.fail(SourceError::Stalled {
                repository: self.inner.label.clone(),
                bytes: self.inner.window_bytes,
                seconds: self.inner.window.as_secs(),
            }));
        }
        Ok(())
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.inner.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
