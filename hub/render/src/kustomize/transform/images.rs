//! The image transformer: names, tags and digests of container images, wherever a list of containers stands.

use std::borrow::Cow;

use regex::Regex;
use windlass_protocol::yaml::{Node, Scalar};

use crate::{
    error::Problem,
    kustomize::{
        fields::{Create, set_scalar, wrong_kind},
        fieldspec::FieldSpecs,
        file::Image,
        resource_map::ResourceMap,
        schema::Schema,
    },
};

pub(super) fn apply(map: &mut ResourceMap, schema: &Schema, image: &Image, specs: &FieldSpecs) -> Result<(), Problem> {
    let name = Name::new(&image.name)?;
    let update = Update { image, name };
    for resource in map.list.iter_mut().filter(|resource| resource.id.gvk.kind != "CustomResourceDefinition") {
        update.walk(&mut resource.node)?;
        let id = resource.id.clone();
        specs.apply(&mut resource.node, &id, Create::No, &mut |node| update.set(node))?;
        resource.refresh(schema);
    }
    Ok(())
}

struct Update<'i> {
    image: &'i Image,
    name: Name<'i>,
}

impl Update<'_> {
    /// Visits every list called `containers` or `initContainers` at any depth.
    fn walk(&self, node: &mut Node) -> Result<(), Problem> {
        match node {
            Node::Scalar(_) => Ok(()),
            Node::Sequence(items) => items.iter_mut().try_for_each(|item| self.walk(item)),
            Node::Mapping(entries) => entries.iter_mut().try_for_each(|(key, value)| {
                self.walk(value)?;
                match value {
                    Node::Sequence(items) if matches!(key.text.as_str(), "containers" | "initContainers") => {
                        items.iter_mut().try_for_each(|item| self.container(item))
                    }
                    _ => Ok(()),
                }
            }),
        }
    }

    fn container(&self, item: &mut Node) -> Result<(), Problem> {
        if item.is_null() {
            return Ok(());
        }
        if !matches!(item, Node::Mapping(_)) {
            return Err(wrong_kind("MappingNode", item));
        }
        item.get_mut("image").map_or(Ok(()), |image| self.set(image))
    }

    fn set(&self, node: &mut Node) -> Result<(), Problem> {
        let Node::Scalar(scalar) = node else { return Err(wrong_kind("ScalarNode", node)) };
        if scalar.is_null() || !self.name.fits(&scalar.text) {
            return Ok(());
        }
        let changed = self.changed(&scalar.text);
        set_scalar(node, Scalar::untyped(changed))
    }

    fn changed(&self, text: &str) -> String {
        let (name, tag, digest) = split(text);
        let Image { new_name, new_tag, digest: new_digest, tag_suffix, .. } = self.image;
        let mut result = if new_name.is_empty() { name } else { new_name }.to_owned();
        let (tag, digest): (Cow<'_, str>, &str) =
            match (new_tag.is_empty(), new_digest.is_empty(), tag_suffix.is_empty()) {
                (false, false, _) => (new_tag.into(), new_digest),
                (false, true, _) => (new_tag.into(), ""),
                (true, false, _) => ("".into(), new_digest),
                (true, true, false) => (format!("{tag}{tag_suffix}").into(), ""),
                (true, true, true) => (tag.into(), digest),
            };
        for (mark, part) in [(':', tag.as_ref()), ('@', digest)] {
            if !part.is_empty() {
                result.push(mark);
                result.push_str(part);
            }
        }
        result
    }
}

/// The name of an image to look for; it is a regular expression to Kustomize, though it seldom is meant as one.
enum Name<'i> {
    /// No special characters but dots, which stand for any character.
    Plain(&'i str),
    Regex(Regex),
}

impl<'i> Name<'i> {
    fn new(name: &'i str) -> Result<Self, Problem> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/' | b':' | b'.' | b'@');
        if name.bytes().all(plain) {
            return Ok(Self::Plain(name));
        }
        Regex::new(&format!("^{name}(:[a-zA-Z0-9_.{{}}-]*)?(@sha256:[a-zA-Z0-9_.{{}}-]*)?$")).map(Self::Regex).map_err(
            |error| {
                Problem::field(format!("the image name '{name}' is not a regular expression: {error}"))
                    .in_field("images")
            },
        )
    }

    fn fits(&self, text: &str) -> bool {
        match self {
            Self::Regex(regex) => regex.is_match(text),
            Self::Plain(name) => {
                let mut rest = text.chars();
                let same = name
                    .chars()
                    .all(|wanted| rest.next().is_some_and(|found| found == wanted || (wanted == '.' && found != '\n')));
                same && is_tag_and_digest(rest.as_str())
            }
        }
    }
}

/// `(:[a-zA-Z0-9_.{}-]*)?(@sha256:[a-zA-Z0-9_.{}-]*)?`
fn is_tag_and_digest(text: &str) -> bool {
    let legal = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'{' | b'}' | b'-'))
    };
    let (tag, digest) = match text.split_once("@sha256:") {
        Some((tag, digest)) => (tag, digest),
        None => (text, ""),
    };
    (tag.is_empty() || tag.strip_prefix(':').is_some_and(legal)) && legal(digest)
}

/// Name, tag and digest; a colon before the first slash is a port.
pub(in crate::kustomize) fn split(image: &str) -> (&str, &str, &str) {
    let slash = image.find('/').unwrap_or(0);
    let tail = image.get(slash..).unwrap_or_default();
    let at = tail.find('@').map(|index| index + slash);
    let colon = tail.find(':').map(|index| index + slash);
    let cut = |index: usize| (image.get(..index).unwrap_or(image), image.get(index + 1..).unwrap_or_default());
    match (colon, at) {
        (None, None) => (image, "", ""),
        (colon, Some(at)) if colon.is_none_or(|colon| at < colon) => {
            let (name, digest) = cut(at);
            (name, "", digest)
        }
        (Some(colon), Some(at)) => {
            let (name, _) = cut(colon);
            (name, image.get(colon + 1..at).unwrap_or_default(), cut(at).1)
        }
        (Some(colon), None) => {
            let (name, tag) = cut(colon);
            (name, tag, "")
        }
        (None, Some(_)) => (image, "", ""),
    }
}
