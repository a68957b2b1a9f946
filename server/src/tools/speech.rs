//! How a model speaks: which calls and which thinking its template has taught it, found once when it is loaded.

use std::sync::Arc;

use duet_core::text::{ChatTemplate, EncodeOptions, TemplateInput, TokenId, Tokenizer};
use serde_json::{Map, Value, json};

use crate::reasoning::Tags;
use crate::tools::Family;

/// What settings say instead of the template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting<T> {
    /// The template decides.
    Auto,
    /// Off.
    Never,
    /// This one.
    Named(T),
}

impl<T: Copy> Setting<T> {
    /// A name out of a table, "auto" or "none".
    pub(crate) fn parse(text: &str, names: &[(&'static str, T)]) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "none" => Some(Self::Never),
            _ => names.iter().find(|(name, _)| *name == text).map(|(_, value)| Self::Named(*value)),
        }
    }
}

/// How a conversation with tools reaches the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// The template knows tools and calls.
    ByTemplate,
    /// It does not: they are described in the system message, and calls and results are texts.
    AsText,
}

/// One model's ways.
#[derive(Debug, Clone)]
pub(crate) struct Speech {
    /// How it writes calls; `None`: tools are switched off for it.
    pub(crate) calls: Option<Family>,
    pub(crate) shown: Shown,
    pub(crate) reasoning: Option<Tags>,
    /// The template writes a call's arguments as the text that it is given, so that it must get JSON text and no object.
    pub(crate) arguments_as_text: bool,
    /// Control tokens that mark thinking.
    pub(crate) reasoning_marks: Arc<[TokenId]>,
    /// Those, and the ones that mark calls.
    pub(crate) all_marks: Arc<[TokenId]>,
}

impl Speech {
    /// Of a model with this template.
    pub(crate) fn new(
        template: Option<&ChatTemplate>,
        tokenizer: &dyn Tokenizer,
        calls: Setting<Family>,
        reasoning: Setting<Tags>,
    ) -> Self {
        let sources: Vec<&str> = template.into_iter().flat_map(ChatTemplate::all_sources).collect();
        let found = sources.iter().rev().find_map(|source| Family::of_template(source));
        let shown = if found.is_some() { Shown::ByTemplate } else { Shown::AsText };
        let calls = match calls {
            Setting::Auto => Some(found.unwrap_or(Family::Hermes)),
            Setting::Never => None,
            Setting::Named(family) => Some(family),
        };
        let reasoning = match reasoning {
            Setting::Auto => sources.iter().find_map(|source| Tags::of_template(source)),
            Setting::Never => None,
            Setting::Named(tags) => Some(tags),
        };
        let tags: &[&str] = reasoning.map_or(&[], |tags| tags.pair());
        let harmony = calls.filter(|family| *family == Family::Harmony).map_or(&[][..], Family::marks);
        let reasoning_marks = marks(tokenizer, tags.iter().chain(harmony));
        let all_marks = marks(tokenizer, tags.iter().chain(calls.map_or(&[][..], Family::marks)));
        let arguments_as_text = shown == Shown::ByTemplate && template.is_some_and(wants_text);
        Self { calls, shown, reasoning, arguments_as_text, reasoning_marks, all_marks }
    }
}

/// Ids of those texts that are one control token.
fn marks<'a>(tokenizer: &dyn Tokenizer, texts: impl Iterator<Item = &'a &'static str>) -> Arc<[TokenId]> {
    let options = EncodeOptions { add_special: false, parse_special: true };
    let one = |text: &&'static str| match tokenizer.encode(text.trim_end(), options).ok()?.as_slice() {
        [id] if tokenizer.is_control(*id) => Some(*id),
        _ => None,
    };
    texts.filter_map(one).collect()
}

/// Whether a call's arguments come out as JSON only if they go in as text.
fn wants_text(template: &ChatTemplate) -> bool {
    let render = |arguments: Value| {
        let call = json!({"id": "call00000", "type": "function", "function": {"name": "probe", "arguments": arguments}});
        let messages = json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call00000", "name": "probe", "content": "b"},
        ]);
        let input = TemplateInput {
            messages: &messages,
            tools: None,
            add_generation_prompt: false,
            continue_final_message: false,
            kwargs: &Map::new(),
        };
        template.render(&input).unwrap_or_default()
    };
    // As JSON, and not quoted once more.
    let is_json = |text: &str| text.replace(' ', "").contains(r#"{"needle":"1"}"#);
    !is_json(&render(json!({"needle": "1"}))) && is_json(&render(json!(r#"{"needle": "1"}"#)))
}

#[cfg(test)]
mod tests {
    use duet_core::testing::ByteTokenizer;

    use super::*;

    fn speech(template: &str) -> Speech {
        let template = ChatTemplate::new(template, "<bos>", "<eos>").unwrap();
        Speech::new(Some(&template), &ByteTokenizer::default(), Setting::Auto, Setting::Auto)
    }

    #[track_caller]
    fn check(template: &str, calls: Family, shown: Shown, reasoning: Option<Tags>) {
        let found = speech(template);
        assert_eq!(
            (found.calls, found.shown, found.reasoning),
            (Some(calls), shown, reasoning),
            "{template}"
        );
    }

    #[test]
    fn families_are_told_by_the_template() {
        use Shown::{AsText, ByTemplate};
        check("{{ messages }}", Family::Hermes, AsText, None);
        check("{{ tools }}<tool_call></think>", Family::Hermes, ByTemplate, Some(Tags::Think));
        check("{{ tools }}<tool_call><function=", Family::QwenCoder, ByTemplate, None);
        check("{{ tools }}<tool_call><arg_key>", Family::Glm, ByTemplate, None);
        check("{{ tools }}[TOOL_CALLS][/THINK]", Family::Mistral, ByTemplate, Some(Tags::Mistral));
        check("{{ tools }}<|channel|><|start|>", Family::Harmony, ByTemplate, None);
        check("{{ tools }}<|start_header_id|>", Family::Llama3, ByTemplate, None);
        check("{{ tools }}", Family::Hermes, ByTemplate, None);
        check("<tool_call> without the variable", Family::Hermes, AsText, None);
    }

    #[test]
    fn settings_go_before_the_template() {
        let of = |calls, reasoning| {
            let template = ChatTemplate::new("{{ tools }}<tool_call></think>", "", "").unwrap();
            Speech::new(Some(&template), &ByteTokenizer::default(), calls, reasoning)
        };
        let found = of(Setting::Named(Family::Kimi), Setting::Named(Tags::Seed));
        assert_eq!((found.calls, found.reasoning), (Some(Family::Kimi), Some(Tags::Seed)));
        let found = of(Setting::Never, Setting::Never);
        assert_eq!((found.calls, found.reasoning), (None, None));
        assert_eq!(Setting::parse("glm", &Family::NAMES), Some(Setting::Named(Family::Glm)));
        assert_eq!(Setting::parse("auto", &Family::NAMES), Some(Setting::Auto));
        assert_eq!(Setting::parse("GLM", &Family::NAMES), None);
        assert_eq!(Setting::parse("", &Family::NAMES), None);
    }

    #[test]
    fn arguments_are_text_where_the_template_joins_them() {
        let calls = |arguments: &str| {
            format!(
                "{{% for m in messages %}}{{% for c in m.tool_calls %}}{arguments}{{% endfor %}}{{% endfor %}}{{{{ tools }}}}"
            )
        };
        assert!(!speech(&calls("{{ c.function.arguments | tojson }}")).arguments_as_text);
        assert!(speech(&calls("{{ 'x' + c.function.arguments }}")).arguments_as_text);
        assert!(!speech(&calls("{% if c.function.arguments is string %}{{ c.function.arguments }}{% else %}{{ c.function.arguments | tojson }}{% endif %}")).arguments_as_text);
        assert!(!speech("{{ tools }} shows no calls").arguments_as_text);
    }

    #[test]
    fn only_single_control_tokens_are_marks() {
        let tokenizer = ByteTokenizer::default();
        let found = marks(&tokenizer, ["<|im_start|>", "<think>", "<|im_start|>x"].iter());
        assert_eq!(found.as_ref(), [258]);
    }
}
