//! Logs: structured, on stderr, filtered by `RUST_LOG`.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::config::LogFormat;

/// Installs the log writer; a second call changes nothing.
pub fn install(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env()
        // What openraft has to say of lost peers comes ten times a second; members, peers and failures have words of ours.
        .unwrap_or_else(|_| EnvFilter::new("info,openraft=off,gix=warn,quinn=warn,h2=warn,hyper=warn"));
    let registry = tracing_subscriber::registry().with(filter);
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let result = match format {
        LogFormat::Text => registry.with(fmt::layer().with_writer(std::io::stderr).with_ansi(colour)).try_init(),
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(std::io::stderr)).try_init(),
    };
    // Somebody else, such as a test or the demo, has installed one already.
    drop(result);
}
