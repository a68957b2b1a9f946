//! The rows about tools.

use super::{Endpoint, Endpoints, Group, Kind, Parameter};

/// Routes with a conversation.
const TALK: Endpoints = Endpoints::of(&[Endpoint::Chat, Endpoint::ApplyTemplate]);

const TOOLS: Kind = Kind::Other {
    schema: r#"{"type":"array","maxItems":512,"items":{"type":"object","required":["type","function"],"properties":{
        "type":{"const":"function"},"function":{"type":"object","required":["name"],"properties":{
        "name":{"type":"string","minLength":1,"maxLength":128},"description":{"type":["string","null"]},
        "parameters":{"type":["object","null"]},"strict":{"type":["boolean","null"]}}}}}}"#,
    words: "a list of functions",
};
const CHOICE: Kind = Kind::Other {
    schema: r#"{"anyOf":[{"enum":["auto","none","required"]},{"type":"object","required":["type"],"properties":{
        "type":{"enum":["function","allowed_tools"]}}}]}"#,
    words: "\"auto\", \"none\", \"required\", a function or allowed tools",
};

pub(super) const ROWS: &[Parameter] = &[
    Parameter::new(
        "tools",
        TALK,
        Group::Structure,
        TOOLS,
        "none",
        "functions that the model may call; `strict` holds where calls are enforced",
    )
    .seen(
        r#""return_token_ids":true,"max_tokens":1,"messages":[{"role":"user","content":"a"}]"#,
        r#"[{"type":"function","function":{"name":"f"}}]"#,
    ),
    Parameter::new(
        "tool_choice",
        TALK,
        Group::Structure,
        CHOICE,
        "\"auto\"",
        "whether and what it has to call",
    )
    .seen(
        r#""return_token_ids":true,"max_tokens":1,"messages":[{"role":"user","content":"a"}],
            "tools":[{"type":"function","function":{"name":"f"}}]"#,
        r#""none""#,
    ),
    Parameter::new(
        "parallel_tool_calls",
        TALK,
        Group::Structure,
        Kind::Bool,
        "true",
        "whether an answer may have several calls",
    )
    .tested("only_calls_have_null_content_and_ids_differ"),
];
