//! Lists that merge by keys, with every turn kyaml takes on items that lack a key or share one.

use windlass_protocol::yaml::{Node, Scalar};

use super::{
    super::{
        fields::{set_field, set_scalar},
        schema::TypeRef,
    },
    DIRECTIVE, Directive, Known, Merge, Merged, Source, parse_directive,
};
use crate::error::Problem;

/// The values of the keys of one item; empty where the item lacks one.
type Values = Vec<String>;

impl Merge<'_> {
    pub(super) fn walk_list(
        &self,
        dest: Option<Node>,
        source: Source,
        keys: &[String],
        items: Option<TypeRef>,
    ) -> Result<Option<Merged>, Problem> {
        let Some((ours, theirs)) = visit_list(dest, source)? else { return Ok(None) };
        let ours = match ours {
            Node::Sequence(ours) => ours,
            other => return Ok(Some(Merged::ours(other))),
        };
        let same = theirs.is_none();
        let first: &[Node] = theirs.as_deref().unwrap_or_default();
        let (values, keys) = if keys.is_empty() {
            (scalar_values(first, &ours), vec![String::new()])
        } else {
            (item_values(first, &ours, keys), keys.to_vec())
        };
        let known = items.map_or(Known::Unknown, Known::Object);
        let merged = self.merge_items(ours, theirs, same, values, &keys, &known)?;
        Ok(Some(Merged::ours(Node::Sequence(merged))))
    }

    fn merge_items(
        &self,
        mut ours: Vec<Node>,
        theirs: Option<Vec<Node>>,
        same: bool,
        mut values: Vec<Values>,
        keys: &[String],
        known: &Known,
    ) -> Result<Vec<Node>, Problem> {
        if keys.len() > 1 {
            unite(&mut values);
        }
        let mut added: Vec<Node> = Vec::new();
        let mut last_keys = keys.to_vec();
        for index in 0..values.len() {
            let Some(wanted) = values.get(index).cloned() else { break };
            if wanted.is_empty() {
                continue;
            }
            let (valid_keys, valid_values) = valid(&values, &wanted, keys);
            let (look_keys, look_values) = valid(std::slice::from_ref(&valid_values), &valid_values, &valid_keys);
            let place = find(&ours, &look_keys, &look_values);
            let our_item = place.and_then(|place| ours.get(place)).cloned();
            let their_item = match (&theirs, same) {
                (_, true) if our_item.is_some() => Source::Same,
                (Some(theirs), _) => find(theirs, &look_keys, &look_values)
                    .and_then(|place| theirs.get(place))
                    .map_or(Source::Missing, |node| Source::Node(node.clone())),
                (None, _) => Source::Missing,
            };
            let replaces = matches!(&their_item, Source::Node(node)
                if our_item.is_some() && node.get(DIRECTIVE).map(Node::text) == Some("replace"));
            let merged = self.walk(our_item, their_item, known)?.map(|merged| merged.node);
            last_keys.clone_from(&valid_keys);
            let kept =
                merged.filter(|node| !node.is_null() && !matches!(node, Node::Mapping(entries) if entries.is_empty()));
            let Some(mut item) = kept else {
                set_element(&mut ours, None, &valid_keys, &valid_values)?;
                continue;
            };
            complete(&mut item, &valid_keys, &valid_values)?;
            if let Some(old) = place.and_then(|place| ours.get_mut(place)).filter(|_| !replaces) {
                *old = item.clone();
            }
            set_element(&mut added, Some(&item), &valid_keys, &valid_values)?;
        }
        if values.is_empty() {
            return Ok(ours);
        }
        append_all(&mut added, &ours, &last_keys)?;
        Ok(added)
    }
}

/// The destination, and the patch's items unless the destination is the patch's own node.
type Sides = (Node, Option<Vec<Node>>);

/// What kyaml's visitor makes of a merging list's two sides; no second list means "the same node".
fn visit_list(dest: Option<Node>, source: Source) -> Result<Option<Sides>, Problem> {
    let ours = dest.filter(|node| !node.is_null());
    Ok(match (ours, source) {
        (None, Source::Node(theirs)) => Some((theirs, None)),
        (None, Source::Missing | Source::Same) => None,
        (Some(ours), Source::Missing) => Some((ours, Some(Vec::new()))),
        (Some(mut ours), Source::Same) => match list_directive(&mut ours)? {
            Directive::Delete => None,
            Directive::Merge | Directive::Replace => Some((ours, None)),
        },
        (Some(_), Source::Node(theirs)) if theirs.is_null() => None,
        (Some(ours), Source::Node(mut theirs)) => match list_directive(&mut theirs)? {
            Directive::Delete => None,
            Directive::Replace => Some((theirs, None)),
            Directive::Merge => match theirs {
                Node::Sequence(theirs) => Some((ours, Some(theirs))),
                Node::Scalar(_) | Node::Mapping(_) => Some((ours, Some(Vec::new()))),
            },
        },
    })
}

/// Reads and removes an item that is nothing but a `$patch` directive.
fn list_directive(list: &mut Node) -> Result<Directive, Problem> {
    let Node::Sequence(items) = list else { return Ok(Directive::Merge) };
    let Some(item) = items.iter().find(|item| item.get(DIRECTIVE).is_some()) else { return Ok(Directive::Merge) };
    if item.entries().is_some_and(|entries| entries.len() > 1) {
        return Ok(Directive::Merge);
    }
    let text = item.get(DIRECTIVE).and_then(Node::scalar).map(|scalar| scalar.text.clone()).unwrap_or_default();
    let directive = parse_directive(&text, item.line())?;
    set_element(items, None, &[DIRECTIVE.to_owned()], &[text])?;
    Ok(directive)
}

fn scalar_values(theirs: &[Node], ours: &[Node]) -> Vec<Values> {
    let mut values: Vec<Values> = Vec::new();
    for node in theirs.iter().chain(ours) {
        let value = vec![raw_text(node).to_owned()];
        if !values.contains(&value) {
            values.push(value);
        }
    }
    values
}

fn item_values(theirs: &[Node], ours: &[Node], keys: &[String]) -> Vec<Values> {
    let mut values: Vec<Values> = Vec::new();
    for node in theirs.iter().chain(ours) {
        let value: Values = keys
            .iter()
            .map(|key| node.get(key).filter(|field| !field.is_empty()).map_or("", raw_text).to_owned())
            .collect();
        if !value.is_empty() && !values.contains(&value) {
            values.push(value);
        }
    }
    values
}

/// Items that agree in one key, and differ only where one of them lacks a key, count as one.
fn unite(values: &mut [Values]) {
    for left in 0..values.len() {
        for right in 0..values.len() {
            let (Some(a), Some(b)) = (values.get(left), values.get(right)) else { continue };
            let Some(both) = united(a, b) else { continue };
            for place in [left, right] {
                if let Some(value) = values.get_mut(place) {
                    value.clone_from(&both);
                }
            }
        }
    }
}

fn united(left: &[String], right: &[String]) -> Option<Values> {
    if left.len() != right.len() {
        return None;
    }
    let mut common = false;
    let mut both = Vec::with_capacity(left.len());
    for (a, b) in left.iter().zip(right) {
        if a == b {
            common = true;
        } else if !a.is_empty() && !b.is_empty() {
            return None;
        }
        both.push(if a.is_empty() { b.clone() } else { a.clone() });
    }
    common.then_some(both)
}

/// Leaves out keys that no item of `all` has.
fn valid(all: &[Values], values: &[String], keys: &[String]) -> (Vec<String>, Values) {
    let used: Vec<bool> = (0..keys.len())
        .map(|index| all.iter().any(|values| values.get(index).is_some_and(|value| !value.is_empty())))
        .collect();
    if !used.contains(&true) {
        return (keys.to_vec(), values.to_vec());
    }
    let is_used = |index: usize| used.get(index).copied().unwrap_or(false);
    let keep_key = |(index, key): (usize, &String)| is_used(index).then(|| key.clone());
    let keep_value = |(index, value): (usize, &String)| (!value.is_empty() || is_used(index)).then(|| value.clone());
    (keys.iter().enumerate().filter_map(keep_key).collect(), values.iter().enumerate().filter_map(keep_value).collect())
}

/// The first item with these values.
fn find(items: &[Node], keys: &[String], values: &[String]) -> Option<usize> {
    if keys.first().is_none_or(String::is_empty) {
        let wanted = values.first().map_or("", String::as_str);
        return items.iter().position(|item| raw_text(item) == wanted);
    }
    if keys.len() != values.len() {
        return None;
    }
    let fits = |item: &Node| {
        keys.iter().zip(values).all(|(key, value)| item.get(key).is_some_and(|field| raw_text(field) == value))
    };
    items.iter().position(|item| matches!(item, Node::Mapping(_)) && fits(item))
}

/// Fills in key fields that an item lacks.
fn complete(item: &mut Node, keys: &[String], values: &[String]) -> Result<(), Problem> {
    for (key, value) in keys.iter().zip(values) {
        if value.is_empty() || item.get(key).is_some() {
            continue;
        }
        if key.is_empty() {
            set_scalar(item, Scalar::untyped(value.as_str()))?;
        } else {
            set_field(item, key, Node::Scalar(Scalar::untyped(value.as_str())))?;
        }
    }
    Ok(())
}

/// kyaml's `ElementSetter`: replaces every item with these values, removes them (`None`), or appends. Nulls and
/// empty maps are dropped on the way, and an empty value stands for any.
fn set_element(
    items: &mut Vec<Node>,
    element: Option<&Node>,
    keys: &[String],
    values: &[String],
) -> Result<(), Problem> {
    let by_field =
        keys.first().is_some_and(|key| !key.is_empty()) && values.first().is_some_and(|value| !value.is_empty());
    let mut found_any = false;
    let mut kept = Vec::with_capacity(items.len() + 1);
    for item in items.drain(..) {
        if item.is_null() || matches!(&item, Node::Mapping(entries) if entries.is_empty()) {
            continue;
        }
        if by_field && !matches!(item, Node::Mapping(_)) {
            kept.push(item);
            continue;
        }
        if !matches(&item, keys, values)? {
            if !values.is_empty() {
                kept.push(item);
            }
            continue;
        }
        found_any = true;
        kept.extend(element.cloned());
    }
    *items = kept;
    if let Some(element) = element.filter(|element| !found_any && !element.is_null()) {
        items.push(element.clone());
    }
    Ok(())
}

fn matches(item: &Node, keys: &[String], values: &[String]) -> Result<bool, Problem> {
    for (key, value) in keys.iter().zip(values) {
        let fits = if key.is_empty() {
            let Node::Scalar(scalar) = item else {
                return Err(Problem::patch("wrong node kind: expected ScalarNode").at_line(item.line()));
            };
            scalar.text == *value
        } else {
            let Node::Mapping(_) = item else {
                return Err(Problem::patch("wrong node kind: expected MappingNode").at_line(item.line()));
            };
            item.get(key).is_some_and(|field| value.is_empty() || raw_text(field) == value)
        };
        if !fits {
            return Ok(false);
        }
    }
    // Without values nothing is found, and the caller then keeps nothing.
    Ok(!keys.is_empty() && !values.is_empty())
}

/// Lays our items over the added ones: what both have keeps the added place.
fn append_all(added: &mut Vec<Node>, ours: &[Node], keys: &[String]) -> Result<(), Problem> {
    for item in ours {
        if keys.first().is_none_or(String::is_empty) {
            set_element(added, Some(item), &[String::new()], &[raw_text(item).to_owned()])?;
            continue;
        }
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            if !item.is_null() && !matches!(item, Node::Mapping(_)) {
                return Err(Problem::patch("wrong node kind: expected MappingNode").at_line(item.line()));
            }
            match item.get(key) {
                None => added.push(item.clone()),
                Some(field) => values.push(raw_text(field).to_owned()),
            }
        }
        if keys.len() > 1 {
            set_element(added, None, keys, &values)?;
        }
        set_element(added, Some(item), keys, &values)?;
    }
    Ok(())
}

/// A scalar's text, null included; empty for lists and maps.
fn raw_text(node: &Node) -> &str {
    node.scalar().map_or("", |scalar| scalar.text.as_str())
}
