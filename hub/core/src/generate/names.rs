//! Names as Kubernetes accepts them, and Argo CD's way to make one of any text.

/// Longest name of an object (RFC 1123 subdomain, as Kubernetes checks it).
const NAME_BYTES_MAX: usize = 253;

/// Argo CD's `normalize` (`utils.SanitizeName`): lower case, `-` for what no name may hold, at most 253 characters, and no `-` or
/// `.` at either end.
#[must_use]
pub fn normalize(text: &str) -> String {
    let replace = |c: char| if matches!(c, 'a'..='z' | '0'..='9' | '-' | '.') { c } else { '-' };
    // Every character is now one byte, so counting characters counts bytes.
    let name: String = text.to_lowercase().chars().map(replace).take(NAME_BYTES_MAX).collect();
    name.trim_matches(['-', '.']).to_owned()
}

/// What is wrong with a name, in Kubernetes' words.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("Required value: name is required".to_owned());
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("Invalid value: {name:?}: must be no more than {NAME_BYTES_MAX} characters"));
    }
    let is_alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        label.chars().all(|c| is_alphanumeric(c) || c == '-')
            && label.starts_with(is_alphanumeric)
            && label.ends_with(is_alphanumeric)
    };
    if name.split('.').all(is_label) {
        return Ok(());
    }
    let hint = if name.contains("{{") { " (a tag in it is no parameter of the generator)" } else { "" };
    Err(format!(
        "Invalid value: {name:?}: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
         and must start and end with an alphanumeric character{hint}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalized_as_argo_does() {
        assert_eq!(normalize("My_App/Name."), "my-app-name");
        assert_eq!(normalize("."), "");
        assert_eq!(normalize("Ünïq"), "n-q");
        assert_eq!(normalize(&"a".repeat(300)).len(), 253);
    }

    #[test]
    fn bad_names_say_why() {
        assert_eq!(check_name("a-1.b"), Ok(()));
        for bad in ["", "A", "a_b", "-a", "a.", "a..b", &"a".repeat(254)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_name("app-{{x}}").unwrap_err().ends_with("is no parameter of the generator)"));
    }
}
