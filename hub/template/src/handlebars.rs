//! Handlebars blocks in a template that is not a Go template: `{{#if (eq a "b")}} … {{else if …}} … {{else}} … {{/if}}`.
//!
//! Only `if` is known, and only when every condition of the block is a name or `eq`, `ne`, `and`, `or`, `not` over names and
//! literals, and every name is a parameter of this Application. Everything else that begins with `{{#`, and all that it
//! encloses, stays as it is written: Helm values and patches carry other tools' templates (COMPAT.md, decision 3).
//!
//! A line that holds nothing but a block tag vanishes, as in Handlebars. Of a parameter, the texts ``, `false`, `0` and
//! `<nil>` count as false: parameters are texts, and these are what false values flatten to.

mod condition;

use std::{borrow::Cow, ops::Range};

use self::condition::Condition;
use crate::{Budget, Params, TemplateErrorKind};

/// Blocks inside blocks; the rendering recurses this deep.
const DEPTH: usize = 32;

/// Chooses the branches of all blocks; plain tags are left for the next pass. Borrowed when there is no block.
pub(crate) fn render<'a>(
    text: &'a str,
    params: &Params,
    budget: &mut Budget,
) -> Result<Cow<'a, str>, TemplateErrorKind> {
    if !text.contains("{{#") {
        return Ok(Cow::Borrowed(text));
    }
    let tags = scan(text, budget)?;
    let blocks = pair(text, &tags, params)?;
    if blocks.iter().all(|block| matches!(block, Some(Block { branches: None, .. }) | None)) {
        return Ok(Cow::Borrowed(text));
    }
    let renderer = Renderer { text, tags: &tags, blocks: &blocks, params };
    let mut output = String::with_capacity(text.len());
    renderer.walk(0..tags.len(), 0..text.len(), &mut output);
    Ok(Cow::Owned(output))
}

/// A tag that opens, splits or closes a block.
struct Tag<'a> {
    /// The bytes of the tag, or of its whole line when it stands alone on it.
    outer: Range<usize>,
    /// The bytes of the tag.
    inner: Range<usize>,
    kind: Kind<'a>,
}

#[derive(Clone, Copy)]
enum Kind<'a> {
    Open {
        name: &'a str,
        condition: &'a str,
    },
    ElseIf(&'a str),
    Else,
    /// `{{else unless …}}` and its kin: the block is not ours.
    ElseOther,
    Close(&'a str),
}

fn scan<'a>(text: &'a str, budget: &mut Budget) -> Result<Vec<Tag<'a>>, TemplateErrorKind> {
    let mut tags = Vec::new();
    let mut from = 0;
    while let Some(start) = find(text, from, "{{") {
        budget.step()?;
        let Some(close) = find(text, start + 2, "}}") else { break };
        from = close + 2;
        let content = text.get(start + 2..close).unwrap_or_default();
        if let Some(kind) = classify(content.trim()) {
            tags.push(Tag { outer: line_of(text, start..from), inner: start..from, kind });
        }
    }
    Ok(tags)
}

fn find(text: &str, from: usize, needle: &str) -> Option<usize> {
    text.get(from..)?.find(needle).map(|at| from + at)
}

fn classify(content: &str) -> Option<Kind<'_>> {
    if let Some(open) = content.strip_prefix('#') {
        let open = open.trim_start();
        let end = open.find(|c: char| c.is_whitespace() || c == '(').unwrap_or(open.len());
        let (name, condition) = open.split_at_checked(end)?;
        return Some(Kind::Open { name, condition: condition.trim() });
    }
    if let Some(close) = content.strip_prefix('/') {
        return Some(Kind::Close(close.trim()));
    }
    let rest = content.strip_prefix("else")?;
    if rest.is_empty() {
        return Some(Kind::Else);
    }
    if !rest.starts_with(char::is_whitespace) {
        return None;
    }
    match rest.trim_start().strip_prefix("if") {
        Some(condition) if condition.starts_with(|c: char| c.is_whitespace() || c == '(') => {
            Some(Kind::ElseIf(condition.trim()))
        }
        _ => Some(Kind::ElseOther),
    }
}

/// The tag's whole line with its end, if nothing but blanks stands beside the tag; the tag itself otherwise.
fn line_of(text: &str, tag: Range<usize>) -> Range<usize> {
    let is_blank = |part: &str| part.bytes().all(|byte| byte == b' ' || byte == b'\t');
    let before = text.get(..tag.start).unwrap_or_default();
    let after = text.get(tag.end..).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let (rest, end) = match after.find('\n') {
        Some(at) => (after.get(..at).unwrap_or_default(), tag.end + at + 1),
        None => (after, text.len()),
    };
    let rest = rest.strip_suffix('\r').unwrap_or(rest);
    if is_blank(before.get(line_start..).unwrap_or_default()) && is_blank(rest) { line_start..end } else { tag }
}

/// An opening tag with its partners, as indexes of tags.
struct Block {
    close: usize,
    /// The branches, when the block is ours. A branch starts at the tag named first.
    branches: Option<Vec<(usize, Option<Condition>)>>,
}

/// An opening tag whose partner has not come yet.
struct Pending<'a> {
    tag: usize,
    name: &'a str,
    branches: Option<Vec<(usize, Option<Condition>)>>,
    /// `{{else}}` has been seen.
    last: bool,
    problem: Option<&'static str>,
}

/// The block that each opening tag begins, in the places of the tags.
fn pair(text: &str, tags: &[Tag<'_>], params: &Params) -> Result<Vec<Option<Block>>, TemplateErrorKind> {
    let mut blocks: Vec<Option<Block>> = tags.iter().map(|_| None).collect();
    let mut stack: Vec<Pending<'_>> = Vec::new();
    for (index, tag) in tags.iter().enumerate() {
        match tag.kind {
            Kind::Open { name, condition } => {
                let ours = name == "if" && stack.iter().all(|outer| outer.branches.is_some());
                let condition = if ours { Condition::parse(condition, params) } else { None };
                if stack.len() == DEPTH {
                    if condition.is_none() {
                        continue;
                    }
                    return Err(TemplateErrorKind::Limit { name: "nested blocks", limit: DEPTH });
                }
                let branches = condition.map(|condition| vec![(index, Some(condition))]);
                stack.push(Pending { tag: index, name, branches, last: false, problem: None });
            }
            Kind::ElseIf(condition) => split(stack.last_mut(), index, Some(condition), params),
            Kind::Else => split(stack.last_mut(), index, None, params),
            Kind::ElseOther => {
                if let Some(open) = stack.last_mut() {
                    open.branches = None;
                }
            }
            Kind::Close(name) => {
                let Some(at) = stack.iter().rposition(|open| open.name == name) else { continue };
                let inner = stack.split_off(at);
                let mut inner = inner.into_iter();
                let Some(open) = inner.next() else { continue };
                // What was opened inside and never closed is an error if it could have been rendered.
                inner.try_for_each(|unclosed| check_unclosed(text, tags, &unclosed))?;
                if let (Some(problem), Some(_)) = (open.problem, &open.branches) {
                    return Err(block_error(text, tags, open.tag, problem));
                }
                if let Some(place) = blocks.get_mut(open.tag) {
                    *place = Some(Block { close: index, branches: open.branches });
                }
            }
        }
    }
    stack.iter().try_for_each(|unclosed| check_unclosed(text, tags, unclosed))?;
    Ok(blocks)
}

fn split(open: Option<&mut Pending<'_>>, index: usize, condition: Option<&str>, params: &Params) {
    let Some(open) = open else { return };
    let Some(branches) = &mut open.branches else { return };
    if open.last {
        open.problem = Some("has a branch after {{else}}");
    }
    match condition.map(|condition| Condition::parse(condition, params)) {
        None => {
            open.last = true;
            branches.push((index, None));
        }
        Some(Some(condition)) => branches.push((index, Some(condition))),
        // One condition that is not ours makes the whole block not ours.
        Some(None) => open.branches = None,
    }
}

fn check_unclosed(text: &str, tags: &[Tag<'_>], open: &Pending<'_>) -> Result<(), TemplateErrorKind> {
    if open.branches.is_some() { Err(block_error(text, tags, open.tag, "is never closed")) } else { Ok(()) }
}

fn block_error(text: &str, tags: &[Tag<'_>], tag: usize, problem: &'static str) -> TemplateErrorKind {
    let range = tags.get(tag).map(|tag| tag.inner.clone()).unwrap_or_default();
    let tag = text.get(range).unwrap_or_default().chars().take(80).collect();
    TemplateErrorKind::Block { tag, problem }
}

struct Renderer<'a> {
    text: &'a str,
    tags: &'a [Tag<'a>],
    blocks: &'a [Option<Block>],
    params: &'a Params,
}

impl Renderer<'_> {
    /// Appends the bytes of `text`, in which the blocks among `tags` are replaced by their chosen branches.
    fn walk(&self, tags: Range<usize>, text: Range<usize>, output: &mut String) {
        let mut copied = text.start;
        let mut index = tags.start;
        while index < tags.end {
            let Some(Some(block)) = self.blocks.get(index) else {
                index += 1;
                continue;
            };
            if let Some(branches) = &block.branches {
                output.push_str(self.text.get(copied..self.outer(index).start).unwrap_or_default());
                copied = self.outer(block.close).end;
                self.choose(branches, block.close, output);
            }
            // Of a block that is not ours, everything inside is copied as it stands.
            index = block.close + 1;
        }
        output.push_str(self.text.get(copied..text.end).unwrap_or_default());
    }

    fn choose(&self, branches: &[(usize, Option<Condition>)], close: usize, output: &mut String) {
        let holds = |condition: &Option<Condition>| condition.as_ref().is_none_or(|it| it.holds(self.params));
        let Some(at) = branches.iter().position(|(_, condition)| holds(condition)) else { return };
        let start = branches.get(at).map_or(close, |(tag, _)| *tag);
        let end = branches.get(at + 1).map_or(close, |(tag, _)| *tag);
        self.walk(start + 1..end, self.outer(start).end..self.outer(end).start, output);
    }

    fn outer(&self, tag: usize) -> Range<usize> {
        self.tags.get(tag).map(|tag| tag.outer.clone()).unwrap_or_default()
    }
}
