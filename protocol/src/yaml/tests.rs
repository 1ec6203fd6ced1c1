//! Reading and printing, case by case; expectations were made with go-yaml.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn check_value(text: &str, expect: &Value) {
    assert_eq!(value(text).as_ref(), Ok(expect), "{text}");
}

fn check_print(input: &Value, expect: &str) {
    assert_eq!(to_yaml(input), expect);
}

#[test]
fn yaml_1_1_words_are_typed_as_go_types_them() {
    check_value(
        "a: yes\nb: 'yes'\nc: 0755\nd: 1_000\ne: 0o17\nf: .5\ng: 1e3\nh: 2024-01-02\ni: ~\nj: 0x1F\nk: 08\nl: n\n",
        &json!({"a": true, "b": "yes", "c": 493, "d": 1000, "e": 15, "f": 0.5, "g": 1000, "h": "2024-01-02",
            "i": null, "j": 31, "k": 8, "l": false}),
    );
}

#[test]
fn kyaml_knows_fewer_words_and_more_times() {
    let options = Options { dialect: Dialect::Kyaml, ..Options::default() };
    let all = values(b"a: yes\nb: 2024-1-2\nc: on\nd: 2001-12-14t21:59:43.10-05:00\n", &options);
    assert_eq!(
        all.map(|all| all.into_iter().map(|one| one.value).collect::<Vec<_>>()),
        Ok(vec![json!({"a": "yes", "b": "2024-01-02T00:00:00Z", "c": "on", "d": "2001-12-14T21:59:43.1-05:00"})])
    );
}

#[test]
fn anchors_and_merge_keys_are_expanded() {
    check_value(
        "base: &b {x: 1, z: 2}\nuse:\n  <<: *b\n  z: 3\nlist: [*b, *b]\n",
        &json!({"base": {"x": 1, "z": 2}, "use": {"x": 1, "z": 3}, "list": [{"x": 1, "z": 2}, {"x": 1, "z": 2}]}),
    );
}

#[test]
fn a_duplicate_key_is_an_error_with_both_lines() {
    let error = value("a: 1\nb: 2\na: 3\n").expect_err("a duplicate");
    assert_eq!(error.to_string(), "line 3, column 1: mapping key \"a\" already defined at line 1");
}

#[test]
fn duplicate_keys_of_argo_objects_are_merged_with_a_warning() {
    let options = Options { duplicates: DuplicateKeys::MergeInArgo, ..Options::default() };
    let text = "apiVersion: argoproj.io/v1alpha1\nspec:\n  opts: [a, b]\n  keep: 1\nspec:\n  opts: [b, c]\n";
    let all = values(text.as_bytes(), &options).expect("merged");
    let first = all.first().expect("one document");
    assert_eq!(
        first.value,
        json!({"apiVersion": "argoproj.io/v1alpha1", "spec": {"opts": ["a", "b", "c"], "keep": 1}})
    );
    assert_eq!(first.warnings.iter().map(|warning| warning.line).collect::<Vec<_>>(), [5]);
    assert!(values(text.replace("argoproj.io/v1alpha1", "v1").as_bytes(), &options).is_err());
}

#[test]
fn documents_are_split_and_empty_ones_skipped() {
    let all = values(b"---\n# nothing\n---\na: 1\n---\n\nb: 2\n...\n", &Options::default()).expect("valid");
    let lines: Vec<_> = all.iter().map(|document| (document.line, document.value.clone())).collect();
    assert_eq!(lines, [(4, json!({"a": 1})), (7, json!({"b": 2}))]);
}

#[test]
fn limits_are_named() {
    let deep = "[".repeat(200) + &"]".repeat(200);
    assert!(value(&deep).expect_err("too deep").to_string().contains("`depth` of 128"));
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let before = format!("*a{}", level - 1);
        bomb.push_str(&format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(", ")));
    }
    assert!(value(&bomb).expect_err("a bomb").to_string().contains("`nodes`"));
    assert!(value("a: &a [*a]").is_err());
}

#[test]
fn strings_that_look_like_something_else_are_quoted() {
    check_print(
        &json!({"a": "yes", "b": "1", "c": "", "d": "null", "e": "1:30", "f": "a: b", "g": "# x", "h": " x",
            "i": "2024-01-02", "j": "it's", "k": "x: 'y'", "l": "tab\there", "m": "0755", "n": "<<", "o": "-", "p": "1e3"}),
        "a: \"yes\"\nb: \"1\"\nc: \"\"\nd: \"null\"\ne: \"1:30\"\nf: 'a: b'\ng: '# x'\nh: ' x'\n\
         i: \"2024-01-02\"\nj: it's\nk: 'x: ''y'''\nl: \"tab\\there\"\nm: \"0755\"\n\"n\": <<\no: '-'\np: \"1e3\"\n"
            .replace("\"n\": <<", "\"n\": \"<<\"")
            .as_str(),
    );
}

#[test]
fn block_scalars_keep_their_line_ends() {
    check_print(
        &json!({"clip": "a\nb\n", "keep": "a\n\n", "strip": "a\nb", "lead": "\nx\n", "trail": "a \nb"}),
        "clip: |\n  a\n  b\nkeep: |+\n  a\n\nlead: |2\n\n  x\nstrip: |-\n  a\n  b\ntrail: \"a \\nb\"\n",
    );
}

#[test]
fn long_lines_break_at_a_blank_after_column_80() {
    let text = "word ".repeat(30);
    check_print(
        &json!({"k": text.trim_end()}),
        &format!("k: {}\n  {}\n", "word ".repeat(16).trim_end(), "word ".repeat(14).trim_end()),
    );
}

#[test]
fn collections_and_numbers() {
    check_print(
        &json!({"l": [1, [2, 3], {"a": 1, "b": []}], "m": {}, "f": 1.5, "g": 1e21, "h": 1_234_567.5, "n": null, "t": true}),
        "f: 1.5\ng: 1e+21\nh: 1.2345675e+06\nl:\n- 1\n- - 2\n  - 3\n- a: 1\n  b: []\nm: {}\n\"n\": null\nt: true\n",
    );
}

#[test]
fn keys_are_in_natural_order() {
    check_print(
        &json!({"a10": 1, "a2": 2, "B": 3, "a": 4, "_": 5, "1": 6}),
        "_: 5\n\"1\": 6\nB: 3\na: 4\na2: 2\na10: 1\n",
    );
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _ = values(text.as_bytes(), &Options::default());
    }

    #[test]
    fn no_structure_makes_the_parser_panic(text in "[-:?&*!|>{}\\[\\],#'\"%@ \n\tab1<]{0,120}") {
        let kyaml = Options { dialect: Dialect::Kyaml, duplicates: DuplicateKeys::Merge, ..Options::default() };
        let _ = values(text.as_bytes(), &kyaml);
        let _ = values(text.as_bytes(), &Options::default());
    }

    #[test]
    fn what_is_printed_is_read_back(text in "(\\PC|[\n\t :#'\"-]){0,60}", key in "\\PC{0,12}") {
        let input = json!({key: [text.clone(), {"k": text}]});
        let printed = to_yaml(&input);
        prop_assert_eq!(value(&printed), Ok(input), "{}", printed);
    }
}
