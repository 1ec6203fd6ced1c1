//! `status.conditions` of an ApplicationSet, with Argo CD's types, reasons and sentences.

use serde::{Deserialize, Serialize};

use super::{GenerateError, Generated};

/// A condition of an ApplicationSet: unlike those of an Application it says True or False.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationSetCondition {
    /// `ErrorOccurred`, `ParametersGenerated`, `ResourcesUpToDate` or `RolloutProgressing`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word, for machines.
    pub reason: String,
    /// For people.
    pub message: String,
    /// RFC 3339; set when the condition enters the state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
}

impl ApplicationSetCondition {
    /// A condition whose time is set when it enters the state.
    #[must_use]
    pub fn new(kind: &str, status: bool, reason: &str, message: impl Into<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            status: if status { "True" } else { "False" }.to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
            last_transition_time: None,
        }
    }
}

/// The three conditions that every generation leaves, in Argo CD's order.
#[must_use]
pub fn conditions(result: &Result<Vec<Generated>, GenerateError>) -> Vec<ApplicationSetCondition> {
    const ERROR: &str = "ErrorOccurred";
    const PARAMETERS: &str = "ParametersGenerated";
    const RESOURCES: &str = "ResourcesUpToDate";
    const UP_TO_DATE: &str = "ApplicationSetUpToDate";
    const DONE: &str = "All applications have been generated successfully";
    const PARAMETERS_DONE: &str = "Successfully generated parameters for all Applications";

    let condition = |kind, status, reason, message: &str| ApplicationSetCondition::new(kind, status, reason, message);
    match result {
        Ok(_) => vec![
            condition(ERROR, false, UP_TO_DATE, DONE),
            condition(PARAMETERS, true, PARAMETERS, PARAMETERS_DONE),
            condition(RESOURCES, true, UP_TO_DATE, DONE),
        ],
        Err(error) => {
            let message = error.to_string();
            let parameters = if error.has_parameters() {
                condition(PARAMETERS, true, PARAMETERS, PARAMETERS_DONE)
            } else {
                condition(PARAMETERS, false, ERROR, &message)
            };
            vec![
                condition(ERROR, true, error.reason(), &message),
                parameters,
                condition(RESOURCES, false, ERROR, &message),
            ]
        }
    }
}
