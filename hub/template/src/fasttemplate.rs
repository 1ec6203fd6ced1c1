//! Plain tags, as `valyala/fasttemplate` renders them for Argo CD (`applicationset/utils`, `Render.Replace`).
//!
//! One pass, never a second one over inserted text: a parameter whose text holds `{{x}}` inserts that text and nothing more.

use std::borrow::Cow;

use crate::{Budget, Params, TemplateErrorKind};

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// Replaces every tag that names a parameter; borrowed when the text holds no tag.
pub(crate) fn render<'a>(
    text: &'a str,
    params: &Params,
    budget: &mut Budget,
) -> Result<Cow<'a, str>, TemplateErrorKind> {
    if !is_templated(text) {
        return Ok(Cow::Borrowed(text));
    }
    let mut output = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(OPEN) {
        budget.step()?;
        let Some((tag, next)) = after.split_once(CLOSE) else {
            let near = after.chars().take(40).collect();
            return Err(TemplateErrorKind::Unclosed { near });
        };
        output.push_str(before);
        match params.get(tag.trim()) {
            Some(value) if !tag.trim().is_empty() => output.push_str(value),
            _ => output.extend([OPEN, tag, CLOSE]),
        }
        budget.fits(output.len())?;
        rest = next;
    }
    output.push_str(rest);
    Ok(Cow::Owned(output))
}

/// Argo CD's own test, the regular expression `.*{{.*}}.*`: an opening and a closing mark on one line. A text without such a
/// line is left alone even when it holds a lone `{{`.
fn is_templated(text: &str) -> bool {
    text.lines().any(|line| line.split_once(OPEN).is_some_and(|(_, after)| after.contains(CLOSE)))
}
