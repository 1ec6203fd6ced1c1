//! From a commit to real clusters: what arrives, what is healed, what is pruned, what is refused, and what is deleted.

mod bad_input;
mod broken;
mod deletion;
mod drift;
mod in_cluster;
mod manual;
mod prune;
mod spread;

use anyhow::Result;
use windlass_tests::scenario;

use crate::fleet::{Fleet, parts};

/// One after the other where time is measured, side by side otherwise.
#[test]
fn a_commit_reaches_every_cluster() -> Result<()> {
    scenario(async {
        let mut fleet = Fleet::start(["east", "west"]).await?;
        spread::check(&fleet).await?;
        drift::check(&fleet).await?;
        parts(vec![
            ("manual", Box::pin(manual::check(&fleet))),
            ("prune", Box::pin(prune::check(&fleet))),
            ("broken", Box::pin(broken::check(&fleet))),
            ("bad input", Box::pin(bad_input::check(&fleet))),
            ("deletion", Box::pin(deletion::check_applications(&fleet))),
        ])
        .await?;
        fleet.sites.iter().try_for_each(|site| site.print_memory())?;
        deletion::check_cluster(&mut fleet).await
    })
}

#[test]
fn the_manifest_of_the_agent_grants_enough() -> Result<()> {
    scenario(in_cluster::check())
}
