//! The transformers of one kustomization, in the order in which Kustomize runs them.

use std::sync::Arc;

use super::{Build, Level};
use crate::{
    error::{Problem, RenderError},
    kustomize::{
        config::Config,
        fieldspec::{FieldSpec, FieldSpecs},
        file::{Label, Patch, PatchOptions, Replacement, ReplacementField, Selector},
        json_patch::JsonPatch,
        plugin,
        resource::Resource,
        transform::{Configured, PatchSet, Subjects, Transformer},
    },
};

impl Build<'_, '_> {
    pub(super) fn transformers(&mut self, level: &Level<'_>, config: &Config) -> Result<Vec<Configured>, RenderError> {
        let mut steps = Steps { level, list: Vec::new() };
        self.patch_steps(level, &mut steps)?;
        naming_steps(level, config, &mut steps);
        label_steps(level, config, &mut steps)?;
        self.later_steps(level, config, &mut steps)?;
        let mut list = steps.list;
        list.extend(plugin::transformers(self, level)?);
        Ok(list)
    }

    fn patch_steps(&mut self, level: &Level<'_>, steps: &mut Steps<'_>) -> Result<(), Problem> {
        let kustomization = &level.kustomization;
        if !kustomization.patches_strategic_merge.is_empty() {
            let patches = self
                .strategic_patches(&level.root, &kustomization.patches_strategic_merge)
                .map_err(|problem| problem.in_file(&level.file).in_field("patchesStrategicMerge"))?;
            steps.push("PatchStrategicMergeTransformer", Transformer::Patches(PatchSet::ByIdentity(patches)));
        }
        for (index, patch) in kustomization.patches.iter().enumerate() {
            let made = self
                .patch(&level.root, patch)
                .map_err(|problem| problem.in_file(&level.file).in_field(format!("patches[{index}]")))?;
            steps.push("PatchTransformer", Transformer::Patches(made));
        }
        Ok(())
    }

    fn later_steps(&mut self, level: &Level<'_>, config: &Config, steps: &mut Steps<'_>) -> Result<(), Problem> {
        let kustomization = &level.kustomization;
        for (index, patch) in kustomization.patches_json6902.iter().enumerate() {
            let made = self
                .json_patch(&level.root, patch)
                .map_err(|problem| problem.in_file(&level.file).in_field(format!("patchesJson6902[{index}]")))?;
            steps.push("PatchJson6902Transformer", Transformer::Patches(made));
        }
        for replica in &kustomization.replicas {
            let step = Transformer::Replicas { replica: replica.clone(), specs: config.replicas.clone() };
            steps.push("ReplicaCountTransformer", step);
        }
        for image in &kustomization.images {
            steps.push(
                "ImageTagTransformer",
                Transformer::Images { image: image.clone(), specs: config.images.clone() },
            );
        }
        if !kustomization.replacements.is_empty() {
            let made = self
                .replacements(&level.root, &kustomization.replacements)
                .map_err(|problem| problem.in_file(&level.file).in_field("replacements"))?;
            steps.push("ReplacementTransformer", Transformer::Replacements(made));
        }
        Ok(())
    }

    /// Patches given inline or by file.
    pub(in crate::kustomize) fn strategic_patches(
        &mut self,
        root: &str,
        entries: &[String],
    ) -> Result<Vec<Resource>, Problem> {
        if entries.is_empty() {
            return Err(Problem::patch("empty file path and empty patch content"));
        }
        let mut patches = Vec::new();
        for entry in entries {
            // A text with a colon or a line break may be a patch; a file's name is a scalar, and no patch.
            let inline =
                if entry.contains([':', '\n']) { self.parse("inline patch", entry.as_bytes()).ok() } else { None };
            match inline {
                Some(inline) => patches.extend(inline),
                None => {
                    let (file, content) = self.load(root, entry)?;
                    patches.extend(self.parse(&file, &content).map_err(|problem| problem.in_file(&file))?);
                }
            }
        }
        if patches.is_empty() {
            return Err(Problem::patch(format!("patch appears to be empty; files={entries:?}")));
        }
        Ok(patches)
    }

    /// A `patches` entry: strategic or JSON, which its content tells.
    pub(in crate::kustomize) fn patch(&mut self, root: &str, patch: &Patch) -> Result<PatchSet, Problem> {
        let inline = patch.patch.trim();
        let (text, source, name) = match (inline.is_empty(), patch.path.is_empty()) {
            (true, true) => return Err(Problem::patch("must specify one of patch and path in the patch")),
            (false, false) => return Err(Problem::patch("patch and path can't be set at the same time")),
            (false, true) => (inline.as_bytes().to_vec(), format!("[patch: {inline:?}]"), "inline patch".to_owned()),
            (true, false) => {
                let failed = |problem: Problem| {
                    problem.while_(format!("failed to get the patch file from path({})", patch.path))
                };
                let (file, content) = self.load(root, &patch.path).map_err(failed)?;
                (content.to_vec(), format!("[path: {:?}]", patch.path), file)
            }
        };
        let strategic = self.parse(&name, &text);
        let text = String::from_utf8_lossy(&text).into_owned();
        let json =
            if text.is_empty() { Err(Problem::patch("empty json patch operations")) } else { JsonPatch::parse(&text) };
        match (strategic, json) {
            (Ok(patches), Ok(json)) if !patches.is_empty() && !json.is_empty() => {
                Err(Problem::patch(format!("illegally qualifies as both an SM and JSON patch: {source}")))
            }
            (Ok(patches), _) => Ok(strategic_set(patches, patch.target.clone(), patch.options, source)),
            (Err(_), Ok(json)) => {
                Ok(PatchSet::Json { patch: json, target: patch.target.clone(), source, remember: true })
            }
            (Err(strategic), Err(json)) => {
                let reasons = format!("as a strategic patch: {strategic}; as a JSON patch: {json}");
                let mut problem = Problem::patch(format!("unable to parse SM or JSON patch from {source}: {reasons}"));
                problem.line = strategic.line.filter(|_| !patch.path.is_empty());
                problem.file = (!patch.path.is_empty()).then_some(name);
                Err(problem)
            }
        }
    }

    /// A `patchesJson6902` entry.
    pub(in crate::kustomize) fn json_patch(&mut self, root: &str, patch: &Patch) -> Result<PatchSet, Problem> {
        if patch.target.as_ref().is_none_or(|target| target.id.name.is_empty()) {
            return Err(Problem::patch("must specify the target name"));
        }
        let text = match (patch.path.is_empty(), patch.patch.is_empty()) {
            (true, true) => return Err(Problem::patch("empty file path and empty jsonOp")),
            (false, false) => return Err(Problem::patch("must specify a file path or jsonOp, not both")),
            (true, false) => patch.patch.clone(),
            (false, true) => {
                let (_, content) = self.load(root, &patch.path)?;
                String::from_utf8_lossy(&content).into_owned()
            }
        };
        if text.is_empty() {
            return Err(Problem::patch(format!("patch file '{}' empty seems to be empty", patch.path)));
        }
        let json = JsonPatch::parse(&text).map_err(|problem| problem.while_("decoding the patch"))?;
        if json.is_empty() {
            return Err(Problem::patch(format!("patch appears to be empty; file={}, JsonOp={text}", patch.path)));
        }
        let source = format!("[path: {:?}]", patch.path);
        Ok(PatchSet::Json { patch: json, target: patch.target.clone(), source, remember: false })
    }

    /// Replacements given inline or by file.
    pub(in crate::kustomize) fn replacements(
        &mut self,
        root: &str,
        fields: &[ReplacementField],
    ) -> Result<Vec<Replacement>, Problem> {
        let mut made = Vec::new();
        for field in fields {
            if field.path.is_empty() {
                made.push(field.replacement.clone());
                continue;
            }
            if field.replacement.source.is_some()
                || field.replacement.targets.as_ref().is_some_and(|targets| !targets.is_empty())
            {
                return Err(Problem::field("cannot specify both path and inline replacement"));
            }
            let (file, content) = self.load(root, &field.path)?;
            made.extend(plugin::read_replacements(&file, &content)?);
        }
        Ok(made)
    }
}

fn strategic_set(
    mut patches: Vec<Resource>,
    target: Option<Selector>,
    options: PatchOptions,
    source: String,
) -> PatchSet {
    for patch in &mut patches {
        patch.allow_name_change |= options.allow_name_change;
        patch.allow_kind_change |= options.allow_kind_change;
    }
    match target {
        Some(target) if !patches.is_empty() => PatchSet::Selected { patches, target, source },
        _ => PatchSet::Direct(patches),
    }
}

struct Steps<'l> {
    level: &'l Level<'l>,
    list: Vec<Configured>,
}

impl Steps<'_> {
    fn push(&mut self, name: &str, transformer: Transformer) {
        let level = self.level;
        let origin = level.origin.as_ref().map(|origin| Arc::new(origin.built_in(level.file_name(), name)));
        self.list.push(Configured { transformer, origin });
    }
}

fn naming_steps(level: &Level<'_>, config: &Config, steps: &mut Steps<'_>) {
    let kustomization = &level.kustomization;
    if !kustomization.namespace.is_empty() {
        let step = Transformer::Namespace {
            namespace: kustomization.namespace.clone(),
            specs: config.namespace.clone(),
            subjects: Subjects::default(),
            unset_only: false,
        };
        steps.push("NamespaceTransformer", step);
    }
    if !kustomization.name_prefix.is_empty() {
        let (prefix, specs) = (kustomization.name_prefix.clone(), config.name_prefix.clone());
        steps.push("PrefixTransformer", Transformer::Prefix { prefix, specs });
    }
    if !kustomization.name_suffix.is_empty() {
        let (suffix, specs) = (kustomization.name_suffix.clone(), config.name_suffix.clone());
        steps.push("SuffixTransformer", Transformer::Suffix { suffix, specs });
    }
}

fn label_steps(level: &Level<'_>, config: &Config, steps: &mut Steps<'_>) -> Result<(), Problem> {
    let kustomization = &level.kustomization;
    for label in &kustomization.labels {
        let specs = label_specs(label, config)
            .map_err(|problem| problem.while_("failed to merge labels").in_file(&level.file).in_field("labels"))?;
        steps.push("LabelTransformer", Transformer::Labels { pairs: label.pairs.clone(), specs });
    }
    if !kustomization.labels.is_empty() || !kustomization.common_labels.is_empty() {
        let (pairs, specs) = (kustomization.common_labels.clone(), config.common_labels.clone());
        steps.push("LabelTransformer", Transformer::Labels { pairs, specs });
    }
    if !kustomization.common_annotations.is_empty() {
        let (pairs, specs) = (kustomization.common_annotations.clone(), config.common_annotations.clone());
        steps.push("AnnotationsTransformer", Transformer::Labels { pairs, specs });
    }
    Ok(())
}

fn label_specs(label: &Label, config: &Config) -> Result<FieldSpecs, Problem> {
    let mut specs = FieldSpecs(label.fields.clone());
    specs.merge(&config.labels)?;
    if label.include_selectors {
        specs.merge(&config.common_labels)?;
    } else {
        if label.include_templates {
            let mut templates = config.template_labels.clone();
            if label.include_volume_claim_templates == Some(false) {
                templates.0.retain(|spec| !spec.path.starts_with("spec/volumeClaimTemplates"));
            }
            specs.merge(&templates)?;
        }
        specs.merge_one(FieldSpec::everywhere("metadata/labels", true))?;
    }
    Ok(specs)
}
