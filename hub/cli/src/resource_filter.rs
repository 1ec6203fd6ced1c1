//! `--resource GROUP:KIND:NAME`: which resources of an Application a command is about.

use std::str::FromStr;

use serde_json::{Value, json};
use windlass_protocol::json;

/// One `--resource`: `*` matches anything in a place, a leading `!` excludes, the name may be `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResourceFilter {
    exclude: bool,
    group: String,
    kind: String,
    namespace: Option<String>,
    name: String,
}

impl FromStr for ResourceFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (exclude, rest) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let parts: Vec<&str> = rest.splitn(3, ':').collect();
        let [group, kind, name] = parts.as_slice() else {
            return Err(
                "write GROUP:KIND:NAME, such as apps:Deployment:web, or :Service:web for the core group".to_owned()
            );
        };
        if kind.is_empty() || name.is_empty() {
            return Err("kind and name must not be empty (`*` stands for any)".to_owned());
        }
        let (namespace, name) = match name.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, *name),
        };
        Ok(Self { exclude, group: (*group).to_owned(), kind: (*kind).to_owned(), namespace, name: name.to_owned() })
    }
}

/// The entries of an operation's `resources`, out of what the Application's status lists.
///
/// A filter that names one resource exactly is taken at its word also when the status does not list it: it may be new in
/// Git.
pub(crate) fn select(filters: &[ResourceFilter], resources: &[Value]) -> Vec<Value> {
    let mut chosen: Vec<Value> = resources.iter().filter(|resource| picks(filters, resource)).map(entry).collect();
    for filter in filters.iter().filter(|filter| filter.is_exact()) {
        let same = |chosen: &Value| {
            (json::text(chosen, &["group"]), json::text(chosen, &["kind"]), json::text(chosen, &["name"]))
                == (filter.group.as_str(), filter.kind.as_str(), filter.name.as_str())
        };
        if !chosen.iter().any(same) {
            chosen.push(filter.to_entry());
        }
    }
    chosen
}

/// Whether the filters include a resource: the exclusions never do; without an inclusion everything else does.
pub(crate) fn picks(filters: &[ResourceFilter], resource: &Value) -> bool {
    let (excluding, including): (Vec<_>, Vec<_>) = filters.iter().partition(|filter| filter.exclude);
    !excluding.iter().any(|filter| filter.matches(resource))
        && (including.is_empty() || including.iter().any(|filter| filter.matches(resource)))
}

impl ResourceFilter {
    fn matches(&self, resource: &Value) -> bool {
        let fits = |pattern: &str, field: &str| pattern == "*" || pattern == json::text(resource, &[field]);
        fits(&self.group, "group")
            && fits(&self.kind, "kind")
            && fits(&self.name, "name")
            && self.namespace.as_ref().is_none_or(|namespace| fits(namespace, "namespace"))
    }

    fn is_exact(&self) -> bool {
        let parts = [Some(&self.group), Some(&self.kind), Some(&self.name), self.namespace.as_ref()];
        !self.exclude && parts.into_iter().flatten().all(|part| part != "*")
    }

    fn to_entry(&self) -> Value {
        let mut entry = json!({"group": self.group, "kind": self.kind, "name": self.name});
        if let Some(namespace) = &self.namespace {
            json::set(&mut entry, &["namespace"], json!(namespace));
        }
        entry
    }
}

fn entry(resource: &Value) -> Value {
    let mut entry = json!({});
    for field in ["group", "kind", "namespace", "name"] {
        let text = json::text(resource, &[field]);
        if !text.is_empty() || field == "group" {
            json::set(&mut entry, &[field], json!(text));
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(filters: &[&str]) -> Vec<String> {
        let resources = [
            json!({"group": "apps", "kind": "Deployment", "namespace": "a", "name": "web"}),
            json!({"group": "apps", "kind": "Deployment", "namespace": "b", "name": "web"}),
            json!({"kind": "Service", "namespace": "a", "name": "web"}),
        ];
        let filters: Vec<ResourceFilter> = filters.iter().map(|text| text.parse().unwrap()).collect();
        let text = |entry: &Value| {
            ["group", "kind", "namespace", "name"].map(|field| json::text(entry, &[field]).to_owned()).join(":")
        };
        select(&filters, &resources).iter().map(text).collect()
    }

    #[test]
    fn filters_choose_as_in_argo_cd() {
        assert_eq!(chosen(&["apps:Deployment:web"]), ["apps:Deployment:a:web", "apps:Deployment:b:web"]);
        assert_eq!(chosen(&["apps:Deployment:b/web"]), ["apps:Deployment:b:web"]);
        assert_eq!(chosen(&["*:*:*"]).len(), 3);
        assert_eq!(chosen(&["!*:Service:*"]), ["apps:Deployment:a:web", "apps:Deployment:b:web"]);
        assert_eq!(chosen(&[":Service:web"]), [":Service:a:web"]);
        assert_eq!(chosen(&[":ConfigMap:new"]), [":ConfigMap::new"]);
        assert!(chosen(&[":ConfigMap:*"]).is_empty());
    }

    #[test]
    fn short_forms_are_refused() {
        for text in ["", "Deployment", "apps:Deployment", "apps::web", "apps:Deployment:"] {
            assert!(text.parse::<ResourceFilter>().is_err(), "{text:?}");
        }
    }
}
