//! The blocking work of one poll: list, choose, fetch what is missing, and clone again what is broken.
//!
//! Runs on a blocking thread under the mirror's permit. References are listed first; objects are fetched only when the
//! chosen commit is not in the mirror.

use std::{collections::HashSet, path::Path, sync::Arc};

use super::{
    SourceConfig, SourceError,
    fetch::{Server, tracking_ref},
    guard::Guard,
    http::Client,
    local::LocalRepository,
    mirror::{Generation, Mirror},
    reference::{CommitId, ListedRef, Selected, Wanted},
    repository::{Place, Remote},
};

/// Everything one operation needs.
pub(super) struct Job {
    pub(super) config: Arc<SourceConfig>,
    pub(super) client: Arc<Client>,
    pub(super) mirror: Arc<Mirror>,
    pub(super) remote: Arc<Remote>,
    pub(super) guard: Guard,
}

/// What a reference names now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) commit: CommitId,
    /// Full name of the branch or tag that was chosen; `None` for a commit id.
    pub(super) name: Option<String>,
}

impl Job {
    /// Finds the commit and brings it into the mirror.
    pub(super) fn resolve(&self, wanted: &Wanted) -> Result<Resolved, SourceError> {
        let outcome = match &self.remote.place {
            Place::Local(path) => self.resolve_local(path, wanted),
            Place::Http(url) => {
                let server = Server {
                    client: &self.client,
                    url,
                    credentials: self.remote.credentials.as_ref(),
                    guard: &self.guard,
                };
                self.resolve_remote(server, wanted)
            }
        };
        if let Err(SourceError::Unauthorized { .. } | SourceError::NotFound { .. }) = outcome {
            self.mirror.dismiss(self.remote.fingerprint());
        }
        outcome
    }

    fn resolve_remote(&self, server: Server<'_>, wanted: &Wanted) -> Result<Resolved, SourceError> {
        let who = self.remote.fingerprint();
        let generation = self.mirror.generation()?;
        if let Wanted::Commit(commit) = wanted
            && self.mirror.admitted(who)
            && !generation.is_damaged()
            && self.in_mirror(commit)
        {
            return Ok(Resolved { commit: commit.clone(), name: None });
        }
        let listed = server.list(&generation.repository())?;
        self.mirror.admit(who);
        match wanted {
            Wanted::Commit(commit) => self.bring_commit(server, commit, &listed),
            _ => match wanted.select(&listed) {
                Selected::Ref(chosen) => self.bring_ref(server, wanted, chosen),
                Selected::Abbreviated(prefix) => self.bring_abbreviated(server, &prefix, &listed),
                Selected::Unknown => Err(self.unknown(wanted.text())),
            },
        }
    }

    fn bring_ref(&self, server: Server<'_>, wanted: &Wanted, chosen: ListedRef) -> Result<Resolved, SourceError> {
        let generation = self.mirror.generation()?;
        if !generation.is_damaged() && generation.contains(&chosen.target) {
            return Ok(resolved(chosen));
        }
        let spec = format!("+{}:{}", chosen.name, tracking_ref(&chosen.name));
        let listed = self.fetch(server, &[spec])?;
        // The reference may have moved between listing and fetching.
        let chosen = match wanted.select(&listed) {
            Selected::Ref(now) if now.name == chosen.name => now,
            _ => chosen,
        };
        if !self.mirror.generation()?.contains(&chosen.target) {
            return Err(SourceError::UnknownCommit {
                repository: self.guard.label().to_owned(),
                commit: chosen.target,
            });
        }
        Ok(resolved(chosen))
    }

    fn bring_commit(
        &self,
        server: Server<'_>,
        commit: &CommitId,
        listed: &[ListedRef],
    ) -> Result<Resolved, SourceError> {
        let found = Resolved { commit: commit.clone(), name: None };
        if !self.mirror.generation()?.is_damaged() && self.in_mirror(commit) {
            return Ok(found);
        }
        let spec = format!("{commit}:{}", tracking_ref(commit.as_str()));
        let direct = self.fetch(server, &[spec]);
        if self.mirror.generation()?.contains(commit) {
            return Ok(found);
        }
        self.guard.check()?;
        // Some servers give out only what a reference names; the commit is then in the history of one of them.
        if direct.is_err() {
            self.fetch_all(server, listed)?;
        }
        if self.in_mirror(commit) {
            return Ok(found);
        }
        Err(self.unknown(commit.as_str()))
    }

    fn bring_abbreviated(
        &self,
        server: Server<'_>,
        prefix: &str,
        listed: &[ListedRef],
    ) -> Result<Resolved, SourceError> {
        let generation = self.mirror.generation()?;
        let known = self.lookup(&generation.repository(), prefix)?;
        let commit = match known {
            Some(commit) if !generation.is_damaged() => commit,
            _ => {
                self.fetch_all(server, listed)?;
                let repository = self.mirror.generation()?.repository();
                self.lookup(&repository, prefix)?.ok_or_else(|| self.unknown(prefix))?
            }
        };
        Ok(Resolved { commit, name: None })
    }

    /// References that one fetch of everything asks for; repositories beyond this need a full commit id.
    const MAX_REFS: usize = 5_000;

    fn fetch_all(&self, server: Server<'_>, listed: &[ListedRef]) -> Result<(), SourceError> {
        let specs: Vec<String> = listed
            .iter()
            .filter(|listed| listed.name != "HEAD")
            .map(|listed| format!("+{}:{}", listed.name, tracking_ref(&listed.name)))
            .collect();
        if specs.len() > Self::MAX_REFS {
            return Err(SourceError::TooLarge {
                repository: self.guard.label().to_owned(),
                limit: "references of a repository that is searched for a commit",
                allowed: u64::try_from(Self::MAX_REFS).unwrap_or(u64::MAX),
            });
        }
        if specs.is_empty() {
            return Ok(());
        }
        self.fetch(server, &specs).map(|_| ())
    }

    /// Fetches into the mirror, or into a new one if this one is damaged, too large, or fails for no reason that the
    /// network explains.
    fn fetch(&self, server: Server<'_>, specs: &[String]) -> Result<Vec<ListedRef>, SourceError> {
        let generation = self.mirror.generation()?;
        let usage = generation.usage();
        let full = usage.packs > self.config.max_packs || usage.bytes >= self.config.max_repository_bytes;
        if (generation.is_damaged() || full) && self.mirror.may_rebuild() {
            return self.clone_again(server, specs);
        }
        let allowed = self.config.max_repository_bytes.saturating_sub(usage.bytes);
        match server.fetch(&generation.repository(), specs, allowed) {
            Err(error @ SourceError::Protocol { .. })
                if self.guard.fault().is_none() && specs_name_refs(specs) && self.mirror.may_rebuild() =>
            {
                tracing::warn!(repository = self.mirror.label(), %error, "fetch failed, cloning the mirror again");
                self.clone_again(server, specs)
            }
            outcome => outcome,
        }
    }

    fn clone_again(&self, server: Server<'_>, specs: &[String]) -> Result<Vec<ListedRef>, SourceError> {
        let draft = self.mirror.start_generation()?;
        let listed = server.fetch(&draft.repository(), specs, self.config.max_repository_bytes)?;
        self.mirror.replace(draft)?;
        Ok(listed)
    }

    fn resolve_local(&self, path: &Path, wanted: &Wanted) -> Result<Resolved, SourceError> {
        let generation = self.mirror.generation()?;
        if let Wanted::Commit(commit) = wanted
            && !generation.is_damaged()
            && self.in_mirror(commit)
        {
            return Ok(Resolved { commit: commit.clone(), name: None });
        }
        let local = LocalRepository::open(path, &self.config, &self.guard)?;
        let found = match wanted {
            Wanted::Commit(commit) => Resolved { commit: commit.clone(), name: None },
            _ => match wanted.select(&local.list()?) {
                Selected::Ref(chosen) => resolved(chosen),
                Selected::Abbreviated(prefix) => Resolved {
                    commit: self.lookup(local.repository(), &prefix)?.ok_or_else(|| self.unknown(&prefix))?,
                    name: None,
                },
                Selected::Unknown => return Err(self.unknown(wanted.text())),
            },
        };
        if !generation.is_damaged() && self.in_mirror(&found.commit) {
            return Ok(found);
        }
        if !local.contains(&found.commit) {
            return Err(self.unknown(wanted.text()));
        }
        self.copy_local(&local, &generation, &found.commit)?;
        Ok(found)
    }

    fn copy_local(
        &self,
        local: &LocalRepository<'_>,
        generation: &Generation,
        commit: &CommitId,
    ) -> Result<(), SourceError> {
        let limit = self.config.max_repository_bytes;
        let entries = self.config.max_tree_entries;
        let used = generation.usage().bytes;
        if (generation.is_damaged() || used >= limit) && self.mirror.may_rebuild() {
            let draft = self.mirror.start_generation()?;
            local.copy(commit, &draft.repository(), limit, entries)?;
            self.mirror.replace(draft)?;
            return Ok(());
        }
        local.copy(commit, &generation.repository(), limit.saturating_sub(used), entries)
    }

    fn in_mirror(&self, commit: &CommitId) -> bool {
        self.mirror.readable().iter().any(|generation| generation.contains(commit))
    }

    /// The only commit whose id starts so.
    fn lookup(&self, repository: &gix::Repository, prefix: &str) -> Result<Option<CommitId>, SourceError> {
        let Ok(hash_prefix) = gix::hash::Prefix::from_hex(prefix) else {
            return Ok(None);
        };
        let mut candidates = HashSet::default();
        // A failure to look is taken for not being there; the fetch that follows then says what is wrong.
        let _ = repository.objects.lookup_prefix(hash_prefix, Some(&mut candidates));
        let mut commits = candidates.into_iter().filter(|id| {
            matches!(repository.try_find_header(*id), Ok(Some(header)) if header.kind() == gix::objs::Kind::Commit)
        });
        match (commits.next(), commits.next()) {
            (None, _) => Ok(None),
            (Some(only), None) => Ok(Some(CommitId::from(only))),
            (Some(_), Some(_)) => {
                Err(SourceError::Ambiguous { repository: self.guard.label().to_owned(), reference: prefix.to_owned() })
            }
        }
    }

    fn unknown(&self, reference: &str) -> SourceError {
        SourceError::UnknownReference { repository: self.guard.label().to_owned(), reference: reference.to_owned() }
    }
}

fn resolved(chosen: ListedRef) -> Resolved {
    Resolved { commit: chosen.target, name: Some(chosen.name) }
}

/// A commit id that the server refuses says nothing about the mirror.
fn specs_name_refs(specs: &[String]) -> bool {
    specs.iter().all(|spec| spec.starts_with('+'))
}
