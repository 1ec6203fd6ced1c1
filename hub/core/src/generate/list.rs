//! The list generator: fixed elements.
//!
//! `elements` must be texts (and a map `values` of texts), as in Argo CD; `elementsYaml` is flattened, so that its numbers can be
//! used as well (Argo CD leaves their tags unreplaced).

use serde_json::Value;
use windlass_protocol::{resource::ListGenerator, yaml};
use windlass_template::{Params, flatten};

use super::GenerateCause;

pub(super) fn params(generator: &ListGenerator) -> Result<Vec<Params>, GenerateCause> {
    let mut result = Vec::with_capacity(generator.elements.len());
    for (index, element) in generator.elements.iter().enumerate() {
        result.push(element_params(index, element)?);
    }
    if !generator.elements_yaml.is_empty() {
        yaml_params(&generator.elements_yaml, &mut result)?;
    }
    Ok(result)
}

fn element_params(index: usize, element: &Value) -> Result<Params, GenerateCause> {
    let error = |field: &str, message: &str| GenerateCause::Element {
        path: format!("elements[{index}]{field}"),
        message: message.to_owned(),
    };
    let Value::Object(map) = element else { return Err(error("", "must be a map")) };
    let mut params = Params::new();
    for (key, value) in map {
        match (key.as_str(), value) {
            ("values", Value::Object(values)) => {
                for (key, value) in values {
                    let Value::String(text) = value else {
                        return Err(error(
                            &format!(".values.{key}"),
                            "error parsing value as string: put it in quotes",
                        ));
                    };
                    params.insert(format!("values.{key}"), text.clone());
                }
            }
            ("values", _) => return Err(error(".values", "error parsing values map")),
            (_, Value::String(text)) => {
                params.insert(key.clone(), text.clone());
            }
            (_, _) => return Err(error(&format!(".{key}"), "error parsing value as string: put it in quotes")),
        }
    }
    Ok(params)
}

fn yaml_params(text: &str, result: &mut Vec<Params>) -> Result<(), GenerateCause> {
    let error = |path: String, message: String| GenerateCause::Element { path, message };
    let value = yaml::value(text).map_err(|wrong| error("elementsYaml".to_owned(), wrong.to_string()))?;
    let elements = match value {
        Value::Array(elements) => elements,
        Value::Null => return Ok(()),
        _ => return Err(error("elementsYaml".to_owned(), "must be a list of maps".to_owned())),
    };
    for (index, element) in elements.iter().enumerate() {
        if !element.is_object() {
            return Err(error(format!("elementsYaml[{index}]"), "must be a map".to_owned()));
        }
        let mut params = Params::new();
        flatten("", element, &mut params);
        result.push(params);
    }
    Ok(())
}
