//! Parts that die: the agent at bad moments, the hub, the API server. What was asked for arrives all the same, once.

mod agent;
mod api_server;
mod hub;

use anyhow::Result;
use windlass_tests::scenario;

use crate::fleet::{AgentOptions, Fleet};

/// One after the other: each takes something down that the others need.
#[test]
fn whatever_dies_the_rest_goes_on() -> Result<()> {
    scenario(async {
        // One request at a time, so that a bundle can be interrupted in its middle.
        let options = AgentOptions { flags: vec!["--limit=api_requests=1".to_owned()], ..AgentOptions::default() };
        let mut fleet = Fleet::start_with(["rough"], options).await?;
        agent::killed_while_it_applies(&mut fleet).await?;
        agent::killed_between_checkpoint_and_apply(&mut fleet).await?;
        hub::away(&mut fleet).await?;
        api_server::away(&mut fleet).await?;
        fleet.sites.iter().try_for_each(|site| site.print_memory())
    })
}
