//! The rows, apart from those that are refused.

use super::kind::{I32, U32};
use super::{Endpoint, Endpoints, Group, Kind, Parameter, REQUIRED, structure};

const CHAT: Endpoints = Endpoints::of(&[Endpoint::Chat]);
const TEXT: Endpoints = Endpoints::of(&[Endpoint::Text]);
/// Both routes of OpenAI's that generate.
pub(super) const BOTH: Endpoints = Endpoints::of(&[Endpoint::Chat, Endpoint::Text]);

const EMBEDDINGS: Endpoints = Endpoints::of(&[Endpoint::Embeddings]);
const RERANK: Endpoints = Endpoints::of(&[Endpoint::Rerank]);
const TOKENIZE: Endpoints = Endpoints::of(&[Endpoint::Tokenize]);
const DETOKENIZE: Endpoints = Endpoints::of(&[Endpoint::Detokenize]);
/// Routes where the only configured model need not be named.
const TEXT_SIDE: Endpoints =
    Endpoints::of(&[Endpoint::Tokenize, Endpoint::Detokenize, Endpoint::ApplyTemplate]);
/// Routes with a conversation.
const TALK: Endpoints = Endpoints::of(&[Endpoint::Chat, Endpoint::ApplyTemplate]);

const FREE: Kind = Kind::Number(0.0, f64::MAX);
const COUNT: Kind = Kind::Integer(0, U32);
const FROM_ONE: Kind = Kind::Integer(1, U32);
const AS_MAX: &str = "as `max_tokens`";
const WINDOW: Kind = Kind::Integer(-1, I32);
const PENALTY: Kind = Kind::Number(-2.0, 2.0);
/// 64 bits, with a sign or without.
const SEED: Kind = Kind::Integer(i64::MIN as i128, u64::MAX as i128);

/// All tables.
pub(super) const ROWS: &[&[Parameter]] = &[
    INPUT,
    TEXTS,
    VECTORS,
    RANKING,
    LENGTH,
    SAMPLING,
    PENALTIES,
    OUTPUT,
    structure::ROWS,
    super::tools::ROWS,
    super::foreign::ROWS,
    TEMPLATE,
    SERVING,
    NO_EFFECT,
];

pub(super) const fn row(
    name: &'static str,
    on: Endpoints,
    group: Group,
    kind: Kind,
    default: &'static str,
    about: &'static str,
) -> Parameter {
    Parameter::new(name, on, group, kind, default, about)
}

const MESSAGES: Kind = Kind::Other {
    schema: r##"{"type":"array","minItems":1,"items":{"$ref":"#/components/schemas/Message"}}"##,
    words: "a list of messages",
};
const PROMPT: Kind = Kind::Other {
    schema: r##"{"anyOf":[{"type":"string"},{"type":"array","minItems":1,"maxItems":2048,"items":{"type":"string"}},
        {"type":"array","minItems":1,"items":{"$ref":"#/components/schemas/TokenId"}},
        {"type":"array","minItems":1,"maxItems":2048,"items":{"type":"array","minItems":1,"items":{"$ref":"#/components/schemas/TokenId"}}}]}"##,
    words: "text, a list of texts, token ids, or lists of token ids",
};

const INPUT: &[Parameter] = &[
    row("model", BOTH, Group::Input, Kind::Text, REQUIRED, "name or alias of a configured model"),
    row("messages", TALK, Group::Input, MESSAGES, REQUIRED, "the conversation so far"),
    row("prompt", TEXT, Group::Input, PROMPT, REQUIRED, "what is to be continued"),
    row(
        "suffix",
        TEXT,
        Group::Input,
        Kind::Text,
        "none",
        "what stands behind the gap that is to be filled, where the model was trained for that",
    )
    .seen("", r#""cc""#),
];

const TOKENS_TEST: &str = "texts_become_tokens_and_back";

const TEXTS: &[Parameter] = &[
    row("model", TEXT_SIDE, Group::Input, Kind::Text, "the only one", "name or alias of a configured model")
        .tested(TOKENS_TEST),
    row("prompt", TOKENIZE, Group::Input, Kind::Text, "see `content`", "the text").tested(TOKENS_TEST),
    row(
        "content",
        TOKENIZE,
        Group::Input,
        Kind::Text,
        "see `prompt`",
        "the text, as llama.cpp's clients name it",
    )
    .tested(TOKENS_TEST),
    row(
        "add_special_tokens",
        TOKENIZE,
        Group::Output,
        Kind::Bool,
        "true; false with `content`",
        "what the model's format puts around a text",
    )
    .tested(TOKENS_TEST),
    row(
        "add_special",
        TOKENIZE,
        Group::Output,
        Kind::Bool,
        "as `add_special_tokens`",
        "another name of `add_special_tokens`",
    )
    .tested(TOKENS_TEST),
    row(
        "parse_special",
        TOKENIZE,
        Group::Output,
        Kind::Bool,
        "true",
        "control tokens written out are those tokens",
    )
    .tested(TOKENS_TEST),
    row(
        "with_pieces",
        TOKENIZE,
        Group::Output,
        Kind::Bool,
        "false",
        "`tokens` are objects with `id` and `piece`",
    )
    .tested(TOKENS_TEST),
    row(
        "return_token_strs",
        TOKENIZE,
        Group::Output,
        Kind::Bool,
        "false",
        "texts of the tokens in `token_strs`",
    )
    .tested(TOKENS_TEST),
    row("tokens", DETOKENIZE, Group::Input, Kind::Ids(1 << 20), REQUIRED, "the tokens"),
];

const VECTORS: &[Parameter] = &[
    row("model", EMBEDDINGS, Group::Input, Kind::Text, REQUIRED, "name or alias of a configured model"),
    row(
        "input",
        EMBEDDINGS,
        Group::Input,
        PROMPT,
        REQUIRED,
        "what vectors are wanted of; in a list, one each",
    ),
    row(
        "encoding_format",
        EMBEDDINGS,
        Group::Output,
        Kind::Word(&["float", "base64"]),
        "float",
        "JSON numbers, or base64 of little-endian single floats",
    )
    .tested("vectors_are_cut_and_encoded_as_asked"),
    row(
        "dimensions",
        EMBEDDINGS,
        Group::Output,
        Kind::Integer(1, U32),
        "the model's width",
        "so many of a vector's first numbers, brought back to unit length",
    )
    .tested("vectors_are_cut_and_encoded_as_asked"),
    row("user", EMBEDDINGS, Group::NoEffect, Kind::ANYTHING, "none", "a name for the log of others"),
];

const DOCUMENTS: Kind = Kind::Other {
    schema: r#"{"type":"array","minItems":1,"maxItems":2048,"items":{"anyOf":[{"type":"string"},
        {"type":"object","required":["text"],"properties":{"text":{"type":"string"}}}]}}"#,
    words: "a list of 1 to 2048 texts, or of objects with `text`",
};
const RANKING_TEST: &str = "documents_come_in_the_order_of_their_relevance";

const RANKING: &[Parameter] = &[
    row("model", RERANK, Group::Input, Kind::Text, REQUIRED, "name or alias of a configured cross-encoder"),
    row("query", RERANK, Group::Input, Kind::Text, REQUIRED, "what the documents are to answer"),
    row("documents", RERANK, Group::Input, DOCUMENTS, REQUIRED, "each is judged beside the query"),
    row("top_n", RERANK, Group::Output, Kind::Integer(1, U32), "all", "only so many, the best")
        .tested(RANKING_TEST),
    row(
        "return_documents",
        RERANK,
        Group::Output,
        Kind::Bool,
        "false",
        "the texts come back with their scores",
    )
    .tested(RANKING_TEST),
    row("user", RERANK, Group::NoEffect, Kind::ANYTHING, "none", "a name for the log of others"),
];

const LENGTH: &[Parameter] = &[
    row("max_tokens", CHAT, Group::Length, FROM_ONE, "what the context holds", "most tokens of a choice")
        .seen("", "3"),
    row(
        "max_tokens",
        TEXT,
        Group::Length,
        COUNT,
        "16",
        "most tokens of a choice; 0 with `echo` scores the prompt and nothing else",
    )
    .seen("", "3"),
    row("max_completion_tokens", CHAT, Group::Length, FROM_ONE, AS_MAX, "another name of `max_tokens`")
        .seen(r#""max_tokens":null"#, "3"),
    row("max_completion_tokens", TEXT, Group::Length, COUNT, AS_MAX, "another name of `max_tokens`")
        .seen(r#""max_tokens":null"#, "3"),
    row("min_tokens", BOTH, Group::Length, COUNT, "0", "no end of generation before so many tokens")
        .seen(r#""logit_bias":{"$EOS":100}"#, "5"),
    row(
        "ignore_eos",
        BOTH,
        Group::Length,
        Kind::Bool,
        "false",
        "tokens that end a generation are tokens like others",
    )
    .seen(r#""logit_bias":{"$EOS":100}"#, "true"),
    row(
        "stop",
        BOTH,
        Group::Length,
        Kind::Texts(32),
        "none",
        "texts that end the answer; 1 to 1024 bytes each",
    )
    .seen(r#""logit_bias":{"$C":100}"#, r#""c""#),
    row("stop_token_ids", BOTH, Group::Length, Kind::Ids(128), "none", "tokens that end the answer")
        .seen(r#""logit_bias":{"$C":100}"#, "[$C]"),
];

const SAMPLING: &[Parameter] = &[
    row(
        "temperature",
        BOTH,
        Group::Sampling,
        Kind::TEMPERATURE,
        "the model's own, else 1",
        "0 always takes the most probable token",
    )
    .seen("", "0"),
    row(
        "top_p",
        BOTH,
        Group::Sampling,
        Kind::UNIT,
        "the model's own, else 1",
        "only the most probable tokens with this much probability together",
    )
    .seen("", "0.0"),
    row(
        "top_k",
        BOTH,
        Group::Sampling,
        Kind::TOP_K,
        "the model's own, else off",
        "only so many tokens; 0 or -1: all",
    )
    .seen("", "1"),
    row(
        "min_p",
        BOTH,
        Group::Sampling,
        Kind::UNIT,
        "the model's own, else 0",
        "only tokens with this share of the most probable one's probability",
    )
    .seen("", "1.0"),
    row(
        "typical_p",
        BOTH,
        Group::Sampling,
        Kind::UNIT,
        "1",
        "only the most typical tokens with this much probability together",
    )
    .seen("", "0.05"),
    row(
        "top_n_sigma",
        BOTH,
        Group::Sampling,
        Kind::Number(-1.0, f64::MAX),
        "off",
        "only logits within so many standard deviations of the best; 0 or -1: off",
    )
    .seen("", "0.0001"),
    row(
        "xtc_probability",
        BOTH,
        Group::Sampling,
        Kind::UNIT,
        "0",
        "how often all tokens above `xtc_threshold` but the last are left out",
    )
    .seen(r#""xtc_threshold":0.001"#, "1.0"),
    row("xtc_threshold", BOTH, Group::Sampling, Kind::UNIT, "0.1", "see `xtc_probability`; above 0.5: off")
        .seen(r#""xtc_probability":1"#, "0.0001"),
    row(
        "dry_multiplier",
        BOTH,
        Group::Sampling,
        FREE,
        "0",
        "how much repetitions of earlier token sequences are made less probable",
    )
    .seen(r#""temperature":0,"logit_bias":{"$C":20}"#, "50"),
    row(
        "dry_base",
        BOTH,
        Group::Sampling,
        Kind::Number(1.0, f64::MAX),
        "1.75",
        "how fast that grows with the length of the repetition",
    )
    .seen(r#""temperature":0,"logit_bias":{"$C":20},"dry_multiplier":0.01"#, "30"),
    row(
        "dry_allowed_length",
        BOTH,
        Group::Sampling,
        Kind::Integer(1, U32),
        "2",
        "repetitions up to this length are free",
    )
    .seen(r#""temperature":0,"logit_bias":{"$C":20},"dry_multiplier":50"#, "20"),
    row(
        "dry_penalty_last_n",
        BOTH,
        Group::Sampling,
        WINDOW,
        "-1",
        "how many tokens are looked through; -1: all, 0: off",
    )
    .seen(r#""temperature":0,"logit_bias":{"$C":20},"dry_multiplier":50"#, "0"),
    row(
        "dry_sequence_breakers",
        BOTH,
        Group::Sampling,
        Kind::Texts(64),
        "line end, colon, quote, star",
        "texts that repetitions do not reach across",
    )
    .seen(r#""temperature":0,"logit_bias":{"$C":20},"dry_multiplier":50"#, r#"["c"]"#),
    row(
        "mirostat",
        BOTH,
        Group::Sampling,
        Kind::Integer(0, 2),
        "0",
        "1 or 2: keeps the average surprise at `mirostat_tau`; filters act only where the request has them, and before it",
    )
    .seen(r#""mirostat_tau":0.01"#, "2"),
    row("mirostat_tau", BOTH, Group::Sampling, FREE, "5", "surprise in bits per token; with `mirostat`")
        .seen(r#""mirostat":1"#, "0.01"),
    row("mirostat_eta", BOTH, Group::Sampling, FREE, "0.1", "how fast it gets there; with `mirostat`")
        .seen(r#""mirostat":2,"mirostat_tau":3"#, "1000"),
    row(
        "seed",
        BOTH,
        Group::Sampling,
        SEED,
        "random",
        "the same seed gives the same answer; choice i has seed + i; -1: random",
    )
    .seen("", "2"),
];

const BIAS: Kind = Kind::Other {
    schema: r#"{"type":"object","propertyNames":{"pattern":"^[0-9]{1,9}$"},"additionalProperties":{"type":"number","minimum":-100,"maximum":100}}"#,
    words: "an object of token ids with numbers from -100 to 100",
};

const PENALTIES: &[Parameter] = &[
    row(
        "presence_penalty",
        BOTH,
        Group::Penalties,
        PENALTY,
        "0",
        "taken off the logits of tokens that were there",
    )
    .seen("", "2"),
    row("frequency_penalty", BOTH, Group::Penalties, PENALTY, "0", "the same, once for each time")
        .seen(r#""temperature":0,"logit_bias":{"$C":20}"#, "2"),
    row(
        "repetition_penalty",
        BOTH,
        Group::Penalties,
        Kind::Positive,
        "the model's own, else 1",
        "divides the logits of tokens that were there",
    )
    .seen(r#""temperature":0"#, "5"),
    row(
        "repeat_penalty",
        BOTH,
        Group::Penalties,
        Kind::Positive,
        "as `repetition_penalty`",
        "another name of `repetition_penalty`",
    )
    .seen(r#""temperature":0"#, "5"),
    row(
        "repeat_last_n",
        BOTH,
        Group::Penalties,
        WINDOW,
        "64",
        "how many tokens penalties look back; -1: all, 0: off",
    )
    .seen(r#""temperature":0,"repetition_penalty":5"#, "0"),
    row(
        "logit_bias",
        BOTH,
        Group::Penalties,
        BIAS,
        "none",
        "added to the logits of tokens; -100 bans, an unknown id is a 400",
    )
    .seen("", r#"{"$C":100}"#),
];

const STREAM_OPTIONS: Kind = Kind::Other {
    schema: r#"{"type":"object","properties":{"include_usage":{"type":["boolean","null"]}}}"#,
    words: "an object with `include_usage`",
};
const BEST_OF: &str = "so many are generated, and the `n` with the highest mean log probability of their tokens are \
                       the answer; not streamed";

const OUTPUT: &[Parameter] = &[
    row("n", BOTH, Group::Output, Kind::Integer(1, U32), "1", "choices; at most the model's `parallel`")
        .seen("", "2"),
    row("best_of", BOTH, Group::Output, Kind::Integer(1, U32), "`n`", BEST_OF).seen("", "2"),
    row("echo", TEXT, Group::Output, Kind::Bool, "false", "the answer begins with the prompt")
        .seen("", "true"),
    row(
        "logprobs",
        CHAT,
        Group::Output,
        Kind::Bool,
        "false",
        "log probabilities of the tokens, before the sampler",
    )
    .seen("", "true"),
    row(
        "logprobs",
        TEXT,
        Group::Output,
        Kind::Integer(0, 20),
        "none",
        "the same with so many alternatives each",
    )
    .seen("", "2"),
    row(
        "top_logprobs",
        CHAT,
        Group::Output,
        Kind::Integer(0, 20),
        "0",
        "alternatives to each token; needs `logprobs`",
    )
    .seen(r#""logprobs":true"#, "3"),
    row("stream", BOTH, Group::Output, Kind::Bool, "false", "the answer comes as server-sent events")
        .seen("", "true"),
    row(
        "stream_options",
        BOTH,
        Group::Output,
        STREAM_OPTIONS,
        "none",
        "`include_usage`: usage in a last chunk; needs `stream`",
    )
    .seen(r#""stream":true"#, r#"{"include_usage":true}"#),
    row(
        "return_token_ids",
        BOTH,
        Group::Output,
        Kind::Bool,
        "false",
        "ids of prompt and answer besides the text",
    )
    .seen("", "true"),
];

const TEMPLATE: &[Parameter] = &[
    row(
        "chat_template_kwargs",
        TALK,
        Group::Template,
        Kind::Object,
        "none",
        "further variables of the chat template",
    )
    .tested("what_the_template_gets"),
    row(
        "enable_thinking",
        TALK,
        Group::Template,
        Kind::Bool,
        "the template's own",
        "for models whose template knows it",
    )
    .seen(r#""return_token_ids":true"#, "true"),
    row(
        "reasoning_effort",
        TALK,
        Group::Template,
        Kind::Text,
        "the template's own",
        "for models whose template knows it; \"none\" is accepted by all",
    )
    .seen(r#""return_token_ids":true"#, r#""high""#),
    row(
        "add_generation_prompt",
        TALK,
        Group::Template,
        Kind::Bool,
        "true",
        "the prompt ends with the beginning of an answer",
    )
    .seen(r#""return_token_ids":true"#, "false"),
    row(
        "continue_final_message",
        TALK,
        Group::Template,
        Kind::Bool,
        "false",
        "the answer continues the last message",
    )
    .seen(r#""return_token_ids":true"#, "true"),
];

const PRIORITY: Kind = Kind::Other {
    schema: r#"{"enum":["interactive","batch",0]}"#,
    words: "\"interactive\" or \"batch\"; 0 is \"interactive\"",
};

const SERVING: &[Parameter] = &[
    row(
        "priority",
        BOTH,
        Group::Serving,
        PRIORITY,
        "interactive",
        "interactive requests go before batch ones in the queue",
    )
    .tested("a_request_says_how_urgent_it_is_and_whether_prefixes_are_kept"),
    row(
        "cache_prompt",
        BOTH,
        Group::Serving,
        Kind::Bool,
        "true",
        "false: no cached prefix is used, and none of this request is kept",
    )
    .tested("cached_tokens_are_told_on_both_routes_streamed_and_whole"),
];

/// Names for the log of others, and hints for caches that hold nothing back.
const NO_EFFECT: &[Parameter] = &[
    row("user", BOTH, Group::NoEffect, Kind::ANYTHING, "none", "a name for the log of others"),
    row("metadata", BOTH, Group::NoEffect, Kind::ANYTHING, "none", "names for the log of others"),
    row("safety_identifier", BOTH, Group::NoEffect, Kind::ANYTHING, "none", "a name for the log of others"),
    row(
        "prompt_cache_key",
        BOTH,
        Group::NoEffect,
        Kind::ANYTHING,
        "none",
        "prefixes are found by their tokens",
    ),
    row(
        "prompt_cache_retention",
        BOTH,
        Group::NoEffect,
        Kind::ANYTHING,
        "none",
        "prefixes stay as long as there is room",
    ),
    row(
        "parallel_tool_calls",
        TEXT,
        Group::NoEffect,
        Kind::ANYTHING,
        "true",
        "of tools, which completions have not",
    ),
    row("dynatemp_exponent", BOTH, Group::NoEffect, Kind::ANYTHING, "1", "only with `dynatemp_range`"),
];
