//! The rows of `/v1/messages` and `/v1/responses`, whose requests become chat requests.

use super::table::row;
use super::{Endpoint, Endpoints, Group, Kind, Parameter, REQUIRED};

const MESSAGES: Endpoints = Endpoints::of(&[Endpoint::Messages]);
const COUNTED: Endpoints = Endpoints::of(&[Endpoint::Messages, Endpoint::CountTokens]);
const RESPONSES: Endpoints = Endpoints::of(&[Endpoint::Responses]);

const LIST: Kind = Kind::Other { schema: r#"{"type":"array","minItems":1}"#, words: "a list" };
const TEXT_OR_LIST: Kind =
    Kind::Other { schema: r#"{"anyOf":[{"type":"string"},{"type":"array"}]}"#, words: "text or a list" };
const TOOLS: Kind = Kind::Other {
    schema: r#"{"type":"array","maxItems":512,"items":{"type":"object","required":["name"]}}"#,
    words: "a list of functions",
};
const CHOICE: Kind = Kind::Other {
    schema: r#"{"type":"object","required":["type"],"properties":{"type":{"enum":["auto","any","tool","none"]}}}"#,
    words: "an object with `type`",
};
const ANY_CHOICE: Kind = Kind::Other {
    schema: r#"{"anyOf":[{"enum":["auto","none","required"]},{"type":"object","required":["type"]}]}"#,
    words: "\"auto\", \"none\", \"required\", a function or allowed tools",
};
const COUNT: Kind = Kind::Integer(1, u32::MAX as i128);

const AS_CHAT: &str = "as in chat";
const TRANSLATED: &str = "a_message_becomes_a_chat";
const ASKED: &str = "a_response_becomes_a_chat";

pub(super) const ROWS: &[Parameter] = &[
    row("model", COUNTED, Group::Input, Kind::Text, REQUIRED, "name or alias of a configured model"),
    row("messages", COUNTED, Group::Input, LIST, REQUIRED, "the conversation so far"),
    row("system", COUNTED, Group::Input, TEXT_OR_LIST, "none", "what holds for all of it").tested(TRANSLATED),
    row("max_tokens", MESSAGES, Group::Length, COUNT, REQUIRED, "most tokens of the answer"),
    row("stop_sequences", MESSAGES, Group::Length, Kind::Texts(32), "none", "texts that end the answer")
        .tested(TRANSLATED),
    row("temperature", MESSAGES, Group::Sampling, Kind::TEMPERATURE, "the model's own, else 1", AS_CHAT)
        .tested(TRANSLATED),
    row("top_p", MESSAGES, Group::Sampling, Kind::UNIT, "the model's own, else 1", AS_CHAT)
        .tested(TRANSLATED),
    row("top_k", MESSAGES, Group::Sampling, Kind::TOP_K, "the model's own, else off", AS_CHAT)
        .tested(TRANSLATED),
    row("stream", MESSAGES, Group::Output, Kind::Bool, "false", "the answer comes as server-sent events")
        .tested("a_message_streamed"),
    row("tools", COUNTED, Group::Structure, TOOLS, "none", "functions that the model may call")
        .tested(TRANSLATED),
    row("tool_choice", COUNTED, Group::Structure, CHOICE, "auto", "whether and what it has to call")
        .tested(TRANSLATED),
    row(
        "thinking",
        COUNTED,
        Group::Template,
        Kind::Object,
        "the template's own",
        "for models whose template can switch it",
    )
    .tested(TRANSLATED),
    row(
        "output_config",
        COUNTED,
        Group::Structure,
        Kind::Object,
        "plain text",
        "`format`: a JSON schema that the answer keeps to; `effort` has no effect",
    )
    .tested("a_message_in_a_form"),
    row("metadata", MESSAGES, Group::NoEffect, Kind::ANYTHING, "none", "names for the log of others"),
    row("service_tier", MESSAGES, Group::NoEffect, Kind::ANYTHING, "auto", "there is one tier"),
    row("model", RESPONSES, Group::Input, Kind::Text, REQUIRED, "name or alias of a configured model"),
    row("input", RESPONSES, Group::Input, TEXT_OR_LIST, REQUIRED, "what is new in the conversation"),
    row("instructions", RESPONSES, Group::Input, Kind::Text, "none", "a system message for this response")
        .tested(ASKED),
    row(
        "previous_response_id",
        RESPONSES,
        Group::Input,
        Kind::Text,
        "none",
        "the conversation goes on from there",
    )
    .tested("responses_are_kept_continued_and_deleted"),
    row(
        "max_output_tokens",
        RESPONSES,
        Group::Length,
        COUNT,
        "what the context holds",
        "most tokens of the answer",
    )
    .tested(ASKED),
    row("temperature", RESPONSES, Group::Sampling, Kind::TEMPERATURE, "the model's own, else 1", AS_CHAT)
        .tested(ASKED),
    row("top_p", RESPONSES, Group::Sampling, Kind::UNIT, "the model's own, else 1", AS_CHAT).tested(ASKED),
    row("stream", RESPONSES, Group::Output, Kind::Bool, "false", "the answer comes as server-sent events")
        .tested("a_response_streamed"),
    row("store", RESPONSES, Group::Serving, Kind::Bool, "true", "whether it can be fetched and continued")
        .tested("responses_are_kept_continued_and_deleted"),
    row(
        "background",
        RESPONSES,
        Group::Serving,
        Kind::Bool,
        "false",
        "the answer comes at once, with `status` \"in_progress\"; fetch it until that changes, or cancel it",
    )
    .tested("a_response_in_the_background_is_fetched_and_cancelled"),
    row("tools", RESPONSES, Group::Structure, TOOLS, "none", "functions that the model may call")
        .tested(ASKED),
    row("tool_choice", RESPONSES, Group::Structure, ANY_CHOICE, "auto", "whether and what it has to call")
        .tested(ASKED),
    row(
        "parallel_tool_calls",
        RESPONSES,
        Group::Structure,
        Kind::Bool,
        "true",
        "whether it may have several calls",
    )
    .tested(ASKED),
    row(
        "text",
        RESPONSES,
        Group::Structure,
        Kind::Object,
        "plain text",
        "`format`: as chat's `response_format`",
    )
    .tested(ASKED),
    row(
        "reasoning",
        RESPONSES,
        Group::Template,
        Kind::Object,
        "the template's own",
        "`effort`: as chat's `reasoning_effort`",
    )
    .tested(ASKED),
    row("metadata", RESPONSES, Group::Serving, Kind::Object, "none", "comes back in the response")
        .tested(ASKED),
    row("user", RESPONSES, Group::NoEffect, Kind::ANYTHING, "none", "a name for the log of others"),
    row(
        "safety_identifier",
        RESPONSES,
        Group::NoEffect,
        Kind::ANYTHING,
        "none",
        "a name for the log of others",
    ),
    row(
        "prompt_cache_key",
        RESPONSES,
        Group::NoEffect,
        Kind::ANYTHING,
        "none",
        "prefixes are found by their tokens",
    ),
    row(
        "include",
        RESPONSES,
        Group::Output,
        Kind::Other { schema: r#"{"type":"array","items":{"type":"string"}}"#, words: "a list of texts" },
        "none",
        "`message.output_text.logprobs` is refused; of all else there is nothing to be included",
    )
    .tested("what_responses_leave_out_is_said"),
    row("service_tier", RESPONSES, Group::NoEffect, Kind::ANYTHING, "auto", "there is one tier"),
];
