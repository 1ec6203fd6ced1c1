//! The log: `tracing` on standard error, as text or JSON, filtered by `RUST_LOG`. Never writes to standard output.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::LogFormat;

/// What is logged when `RUST_LOG` says nothing: ourselves, and only trouble of the libraries.
const FILTER_DEFAULT: &str = "warn,windlass_agent=info";

/// Installs the log of this process; a log that is installed already stays (a process may run several agents).
pub fn install(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    let installed = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if installed.is_err() {
        tracing::debug!("a log is installed already");
    }
}
