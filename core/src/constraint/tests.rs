use serde_json::{Value, json};

use super::{Constraint, ConstraintCompiler, ConstraintError, ConstraintSpec};
use crate::testing::ByteTokenizer;
use crate::text::Tokenizer;
use crate::text::testing::PieceTokenizer;

pub(super) fn compiler() -> ConstraintCompiler {
    ConstraintCompiler::new(&ByteTokenizer::default()).expect("it has end-of-generation tokens")
}

/// Whether the whole of `text`, and nothing more or less, keeps to the constraint.
pub(super) fn accepts(constraint: &Constraint, text: &str) -> bool {
    let mut matcher = constraint.matcher.deep_clone();
    text.bytes().all(|byte| matcher.consume_token(u32::from(byte)).is_ok())
        && (matcher.is_stopped() || matcher.is_accepting().unwrap_or(false))
}

#[track_caller]
fn check(spec: ConstraintSpec, good: &[&str], bad: &[&str]) {
    let constraint = compiler().compile(spec).unwrap_or_else(|error| panic!("{error}"));
    good.iter().for_each(|text| assert!(accepts(&constraint, text), "{text:?} should be accepted"));
    bad.iter().for_each(|text| assert!(!accepts(&constraint, text), "{text:?} should be refused"));
}

#[test]
fn any_object() {
    check(
        ConstraintSpec::JsonObject,
        &["{}", "{\"a\": [1, {\"b\": null}]}", "{\n  \"a\":\"é\\n\"\n}"],
        &["", "[]", "1", "{", "{\"a\"}", "{}{}", "{\n\n\n}"],
    );
}

#[test]
fn regular_expressions_match_the_whole_text() {
    for pattern in ["[ab]+c", "^[ab]+c$", "^[ab]+c", "[ab]+c$"] {
        check(ConstraintSpec::Regex(pattern.into()), &["ac", "babc"], &["", "c", "acc", "xac"]);
    }
    check(ConstraintSpec::Regex(r"a\$".into()), &["a$"], &["a"]);
    check(ConstraintSpec::Regex(r"[/]+\.[0-9]{2}".into()), &["//.12"], &["/x12"]);
}

#[test]
fn choices() {
    let texts = ["yes", "\"no\"", "no\nline", "größe", "ye"].map(str::to_owned).to_vec();
    check(
        ConstraintSpec::Choice(texts.clone()),
        &["yes", "\"no\"", "no\nline", "größe", "ye"],
        &["", "y", "no", "yesye"],
    );
    let awkward = ["\u{7f}\u{1}", "\\d", "a|b", "/"].map(str::to_owned).to_vec();
    check(ConstraintSpec::Choice(awkward), &["\u{7f}\u{1}", "\\d", "a|b", "/"], &["a", "1"]);
}

#[test]
fn grammars_by_their_look() {
    let lark = ConstraintSpec::grammar("start: \"a\"+".into());
    assert!(matches!(lark, ConstraintSpec::Lark(_)));
    check(lark, &["a", "aa"], &["", "b"]);
    let gbnf = ConstraintSpec::grammar("root ::= \"a\"+".into());
    assert!(matches!(gbnf, ConstraintSpec::Gbnf(_)));
    let marked = ConstraintSpec::grammar("%llguidance {}\nstart: \"::=\"".into());
    assert!(matches!(marked, ConstraintSpec::Lark(_)));
    check(marked, &["::="], &["a"]);
}

#[test]
fn text_never_asks_for_control_tokens() {
    let tokenizer = PieceTokenizer {
        n_control: 2,
        ..PieceTokenizer::new(&[b"a".as_slice(), b"\xff", b"<|end|>", b"<|other|>"])
    };
    // It has no end-of-generation token: nothing could end a text.
    let error = ConstraintCompiler::new(&tokenizer).expect_err("no end");
    assert!(matches!(error, ConstraintError::Unavailable { .. }), "{error}");
    let constraint = compiler().compile(ConstraintSpec::Regex("<.{1,20}>".into())).expect("good");
    let mut matcher = constraint.matcher.deep_clone();
    for id in [ByteTokenizer::BOS, ByteTokenizer::EOS, ByteTokenizer::IM_END, 255] {
        assert!(!matcher.compute_mask().expect("a mask").is_allowed(id), "{id}");
    }
    assert!(ByteTokenizer::default().vocab_size() > 255);
}

fn refused(spec: ConstraintSpec) -> ConstraintError {
    compiler().compile(spec.clone()).map(|_| ()).expect_err(&format!("{spec:?} is no good"))
}

#[track_caller]
fn check_schema(schema: Value, path: &str, words: &str) {
    let error = refused(ConstraintSpec::JsonSchema(schema.clone()));
    assert_eq!(error.path(), path, "{error:?} of {schema}");
    assert!(error.to_string().contains(words), "{error:?} of {schema}");
}

#[test]
fn schema_errors_have_a_path() {
    check_schema(json!(1), "", "object or a boolean");
    check_schema(json!("x"), "", "object or a boolean");
    check_schema(json!(null), "", "object or a boolean");
    check_schema(json!([]), "", "object or a boolean");
    check_schema(json!({"if": {}, "then": {}}), ".if", "if");
    check_schema(json!({"not": {}}), ".not", "not");
    check_schema(
        json!({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"not": {}}}}}}),
        ".properties.a.properties.b.not",
        "not",
    );
    check_schema(
        json!({"type": "array", "items": {"uniqueItems": true}}),
        ".items.uniqueItems",
        "uniqueItems",
    );
    check_schema(
        json!({"anyOf": [{"type": "null"}, {"dependentRequired": {}}]}),
        ".anyOf[1].dependentRequired",
        "dep",
    );
    check_schema(
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"propertyNames": {}}}}),
        ".$defs.a.propertyNames",
        "propertyNames",
    );
    check_schema(json!({"type": "string", "pattern": "(?=a)b"}), "", "");
    check_schema(json!({"properties": {"x": {"type": "string", "pattern": "("}}}), ".properties.x", "");
    check_schema(json!({"properties": {"x": {"type": "strin"}}}), ".properties.x", "nvalid type");
    check_schema(json!({"type": 5}), "", "type must be");
    check_schema(json!({"$ref": "#/$defs/missing"}), "", "");
    check_schema(json!({"$ref": "https://example.com/schema.json"}), "", "");
    check_schema(json!({"type": "integer", "minimum": 5, "maximum": 3}), "", "");
    check_schema(
        json!({"properties": {"x": {"oneOf": [{"minimum": 1}, {"maximum": 5}]}}, "required": ["x"]}),
        ".properties.x",
        "oneOf",
    );
    check_schema(json!(false), "", "");
    check_schema(json!({"type": "string", "format": "no-such-format"}), "", "format");
}

#[test]
fn grammars_that_are_none() {
    for lark in [
        "",
        "start",
        "start: UNKNOWN",
        "start: /(/",
        "other: \"a\"",
        "start: \"a",
        "%%%",
        "start: a\na: \"x\" ~",
    ] {
        let error = refused(ConstraintSpec::Lark(lark.into()));
        assert!(matches!(error, ConstraintError::Invalid { .. }), "{lark:?}: {error:?}");
    }
    for regex in ["(", "[", "a{2,1}", "(?=a)", "\\", "*", "a**b(", "(?<n>", "\\p{Nope}"] {
        let error = refused(ConstraintSpec::Regex(regex.into()));
        assert!(matches!(error, ConstraintError::Invalid { .. }), "{regex:?}: {error:?}");
    }
    assert!(matches!(refused(ConstraintSpec::Choice(Vec::new())), ConstraintError::Invalid { .. }));
}

/// What costs a lot is refused, or its masks are; nothing hangs, overflows a stack or takes the process down.
#[test]
fn hostile_grammars_come_to_an_end() {
    let deep = |open: &str, close: &str, n: usize| format!("{}a{}", open.repeat(n), close.repeat(n));
    let nested_schema = (0..120).fold(json!({}), |inner, _| json!({"properties": {"a": inner}}));
    let wide: Vec<Value> = (0..3000).map(|n| json!({"const": format!("{n:x}{n}")})).collect();
    let many: serde_json::Map<String, Value> =
        (0..300).map(|n| (format!("p{n}"), json!({"type": "string"}))).collect();
    let specs = [
        ConstraintSpec::Regex("(a|b)*a(a|b){5000}".into()),
        ConstraintSpec::Regex("((a{1,100}){1,100}){1,100}".into()),
        ConstraintSpec::Regex(deep("(", ")", 250)),
        ConstraintSpec::Regex(deep("(", ")", 100_000)),
        ConstraintSpec::Regex("a".repeat(600_000)),
        ConstraintSpec::Lark(format!("start: {}", deep("(", ")", 250))),
        ConstraintSpec::Lark(format!("start: {}", deep("[", "]", 100_000))),
        ConstraintSpec::Lark("start: start start | \"a\" | \"\"".into()),
        ConstraintSpec::Lark(
            "start: a a a a a a a a\na: b b b b b b b b\nb: c c c c c c c c\nc: d d d d d d\nd: /a?/".into(),
        ),
        ConstraintSpec::Lark(format!("start: /{}/ \"x\"", "(a?){50}".repeat(50))),
        ConstraintSpec::Gbnf(format!("root ::= {}", deep("(", ")", 255).replace('a', "\"a\""))),
        ConstraintSpec::Gbnf("root ::= root root | \"a\" | \"\"".into()),
        ConstraintSpec::Gbnf("root ::= ((((\"a\"{0,2000}){0,2000}){0,2000}){0,2000})".into()),
        ConstraintSpec::JsonSchema(nested_schema),
        ConstraintSpec::JsonSchema(json!({"anyOf": wide})),
        ConstraintSpec::JsonSchema(json!({"type": "object", "properties": many})),
        ConstraintSpec::JsonSchema(json!({"type": "string", "minLength": 1_000_000, "maxLength": 2_000_000})),
        ConstraintSpec::JsonSchema(json!({"type": "array", "minItems": 1_000_000, "items": {}})),
        ConstraintSpec::JsonSchema(json!({"$ref": "#"})),
        ConstraintSpec::JsonSchema(
            json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}),
        ),
        ConstraintSpec::JsonSchema(json!({"type": "string", "pattern": "^(a+)+$", "maxLength": 50_000})),
        ConstraintSpec::Choice((0..4000).map(|n| format!("{n}").repeat(20)).collect()),
        ConstraintSpec::Choice(vec![String::new(); 5000]),
    ];
    for spec in specs {
        let name: String = format!("{spec:?}").chars().take(60).collect();
        let outcome = match compiler().compile(spec) {
            Err(error) => error.to_string(),
            Ok(constraint) => walk(&constraint),
        };
        assert!(!outcome.is_empty(), "{name}");
    }
}

/// Follows a constraint for some tokens, always with the first that is allowed.
fn walk(constraint: &Constraint) -> String {
    let mut matcher = constraint.matcher.deep_clone();
    for n in 0..40 {
        if matcher.is_stopped() {
            return format!("whole after {n} tokens");
        }
        match matcher.compute_mask() {
            Err(error) => return format!("a mask failed: {error}"),
            Ok(mask) => match mask.first_bit_set() {
                Some(id) => drop(matcher.consume_token(id as u32)),
                None => return "nothing is allowed".to_owned(),
            },
        }
    }
    "followed".to_owned()
}
