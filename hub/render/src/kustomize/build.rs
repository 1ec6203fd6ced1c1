//! The recursion through kustomizations: what is read, in which order steps run, and what is done once at the root.

mod steps;

use std::sync::Arc;

use windlass_protocol::yaml::Node;

use super::{
    KustomizeFlags, LoadRestrictions,
    config::{self, Config},
    file::{FILE_NAMES, FileKind, Kustomization},
    generator,
    origin::Origin,
    plugin,
    resource::Resource,
    resource_map::ResourceMap,
    schema::Schema,
    variables::{self, Variables},
};
use crate::{
    error::{Problem, ProblemKind, RenderError},
    path,
    reader::{self, Reader},
};

/// One build: everything that outlives a single kustomization.
pub(super) struct Build<'r, 't> {
    pub(super) reader: &'r mut Reader<'t>,
    pub(super) flags: &'r KustomizeFlags,
    pub(super) schema: Schema,
}

/// What has been gathered so far on one level.
#[derive(Default)]
pub(super) struct Accumulator {
    pub(super) map: ResourceMap,
    /// `None` before anything has been merged.
    pub(super) config: Option<Arc<Config>>,
    pub(super) variables: Variables,
}

/// A kustomization being built, with the ones above it.
pub(super) struct Level<'l> {
    pub(super) root: String,
    pub(super) file: String,
    pub(super) kustomization: Kustomization,
    /// Kept when `buildMetadata` of the root asks for it.
    pub(super) origin: Option<Origin>,
    parent: Option<&'l Self>,
}

impl Level<'_> {
    fn depth(&self) -> usize {
        1 + self.parent.map_or(0, Self::depth)
    }

    /// The root of this level or of one above that is `candidate` or below it.
    fn visited_within(&self, candidate: &str) -> Option<&str> {
        if path::is_within(&self.root, candidate) {
            return Some(&self.root);
        }
        self.parent.and_then(|parent| parent.visited_within(candidate))
    }

    fn file_name(&self) -> &str {
        path::base_name(&self.file)
    }
}

impl<'r, 't> Build<'r, 't> {
    pub(super) fn new(reader: &'r mut Reader<'t>, flags: &'r KustomizeFlags) -> Self {
        Self { reader, flags, schema: Schema::default() }
    }

    /// Builds the kustomization at `root` and finishes it.
    pub(super) fn run(
        &mut self,
        root: &str,
        adjust: &mut dyn FnMut(&mut Kustomization, &mut Reader<'_>) -> Result<(), Problem>,
    ) -> Result<(ResourceMap, Kustomization), RenderError> {
        let (file, mut kustomization) = self.read_kustomization(root)?;
        adjust(&mut kustomization, self.reader).map_err(|problem| problem.in_file(&file))?;
        self.set_schema(root, &kustomization)?;
        let origin = (!kustomization.build_metadata.is_empty()).then(Origin::default);
        let level = Level { root: root.to_owned(), file, kustomization, origin, parent: None };
        let accumulator = self.accumulate(&level, Accumulator::default())?;
        let map = self.finish(accumulator).map_err(|problem| problem.in_file(&level.file))?;
        Ok((map, level.kustomization))
    }

    fn read_kustomization(&mut self, root: &str) -> Result<(String, Kustomization), RenderError> {
        let mut found = Vec::new();
        for name in FILE_NAMES {
            let path = path::join(root, name)?;
            if let Some(content) = self.reader.file(&path)? {
                found.push((path, content));
            }
        }
        let mut found = found.into_iter();
        match (found.next(), found.next()) {
            (Some((path, content)), None) => {
                let parsed = Kustomization::parse(&path, &content, &mut self.reader.warnings)?;
                Ok((path, parsed))
            }
            (None, _) => {
                let message = format!(
                    "unable to find one of 'kustomization.yaml', 'kustomization.yml' or 'Kustomization' in directory '{root}'"
                );
                Err(Problem::new(ProblemKind::NotFound, message).in_file(root).into())
            }
            _ => Err(Problem::field(format!("Found multiple kustomization files under: {root}")).in_file(root).into()),
        }
    }

    fn set_schema(&mut self, root: &str, kustomization: &Kustomization) -> Result<(), RenderError> {
        let (path, version) = (kustomization.openapi.get("path"), kustomization.openapi.get("version"));
        let Some(path) = path else {
            return match version.map(String::as_str) {
                None | Some("" | "v1.21.2") => Ok(()),
                Some(other) => Err(Problem::field(format!("the specified OpenAPI version '{other}' is not built in"))
                    .in_field("openapi")
                    .into()),
            };
        };
        let (file, content) = self.load(root, path)?;
        if version.is_some() {
            let message = "builtin version and custom schema provided, cannot use both";
            return Err(Problem::field(message).in_field("openapi").into());
        }
        if !self.schema.is_custom() {
            self.schema.set_custom(&content).map_err(|problem| problem.in_file(&file))?;
        }
        Ok(())
    }

    /// Runs one kustomization; `accumulator` is its parent's for a component, and empty otherwise.
    fn accumulate(&mut self, level: &Level<'_>, accumulator: Accumulator) -> Result<Accumulator, RenderError> {
        let kustomization = &level.kustomization;
        let here = |problem: Problem| problem.in_file(&level.file);
        let mut accumulator = self
            .resources(level, accumulator, &kustomization.resources)
            .map_err(|error| within("accumulating resources", error))?;
        let config = self.configuration(level).map_err(here)?;
        config::merge_shared(&mut accumulator.config, &config).map_err(here)?;
        self.generate(level, &mut accumulator)?;
        let mut accumulator =
            self.components(level, accumulator).map_err(|error| within("accumulating components", error))?;
        let config = accumulator.config.clone().unwrap_or_default();
        for step in self.transformers(level, &config)? {
            step.apply(&mut accumulator.map, &self.schema).map_err(here)?;
        }
        for validator in plugin::validators(self, level)? {
            validator.check(&accumulator.map, &self.schema).map_err(here)?;
        }
        self.check_limit(&accumulator.map).map_err(here)?;
        variables::declare(&mut accumulator.variables, &mut accumulator.map, &kustomization.vars, &self.schema)
            .map_err(here)?;
        Ok(accumulator)
    }

    fn check_limit(&self, map: &ResourceMap) -> Result<(), Problem> {
        let limit = self.reader.limits.resources;
        if map.list.len() > limit { Err(Problem::limit("resources", limit)) } else { Ok(()) }
    }

    fn configuration(&mut self, level: &Level<'_>) -> Result<Arc<Config>, Problem> {
        let mut config = Config::built_in();
        for path in &level.kustomization.configurations {
            let (file, content) = self.load(&level.root, path)?;
            Arc::make_mut(&mut config).merge(&config::from_bytes(&file, &content)?)?;
        }
        for path in &level.kustomization.crds {
            let (file, content) = self.load(&level.root, path)?;
            Arc::make_mut(&mut config).merge(&config::from_crds(&file, &content)?)?;
        }
        Ok(config)
    }

    /// Adds the resources of files and directories.
    pub(super) fn resources(
        &mut self,
        level: &Level<'_>,
        mut accumulator: Accumulator,
        paths: &[String],
    ) -> Result<Accumulator, RenderError> {
        for entry in paths {
            let here = |problem: Problem| problem.in_file(&level.file).in_field("resources");
            refuse_remote(entry).map_err(here)?;
            let target = path::join(&level.root, entry).map_err(here)?;
            if !entry.is_empty() && self.reader.is_directory(&target)? {
                accumulator = self.directory(level, accumulator, entry, &target, FileKind::Kustomization)?;
                continue;
            }
            let from = |problem: Problem| problem.while_(format!("accumulating resources from '{entry}'"));
            let (file, content) = self.load(&level.root, entry).map_err(from).map_err(here)?;
            let documents = self.reader.documents(&file, &content)?;
            let nodes = documents.as_ref().clone();
            let mut resources = resources_from(nodes, &self.schema).map_err(|problem| problem.in_file(&file))?;
            if let Some(origin) = &level.origin {
                for resource in &mut resources {
                    resource.origin = Some(origin.append(entry));
                }
            }
            let merging = |problem: Problem| problem.while_(format!("merging resources from '{entry}'")).in_file(&file);
            accumulator.map.append_all(resources).map_err(merging)?;
            self.check_limit(&accumulator.map).map_err(here)?;
        }
        Ok(accumulator)
    }

    fn components(&mut self, level: &Level<'_>, mut accumulator: Accumulator) -> Result<Accumulator, RenderError> {
        for entry in &level.kustomization.components {
            let here = |problem: Problem| problem.in_file(&level.file).in_field("components");
            refuse_remote(entry).map_err(here)?;
            let target = path::join(&level.root, entry).map_err(here)?;
            if !self.reader.is_directory(&target)? {
                let message = format!("must build at directory: '{target}' doesn't exist");
                return Err(here(Problem::new(ProblemKind::NotFound, message)).into());
            }
            accumulator = self.directory(level, accumulator, entry, &target, FileKind::Component)?;
        }
        Ok(accumulator)
    }

    fn directory(
        &mut self,
        level: &Level<'_>,
        mut accumulator: Accumulator,
        entry: &str,
        target: &str,
        wanted: FileKind,
    ) -> Result<Accumulator, RenderError> {
        if let Some(visited) = level.visited_within(target) {
            let message = format!("cycle detected: candidate root '{target}' contains visited root '{visited}'");
            return Err(Problem::new(ProblemKind::Cycle, message).in_file(&level.file).into());
        }
        if level.depth() >= self.reader.limits.depth {
            return Err(Problem::limit("depth", self.reader.limits.depth).in_file(&level.file).into());
        }
        let (file, mut kustomization) = self.read_kustomization(target)?;
        kustomization.build_metadata.clone_from(&level.kustomization.build_metadata);
        self.set_schema(target, &kustomization)?;
        if kustomization.kind != wanted {
            let message = match wanted {
                FileKind::Component => format!(
                    "accumulateDirectory: \"expected kind 'Component' for path '{target}' but got '{}'\"",
                    kustomization.kind.name()
                ),
                FileKind::Kustomization => format!("expected kind != 'Component' for path '{target}'"),
            };
            return Err(Problem::field(message).in_file(&file).in_field("kind").into());
        }
        let origin = level.origin.as_ref().map(|origin| origin.append(entry));
        let below = Level { root: target.to_owned(), file, kustomization, origin, parent: Some(level) };
        let recursed = |error| within(&format!("recursed accumulation of path '{target}'"), error);
        match wanted {
            // A component's directives act on what its parent has gathered.
            FileKind::Component => self.accumulate(&below, accumulator).map_err(recursed),
            FileKind::Kustomization => {
                let made = self.accumulate(&below, Accumulator::default()).map_err(recursed)?;
                let merging = |problem: Problem| {
                    problem.while_(format!("recursed merging from path '{target}'")).in_file(&level.file)
                };
                accumulator.map.append_all(made.map.list).map_err(merging)?;
                if let Some(config) = &made.config {
                    config::merge_shared(&mut accumulator.config, config).map_err(merging)?;
                }
                variables::merge(&mut accumulator.variables, made.variables).map_err(merging)?;
                Ok(accumulator)
            }
        }
    }

    fn generate(&mut self, level: &Level<'_>, accumulator: &mut Accumulator) -> Result<(), RenderError> {
        let kustomization = &level.kustomization;
        if kustomization.helm {
            let message = "helmCharts are not rendered by Kustomize here; make the chart a source of its own";
            return Err(Problem::unsupported(message).in_file(&level.file).in_field("helmCharts").into());
        }
        let global = kustomization.generator_options.as_ref();
        let kinds = [
            (generator::Kind::ConfigMap, "ConfigMapGenerator", "configMapGenerator", &kustomization.config_maps),
            (generator::Kind::Secret, "SecretGenerator", "secretGenerator", &kustomization.secrets),
        ];
        for (kind, plugin, field, generators) in kinds {
            for (index, generator) in generators.iter().enumerate() {
                let here = |problem: Problem| problem.in_file(&level.file).in_field(format!("{field}[{index}]"));
                let options = generator::merged_options(generator.options.as_ref(), global);
                let mut resource = generator::generate(self, &level.root, kind, generator, &options).map_err(here)?;
                resource.origin = level.origin.as_ref().map(|origin| origin.built_in(level.file_name(), plugin));
                accumulator.map.absorb(resource, &self.schema).map_err(here)?;
            }
        }
        for resource in plugin::generators(self, level)? {
            accumulator.map.absorb(resource, &self.schema).map_err(|problem| problem.in_file(&level.file))?;
        }
        Ok(())
    }

    /// What is done once, at the root: hashes, references, variables, and dropping of local configuration.
    fn finish(&mut self, accumulator: Accumulator) -> Result<ResourceMap, Problem> {
        let Accumulator { mut map, config, variables } = accumulator;
        let config = config.unwrap_or_default();
        super::transform::add_hashes(&mut map, &self.schema)?;
        super::name_reference::fix(&mut map, &config, &self.schema)?;
        variables::resolve(&mut map, &variables, &config.var_reference, &mut self.reader.warnings)?;
        map.list.retain(|resource| {
            let local = resource.node.get("metadata").and_then(|metadata| metadata.get("annotations"));
            let local = local.and_then(|annotations| annotations.get("config.kubernetes.io/local-config"));
            local.is_none_or(|value| value.text() == "false")
        });
        Ok(map)
    }

    /// A file that the kustomization in `root` names: it must be there, and in or below `root` unless flags allow more.
    pub(super) fn load(&mut self, root: &str, entry: &str) -> Result<(String, Arc<[u8]>), Problem> {
        refuse_remote(entry)?;
        let target = path::join(root, entry)?;
        if self.flags.load_restrictions == LoadRestrictions::RootOnly && !path::is_within(&target, root) {
            let message = format!("security; file '{target}' is not in or below '{root}'");
            return Err(Problem::new(ProblemKind::Escape, message));
        }
        match self.reader.file(&target)? {
            Some(content) => Ok((target, content)),
            None if self.reader.is_directory(&target)? => {
                Err(Problem::new(ProblemKind::NotFound, format!("'{target}' must resolve to a file")))
            }
            None => Err(Problem::new(ProblemKind::NotFound, format!("'{target}' doesn't exist"))),
        }
    }

    /// Resources or patches in a text; `name` is what problems call it.
    pub(super) fn parse(&mut self, name: &str, text: &[u8]) -> Result<Vec<Resource>, Problem> {
        let nodes = reader::parse(name, text, &mut self.reader.warnings)?;
        resources_from(nodes, &self.schema)
    }
}

fn within(step: &str, mut error: RenderError) -> RenderError {
    for problem in &mut error.problems {
        problem.message = format!("{step}: {}", problem.message);
    }
    error
}

fn refuse_remote(entry: &str) -> Result<(), Problem> {
    let remote = entry.contains("://")
        || entry.starts_with("git@")
        || entry.contains("?ref=")
        || entry.starts_with("github.com/");
    if remote {
        let message = format!(
            "'{entry}' is remote; only files of the repository are rendered, so add it there or make it a source of its own"
        );
        return Err(Problem::unsupported(message));
    }
    Ok(())
}

/// Documents as resources: lists are opened, empty ones dropped, nameless and kindless ones refused.
pub(super) fn resources_from(mut nodes: Vec<Node>, schema: &Schema) -> Result<Vec<Resource>, Problem> {
    if let [only] = nodes.as_mut_slice() {
        let kind = only.get("kind").map_or("", Node::text);
        if matches!(kind, "List" | "ResourceList")
            && let Some(Node::Sequence(items)) = only.remove("items")
        {
            nodes = items;
        }
    }
    let mut queue = std::collections::VecDeque::new();
    push_valid(&mut queue, nodes)?;
    let mut resources = Vec::with_capacity(queue.len());
    while let Some(mut node) = queue.pop_front() {
        let is_list = node.get("kind").map_or("", Node::text).ends_with("List");
        match is_list.then(|| node.remove("items")).flatten() {
            None => resources.push(Resource::new(node, schema)),
            Some(Node::Sequence(items)) => push_valid(&mut queue, items)?,
            Some(items) if items.is_null() => {}
            Some(items) => {
                return Err(Problem::object(format!("expected array in items, but found {}", items.kind_name()))
                    .at_line(node.line()));
            }
        }
    }
    Ok(resources)
}

fn push_valid(queue: &mut std::collections::VecDeque<Node>, nodes: Vec<Node>) -> Result<(), Problem> {
    for node in nodes {
        if node.is_empty() {
            continue;
        }
        let line = node.line();
        let kind = node.get("kind").map_or("", Node::text);
        let name = super::resource::metadata_text(&node, "name");
        if kind.is_empty() {
            return Err(Problem::object("missing kind in object").at_line(line));
        }
        if name.is_empty() && !kind.ends_with("List") {
            return Err(Problem::object(format!("missing metadata.name in object of kind {kind}")).at_line(line));
        }
        queue.push_back(node);
    }
    Ok(())
}
