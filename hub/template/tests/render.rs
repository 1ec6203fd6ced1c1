//! Templates as people write them, and the promise that no text makes the renderer panic.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use serde_json::{Value, json};
use windlass_template::{Limits, Params, TemplateErrorKind, flatten, render_str, render_value, render_value_within};

fn params(pairs: &[(&str, &str)]) -> Params {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[track_caller]
fn check(text: &str, pairs: &[(&str, &str)], expect: &str) {
    assert_eq!(render_str(text, &params(pairs)).unwrap(), expect, "{text:?}");
}

#[test]
fn tags_are_replaced_trimmed_or_left() {
    check("a-{{ x }}-{{x}}-{{\tx\n}}", &[("x", "1")], "a-1-1-1");
    check("{{y}} {{ .Values.y }} {{}} {{ }}", &[("x", "1")], "{{y}} {{ .Values.y }} {{}} {{ }}");
    check("{{path[0]}}/{{metadata.labels.a/b}}", &[("path[0]", "p"), ("metadata.labels.a/b", "v")], "p/v");
    check("{{{x}}}", &[("x", "1")], "{{{x}}}");
    check("{{x}}", &[("x", "{{x}}")], "{{x}}");
    check("{{ lone", &[("x", "1")], "{{ lone");
    let error = render_str("{{x}} {{ lone", &params(&[("x", "1")])).unwrap_err();
    assert!(matches!(error.kind, TemplateErrorKind::Unclosed { .. }), "{error}");
}

#[test]
fn keys_are_rendered_and_texts_cannot_break_out() {
    let template = json!({"{{k}}": ["{{v}}", 1, null, true], "n": {"a": "{{v}}"}});
    let rendered = render_value(&template, &params(&[("k", "key"), ("v", "\"}, \"x\": {")])).unwrap();
    assert_eq!(rendered, json!({"key": ["\"}, \"x\": {", 1, null, true], "n": {"a": "\"}, \"x\": {"}}));
    let error = render_value(&json!({"a": {"{{k}}": 1, "x": 2}}), &params(&[("k", "x")])).unwrap_err();
    assert_eq!(error.to_string(), "a.{{k}}: the keys of a map are no longer distinct: \"x\" appears twice");
}

const PROFILE: &str = "resources:\n  {{#if (eq size \"high\")}}\n  cpu: 4\n  {{else if (eq size 'medium')}}\n  cpu: 2\n  \
                       {{else}}\n  cpu: 1\n  {{/if}}\nname: {{name}}";

#[test]
fn a_block_chooses_one_branch_and_its_lines_vanish() {
    check(PROFILE, &[("size", "high"), ("name", "a")], "resources:\n  cpu: 4\nname: a");
    check(PROFILE, &[("size", "medium"), ("name", "a")], "resources:\n  cpu: 2\nname: a");
    check(PROFILE, &[("size", "low"), ("name", "a")], "resources:\n  cpu: 1\nname: a");
    check("x: {{#if a}}1{{else}}2{{/if}};", &[("a", "yes")], "x: 1;");
    check("x: {{#if a}}1{{else}}2{{/if}};", &[("a", "false")], "x: 2;");
    check("{{#if a}}\r\nx\r\n{{/if}}\r\n", &[("a", "y")], "x\r\n");
    check("{{#if a}}\nx\n{{/if}}", &[("a", "")], "");
}

#[test]
fn conditions_combine_and_blocks_nest() {
    let pairs = &[("a", "1"), ("b", "2"), ("e", "")];
    check("{{#if (and (eq a \"1\") (not (eq b \"3\")))}}y{{/if}}", pairs, "y");
    check("{{#if (or e (ne a b))}}y{{else}}n{{/if}}", pairs, "y");
    check("{{#if (eq a 1)}}{{#if e}}in{{else}}out{{/if}}-{{b}}{{/if}}", pairs, "out-2");
    check("{{#if (eq a \"q\\\"\")}}y{{else}}n{{/if}}", &[("a", "q\"")], "y");
}

#[test]
fn other_tools_blocks_stay() {
    for text in [
        "{{#if .Values.x}}\n{{x}}\n{{/if}}",
        "{{#each items}}{{this}}{{else}}none{{/each}}",
        "{{#if unknown}}a{{/if}}",
        "{{#if (gt a 1)}}a{{/if}}",
        "{{#if (eq a \"1\") b}}a{{/if}}",
        "{{#if a}}x{{else unless b}}y{{/if}}",
        "{{#if a}}x{{else if unknown}}y{{/if}}",
        "{{#unless a}}x{{#if a}}z{{/if}}{{/unless}}",
        "{{#open}} {{/shut}} {{else}} {{/if}}",
        "{{#if \"text\"}}x{{/if}}",
    ] {
        check(text, &[("a", "1"), ("b", "2")], text);
    }
    check("{{#each x}}{{a}}{{/each}} {{#if a}}y{{/if}}", &[("a", "1")], "{{#each x}}1{{/each}} y");
    check("{{#open}} {{#if a}}y{{/if}}", &[("a", "1")], "{{#open}} {{#if a}}y{{/if}}");
}

#[test]
fn broken_blocks_are_errors_that_name_the_tag() {
    let error = |text: &str| render_str(text, &params(&[("a", "1")])).unwrap_err().to_string();
    assert_eq!(error("x {{#if (eq a \"1\")}} y"), "the block {{#if (eq a \"1\")}} is never closed");
    assert_eq!(error("{{#if a}}{{else}}{{else}}{{/if}}"), "the block {{#if a}} has a branch after {{else}}");
    let deep = "{{#if a}}".repeat(40) + &"{{/if}}".repeat(40);
    assert!(error(&deep).contains("nested blocks"), "{deep}");
}

#[test]
fn numbers_print_as_go_prints_them_except_whole_ones() {
    let mut flat = Params::new();
    let value = json!({"a": {"i": 1_000_000, "f": 1e6, "g": 0.00001, "h": 1234567.5, "k": 2.5, "z": 1e30, "b": true, "n": null},
                       "l": ["x", {"y": -3}], "empty": {}, "none": []});
    flatten("", &value, &mut flat);
    let expect = [
        ("a.b", "true"),
        ("a.f", "1000000"),
        ("a.g", "1e-05"),
        ("a.h", "1.2345675e+06"),
        ("a.i", "1000000"),
        ("a.k", "2.5"),
        ("a.n", "<nil>"),
        ("a.z", "1e+30"),
        ("l.0", "x"),
        ("l.1.y", "-3"),
    ];
    assert_eq!(flat, params(&expect));
}

#[test]
fn limits_end_a_hostile_template() {
    let pairs = params(&[("x", &"y".repeat(1000))]);
    let limits = Limits { output_bytes: 5_000, depth: 10, steps: 50 };
    let kind = |template: &Value| render_value_within(template, &pairs, &limits).unwrap_err().kind;
    assert_eq!(kind(&json!(["{{x}}".repeat(6)])), TemplateErrorKind::Limit { name: "bytes", limit: 5_000 });
    assert_eq!(kind(&json!(vec![0; 60])), TemplateErrorKind::Limit { name: "steps", limit: 50 });
    let deep = (0..20).fold(json!("x"), |inner, _| json!([inner]));
    assert_eq!(kind(&deep), TemplateErrorKind::Limit { name: "levels", limit: 10 });
}

/// Texts that are mostly made of what templates are made of.
fn template_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("{{#if (eq a \"b\")}}"),
        Just("{{#if a}}"),
        Just("{{else if a}}"),
        Just("{{else}}"),
        Just("{{/if}}"),
        Just("{{#each q}}"),
        Just("{{/each}}"),
        Just("{{ a }}"),
        Just("{{ unknown }}"),
        Just("{{"),
        Just("}}"),
        Just("\n"),
        Just("  "),
        Just("(\"'é"),
    ];
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in prop_oneof![template_text(), ".{0,60}"], a in ".{0,8}") {
        let _ = render_str(&text, &params(&[("a", &a)]));
        let _ = render_value(&json!({ text.clone(): [text] }), &params(&[("a", &a)]));
    }

    #[test]
    fn what_is_no_parameter_stays_verbatim(text in prop_oneof![template_text(), ".{0,60}"]) {
        if let Ok(rendered) = render_str(&text, &params(&[("absent", "x")])) {
            prop_assert_eq!(rendered, text);
        }
    }
}
