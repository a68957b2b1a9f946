//! Tools: what a request offers, how families of models write calls, and how calls are read.

pub(crate) mod grammar;
pub(crate) mod parse;
pub(crate) mod request;
pub(crate) mod shape;
pub(crate) mod speech;

use serde_json::Value;

/// How a family of models writes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Family {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen 2.5 and 3, and models that know no tools.
    Hermes,
    /// `<tool_call><function=NAME><parameter=K>V</parameter></function></tool_call>`.
    QwenCoder,
    /// `<|python_tag|>{"name": …, "parameters": {…}}`, or without the tag.
    Llama3,
    /// `[TOOL_CALLS][{…}]` or `[TOOL_CALLS]NAME[ARGS]{…}`.
    Mistral,
    /// `<｜tool▁call▁begin｜>…`: V3, V3.1, R1.
    DeepSeek,
    /// `<|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{…}<|tool_call_end|>`: K2.
    Kimi,
    /// `<tool_call>NAME<arg_key>K</arg_key><arg_value>V</arg_value></tool_call>`: GLM 4.5 and later.
    Glm,
    /// `<start_function_call>call:NAME{K:<escape>V<escape>}<end_function_call>`, and Gemma 4's `<|tool_call>…`.
    Gemma,
    /// `[NAME(K=V)]`: Llama 4, LFM2.
    Pythonic,
    /// gpt-oss.
    Harmony,
}

impl Family {
    /// Names that settings may give.
    pub(crate) const NAMES: [(&'static str, Self); 10] = [
        ("hermes", Self::Hermes),
        ("qwen3_coder", Self::QwenCoder),
        ("llama3", Self::Llama3),
        ("mistral", Self::Mistral),
        ("deepseek", Self::DeepSeek),
        ("kimi", Self::Kimi),
        ("glm", Self::Glm),
        ("gemma", Self::Gemma),
        ("pythonic", Self::Pythonic),
        ("harmony", Self::Harmony),
    ];

    /// Marks that may be control tokens.
    pub(crate) fn marks(self) -> &'static [&'static str] {
        match self {
            Self::Hermes | Self::QwenCoder => &["<tool_call>", "</tool_call>"],
            Self::Glm => {
                &["<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"]
            }
            Self::Llama3 => &["<|python_tag|>"],
            Self::Mistral => &["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"],
            Self::DeepSeek => &[
                "<｜tool▁calls▁begin｜>",
                "<｜tool▁calls▁end｜>",
                "<｜tool▁call▁begin｜>",
                "<｜tool▁call▁end｜>",
                "<｜tool▁sep｜>",
            ],
            Self::Kimi => &[
                "<|tool_calls_section_begin|>",
                "<|tool_calls_section_end|>",
                "<|tool_call_begin|>",
                "<|tool_call_argument_begin|>",
                "<|tool_call_end|>",
            ],
            Self::Gemma => &[
                "<start_function_call>",
                "<end_function_call>",
                "<escape>",
                "<|tool_call>",
                "<tool_call|>",
                "<|\"|>",
            ],
            Self::Pythonic => {
                &["<|python_start|>", "<|python_end|>", "<|tool_call_start|>", "<|tool_call_end|>"]
            }
            Self::Harmony => &[
                "<|channel|>",
                "<|message|>",
                "<|end|>",
                "<|start|>",
                "<|call|>",
                "<|return|>",
                "<|constrain|>",
            ],
        }
    }

    /// The family whose words a chat template uses. `None`: the template does not show tools.
    pub(crate) fn of_template(source: &str) -> Option<Self> {
        const SIGNS: [(&str, Family); 13] = [
            ("<|channel|>", Family::Harmony),
            ("<arg_key>", Family::Glm),
            ("<function=", Family::QwenCoder),
            ("<tool_call>", Family::Hermes),
            ("[TOOL_CALLS]", Family::Mistral),
            ("<｜tool▁calls▁begin｜>", Family::DeepSeek),
            ("<|tool_calls_section_begin|>", Family::Kimi),
            ("<start_function_call>", Family::Gemma),
            ("<|tool_call>", Family::Gemma),
            ("<|python_start|>", Family::Pythonic),
            ("<|tool_call_start|>", Family::Pythonic),
            ("<|python_tag|>", Family::Llama3),
            ("<|start_header_id|>", Family::Llama3),
        ];
        if !source.contains("tools") {
            return None;
        }
        let found = SIGNS.into_iter().find(|(sign, _)| source.contains(sign));
        Some(found.map_or(Self::Hermes, |(_, family)| family))
    }
}

/// One function that a request offers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tool {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    /// Its arguments' JSON schema.
    pub(crate) parameters: Value,
}

/// All functions of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Tools(pub(crate) Vec<Tool>);

impl Tools {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|tool| tool.name == name)
    }

    /// An argument that a model wrote without quotes: JSON where the schema wants something else than a text.
    pub(crate) fn value(&self, name: &str, key: &str, text: &str) -> Value {
        let tool = self.0.iter().find(|tool| tool.name == name);
        let schema = tool.and_then(|tool| tool.parameters.get("properties")?.get(key));
        let wants_text = match schema.and_then(|schema| schema.get("type")) {
            Some(Value::String(kind)) => kind == "string",
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "string"),
            _ => schema.is_none_or(|schema| schema.get("enum").is_some()),
        };
        let json = if wants_text { None } else { serde_json::from_str(text.trim()).ok() };
        json.unwrap_or_else(|| Value::from(text))
    }
}
