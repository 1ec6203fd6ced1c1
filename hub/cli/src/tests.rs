//! Commands against a small server that plays the hub's API, over loopback.

mod api;
mod commands;

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use crate::output::Output;

/// What was written to one of the two streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    /// All of it.
    pub(crate) fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An output with what reaches stdout and stderr.
pub(crate) fn captured() -> (Output, Captured, Captured) {
    let (data, talk) = (Captured::default(), Captured::default());
    (Output::to(Box::new(data.clone()), Box::new(talk.clone())), data, talk)
}
