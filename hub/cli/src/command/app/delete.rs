//! `app delete`: with what was deployed, or without.
//!
//! As in Argo CD the finalizer of the Application decides what happens to the deployed resources; this command sets it to
//! what was asked for, then deletes.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use windlass_protocol::resource::{
    RESOURCES_FINALIZER, RESOURCES_FINALIZER_BACKGROUND, RESOURCES_FINALIZER_FOREGROUND,
};

use super::{
    Targets, app_path, key,
    wait::{limit, until},
};
use crate::{client::Client, follow::Key, output::Output, view};

/// Options of `app delete`.
#[derive(Args, Debug)]
pub(crate) struct Delete {
    #[command(flatten)]
    targets: Targets,
    /// Delete what was deployed too, and how: true is foreground, false leaves it
    #[arg(
        long, value_enum, default_value = "true", default_missing_value = "true", num_args = 0..=1, require_equals = true,
        value_name = "HOW"
    )]
    cascade: Cascade,
    /// How what was deployed is deleted
    #[arg(short, long, value_enum, value_name = "HOW")]
    propagation_policy: Option<Propagation>,
    /// Give up on what was deployed and let the Application go, although its cluster cannot be reached
    #[arg(long)]
    force_orphan: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// Wait until it is gone
    #[arg(long)]
    wait: bool,
    /// Seconds to wait; 0 waits forever
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u64,
}

/// `--cascade`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Cascade {
    True,
    False,
    Foreground,
    Background,
}

/// `--propagation-policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Propagation {
    Foreground,
    Background,
}

impl Delete {
    /// The finalizer that does what was asked for; `None` leaves what was deployed.
    fn finalizer(&self) -> Option<&'static str> {
        match (self.force_orphan, self.cascade, self.propagation_policy) {
            (true, ..) | (_, Cascade::False, _) => None,
            (_, Cascade::Background, _) | (_, Cascade::True, Some(Propagation::Background)) => {
                Some(RESOURCES_FINALIZER_BACKGROUND)
            }
            (_, Cascade::Foreground, _) => Some(RESOURCES_FINALIZER_FOREGROUND),
            (_, Cascade::True, _) => Some(RESOURCES_FINALIZER),
        }
    }
}

pub(super) async fn run(client: &Client, options: Delete, output: &mut Output) -> Result<()> {
    let apps = options.targets.fetch(client).await?;
    let what = if options.finalizer().is_some() { "and all its resources" } else { "and leave its resources" };
    let mut deleted: Vec<Key> = Vec::new();
    for app in &apps {
        let name = view::qualified(app);
        if !options.yes && !output.confirm(&format!("Are you sure you want to delete {name} {what}?"))? {
            output.say(format!("{name} is kept"));
            continue;
        }
        let address = app_path(&key(app));
        let wanted = finalizers(app, options.finalizer());
        if wanted != current(app) {
            client.patch(&address, &json!({"metadata": {"finalizers": wanted}})).await?;
        }
        match client.delete(&address, &json!({"kind": "DeleteOptions", "apiVersion": "v1"})).await {
            Ok(_) => {}
            // Without its finalizer an Application that was being deleted is gone at once.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        output.line(format!("application '{name}' deleted"))?;
        deleted.push(key(app));
    }
    if options.wait && !deleted.is_empty() {
        until(client, deleted, limit(options.timeout), output, |app| Ok(app.is_none())).await?;
    }
    Ok(())
}

/// The finalizers with Argo's replaced by the wanted one.
fn finalizers(app: &Value, wanted: Option<&str>) -> Vec<String> {
    let mut kept = current(app);
    kept.retain(|name| !name.starts_with(RESOURCES_FINALIZER));
    kept.extend(wanted.map(str::to_owned));
    kept
}

fn current(app: &Value) -> Vec<String> {
    view::items(app, &["metadata", "finalizers"]).filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_argos_finalizer_is_exchanged() {
        let app = json!({"metadata": {"finalizers": ["other", RESOURCES_FINALIZER]}});
        assert_eq!(finalizers(&app, Some(RESOURCES_FINALIZER_BACKGROUND)), ["other", RESOURCES_FINALIZER_BACKGROUND]);
        assert_eq!(finalizers(&app, None), ["other"]);
        assert_eq!(finalizers(&json!({}), Some(RESOURCES_FINALIZER)), [RESOURCES_FINALIZER]);
    }
}
