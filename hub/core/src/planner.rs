//! Plans on the leader: reads the state and what the shell has observed, proposes commands, changes nothing itself.
//!
//! [`Applications`] turns Applications into assignments, [`sets`] turns ApplicationSets into Applications, [`garbage`] finds
//! what lost its owner. All of it is a function of its arguments, so two planners at different applied indexes can only differ
//! in what they have seen, and `apply` refuses the one that is behind.

mod applications;
mod operations;
pub mod sets;

use windlass_protocol::resource::Kind;

pub use self::{
    applications::{Applications, Observed, Prepared, ToRender, commands, is_news},
    operations::{Asked, asked, operation},
};
use crate::{
    command::{ENVELOPE_OBJECTS_MAX, Write},
    state::{ObjectKey, State},
};

/// Applications whose ApplicationSet is gone, to be deleted; at most what fits into one command.
#[must_use]
pub fn garbage(state: &State) -> Vec<Write> {
    let alive = |uid: &String| state.objects(Kind::ApplicationSet, None).any(|(_, set)| set.uid == *uid);
    let applications = state.objects(Kind::Application, None);
    let orphans = applications
        .filter(|(_, record)| !record.deleting && !record.owners.is_empty() && !record.owners.iter().any(alive));
    orphans.map(|(key, _)| Write::Delete { key: key.clone() }).take(ENVELOPE_OBJECTS_MAX).collect()
}

/// The ApplicationSet that owns an Application, or the Application itself: whose Rollout a change belongs to.
#[must_use]
pub fn owner(state: &State, application: &ObjectKey) -> ObjectKey {
    let owners = state.object(application).map(|record| record.owners.clone()).unwrap_or_default();
    let mut sets = state.objects(Kind::ApplicationSet, Some(&application.name.namespace));
    sets.find(|(_, set)| owners.contains(&set.uid)).map_or_else(|| application.clone(), |(key, _)| key.clone())
}
