//! Rows about what the answer has to look like.

use super::table::{BOTH, row};
use super::{Group, Kind, Parameter};

const RESPONSE_FORMAT: Kind = Kind::Other {
    schema: r#"{"type":"object","required":["type"],"properties":{"type":{"enum":["text","json_object","json_schema","grammar"]},"json_schema":{"type":"object"}}}"#,
    words: "an object with `type`: \"text\", \"json_object\", \"json_schema\" or \"grammar\"",
};
const SCHEMA: Kind = Kind::Other {
    schema: r#"{"type":["object","boolean","string"]}"#,
    words: "a JSON schema, or the text of one",
};
const CHOICES: Kind = Kind::Other {
    schema: r#"{"type":"array","minItems":1,"maxItems":4096,"items":{"type":"string"}}"#,
    words: "a list of texts",
};
const OPTIONS: Kind = Kind::Other {
    schema: r#"{"type":"object","properties":{"json":{},"regex":{"type":"string"},"choice":{"type":"array"},"grammar":{"type":"string"},"json_object":{"type":"boolean"}}}"#,
    words: "an object with one of `json`, `regex`, `choice`, `grammar`, `json_object`",
};
const NONE: &str = "none";

pub(super) const ROWS: &[Parameter] = &[
    row(
        "response_format",
        BOTH,
        Group::Structure,
        RESPONSE_FORMAT,
        r#"{"type":"text"}"#,
        "what the answer has to look like; a schema's keyword that cannot be enforced is a 400 with its path",
    )
    .seen("", r#"{"type":"json_object"}"#),
    row("grammar", BOTH, Group::Structure, Kind::Text, NONE, "a grammar in GBNF, or in llguidance's Lark")
        .seen("", r#""root ::= [a-f]+""#),
    row("json_schema", BOTH, Group::Structure, SCHEMA, NONE, "the schema alone, as llama.cpp takes it")
        .seen("", r#"{"enum":[1,2]}"#),
    row("guided_json", BOTH, Group::Structure, SCHEMA, NONE, "the same, as vLLM takes it")
        .seen("", r#"{"enum":[1,2]}"#),
    row("guided_regex", BOTH, Group::Structure, Kind::Text, NONE, "the whole answer matches it")
        .seen("", r#""[a-f]{3}""#),
    row("guided_choice", BOTH, Group::Structure, CHOICES, NONE, "the answer is one of them")
        .seen("", r#"["yes","no"]"#),
    row("guided_grammar", BOTH, Group::Structure, Kind::Text, NONE, "another name of `grammar`")
        .seen("", r#""start: /[a-f]+/""#),
    row("structured_outputs", BOTH, Group::Structure, OPTIONS, NONE, "the same under one name")
        .seen("", r#"{"choice":["yes","no"]}"#),
];
