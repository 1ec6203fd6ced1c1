//! The form in which objects, lists and events are sent: whole, as metadata only, or as a `meta.k8s.io/v1` Table.

use serde_json::{Value, json};
use windlass_hub_core::{ObjectKey, ObjectRecord};
use windlass_protocol::{ids::StateRevision, resource::Kind, time::Millis};

use super::{
    columns::{cells, columns},
    error::ApiError,
    media::Form,
    object::{View, partial},
    query::Query,
};

/// How to write objects of one kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Presentation {
    pub(super) kind: Kind,
    pub(super) form: Form,
    included: Included,
    /// For ages.
    now: Millis,
}

/// What a row of a table carries besides its cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Included {
    Nothing,
    Metadata,
    Object,
}

/// Whether a table says what its columns are; watches say it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    Present,
    Absent,
}

impl Presentation {
    pub(super) fn new(kind: Kind, form: Form, query: &Query, now: Millis) -> Result<Self, ApiError> {
        let included = match query.get("includeObject") {
            None | Some("Metadata") => Included::Metadata,
            Some("None") => Included::Nothing,
            Some("Object") => Included::Object,
            Some(other) => return Err(ApiError::bad_request(format!("unrecognized includeObject value: {other:?}"))),
        };
        Ok(Self { kind, form, included, now })
    }

    /// The same at another time.
    pub(super) const fn at(self, now: Millis) -> Self {
        Self { now, ..self }
    }

    /// One object.
    pub(super) fn object(
        &self,
        view: &View,
        key: &ObjectKey,
        record: &ObjectRecord,
        header: Header,
    ) -> Result<String, ApiError> {
        match self.form {
            Form::Full => view.text(key, record).map(std::borrow::Cow::into_owned),
            Form::Partial => Ok(partial(&mut record.value()).to_string()),
            Form::Table => {
                let row = self.row(view, key, record)?;
                Ok(self.table(vec![row], record.revision, header).to_string())
            }
        }
    }

    /// A list as of a revision.
    pub(super) fn list<'a>(
        &self,
        view: &View,
        objects: impl Iterator<Item = (&'a ObjectKey, &'a ObjectRecord)>,
        revision: StateRevision,
    ) -> Result<String, ApiError> {
        let info = self.kind.info();
        let (kind, version) = match self.form {
            Form::Table => {
                let rows: Result<Vec<Value>, ApiError> =
                    objects.map(|(key, record)| self.row(view, key, record)).collect();
                return Ok(self.table(rows?, revision, Header::Present).to_string());
            }
            Form::Full => (format!("{}List", info.name), info.api_version()),
            Form::Partial => ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned()),
        };
        // Stored texts are copied as they are: a list of many objects costs no parsing.
        let mut text = format!(
            "{{\"apiVersion\":\"{version}\",\"kind\":\"{kind}\",\"metadata\":{{\"resourceVersion\":\"{revision}\"}},\"items\":["
        );
        for (index, (key, record)) in objects.enumerate() {
            if index > 0 {
                text.push(',');
            }
            match self.form {
                Form::Partial => text.push_str(&partial(&mut record.value()).to_string()),
                Form::Full | Form::Table => text.push_str(&view.text(key, record)?),
            }
        }
        text.push_str("]}");
        Ok(text)
    }

    /// The object of a bookmark.
    pub(super) fn bookmark(&self, revision: StateRevision, annotations: &Value, header: Header) -> Value {
        let info = self.kind.info();
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if annotations.is_object() {
            super::answer::put(&mut metadata, "annotations", annotations.clone());
        }
        let partial = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
        match self.form {
            Form::Full => json!({"kind": info.name, "apiVersion": info.api_version(), "metadata": metadata}),
            Form::Partial => partial,
            Form::Table => {
                let cells: Vec<Value> = columns(self.kind).iter().map(|_| json!("")).collect();
                self.table(vec![json!({"cells": cells, "object": partial})], revision, header)
            }
        }
    }

    fn table(&self, rows: Vec<Value>, revision: StateRevision, header: Header) -> Value {
        let definitions: Vec<Value> = match header {
            Header::Absent => Vec::new(),
            Header::Present => columns(self.kind)
                .iter()
                .map(|column| {
                    let format = if column.name == "Name" { "name" } else { "" };
                    json!({
                        "name": column.name, "type": column.kind, "format": format,
                        "description": column.description, "priority": column.priority,
                    })
                })
                .collect(),
        };
        json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {"resourceVersion": revision.to_string()},
            "columnDefinitions": definitions, "rows": rows,
        })
    }

    fn row(&self, view: &View, key: &ObjectKey, record: &ObjectRecord) -> Result<Value, ApiError> {
        // Only a Secret's cells and whole objects need more than the stored text.
        let mut value = match (self.included, key.kind) {
            (Included::Object, _) | (_, Kind::Secret | Kind::Namespace) => view.value(key, record)?,
            _ => record.value(),
        };
        let cells = cells(self.kind, &value, self.now);
        Ok(match self.included {
            Included::Nothing => json!({"cells": cells}),
            Included::Object => json!({"cells": cells, "object": value}),
            Included::Metadata => json!({"cells": cells, "object": partial(&mut value)}),
        })
    }
}
