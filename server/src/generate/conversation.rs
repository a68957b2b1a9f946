//! Messages and tools → the prompt's tokens, by the model's chat template; and how its answer is to be read.

use std::sync::Arc;

use duet_core::constraint::Constraint;
use duet_core::text::{ChatTemplate, TemplateError, TemplateInput, TokenId};
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::generate::prepare::encode;
use crate::models::Resident;
use crate::reasoning::Tags;
use crate::tools::Family;
use crate::tools::grammar::{calls, enforced};
use crate::tools::parse::ParseOptions;
use crate::tools::request::{Choice, ToolRequest};
use crate::tools::shape::{Place, as_text};
use crate::tools::speech::Shown;
use crate::wire::openai::chat::TemplateOptions;
use crate::wire::openai::message::{Message, for_template};

/// A conversation ready for the engine.
pub(crate) struct Conversation {
    /// What the template made of it.
    pub(crate) text: String,
    pub(crate) ids: Vec<TokenId>,
    pub(crate) parse: ParseOptions,
    /// Control tokens that the reader of the answer has to see.
    pub(crate) shown_control: Arc<[TokenId]>,
    /// If it has to call.
    pub(crate) constraint: Option<Constraint>,
}

/// Renders and tokenizes.
///
/// # Errors
/// 400 for what this model's template cannot show, with the parameter's name.
pub(crate) fn conversation(
    resident: &Resident,
    messages: Vec<Message>,
    options: &TemplateOptions,
    tools: Option<&ToolRequest>,
) -> Result<Conversation, ApiError> {
    let template = resident.assets.template.as_ref().map_err(|why| {
        let name = &resident.config.name;
        ApiError::unsupported(
            "messages",
            format!("model `{name}` cannot chat: {why}; `/v1/completions` takes plain text"),
        )
    })?;
    let family = match tools {
        None => None,
        Some(_) => Some(resident.speech.calls.ok_or_else(|| {
            let name = &resident.config.name;
            let message = format!("`tools` is not supported: they are switched off for model `{name}`");
            ApiError::unsupported("tools", message)
        })?),
    };
    let mentions = |word: &str| template.source().is_some_and(|source| source.contains(word));
    let messages = for_template(messages, mentions("developer"), resident.speech.arguments_as_text)?;
    let kwargs = template_kwargs(options, mentions)?;
    let text = match resident.speech.shown {
        Shown::ByTemplate => {
            render(template, &input(&messages, tools.map(|tools| &tools.shown), options, &kwargs))
        }
        Shown::AsText => render_as_text(template, &messages, tools, options, &kwargs),
    }?;
    let (parse, constraint) = match family.zip(tools) {
        Some((family, tools)) if tools.choice == Choice::Must => {
            // The grammar decides the form, and with it who reads it.
            let family = enforced(family);
            let mut parse = parse_options(resident, &text, Some((family, tools)));
            parse.harmony = family == Family::Harmony;
            let spec = calls(family, tools, resident.assets.tokenizer.as_ref(), parse.opened_thinking());
            let constraint = resident.model.constraint(spec).map_err(|error| {
                ApiError::invalid(
                    "tools",
                    format!("`tool_choice` cannot be enforced for these `tools`: {error}"),
                )
            })?;
            (parse, Some(constraint))
        }
        offered => (parse_options(resident, &text, offered), None),
    };
    let marks = match tools {
        Some(_) => &resident.speech.all_marks,
        None => &resident.speech.reasoning_marks,
    };
    // The template writes the special tokens itself: adding them here would give two.
    let ids = encode(resident.assets.tokenizer.as_ref(), &text, false, "messages")?;
    Ok(Conversation { text, ids, parse, shown_control: marks.clone(), constraint })
}

fn input<'a>(
    messages: &'a Value,
    tools: Option<&'a Value>,
    options: &TemplateOptions,
    kwargs: &'a Map<String, Value>,
) -> TemplateInput<'a> {
    TemplateInput {
        messages,
        tools,
        add_generation_prompt: options.add_generation_prompt,
        continue_final_message: options.continue_final_message,
        kwargs,
    }
}

/// For templates that know no tools. One that refuses a system message gets the description in the first user message.
fn render_as_text(
    template: &ChatTemplate,
    messages: &Value,
    tools: Option<&ToolRequest>,
    options: &TemplateOptions,
    kwargs: &Map<String, Value>,
) -> Result<String, ApiError> {
    let at = |place| render(template, &input(&as_text(messages, tools, place), None, options, kwargs));
    match at(Place::System) {
        Err(error) if tools.is_some() => at(Place::FirstUser).map_err(|_| error),
        rendered => rendered,
    }
}

fn parse_options(resident: &Resident, prompt: &str, tools: Option<(Family, &ToolRequest)>) -> ParseOptions {
    let start = |tags: Tags| (tags, tags.start(prompt));
    ParseOptions {
        calls: tools.map(|(family, tools)| (family, tools.tools.clone())),
        reasoning: resident.speech.reasoning.map(start),
        harmony: resident.speech.calls == Some(Family::Harmony),
        only_one_call: tools.is_some_and(|(_, tools)| !tools.parallel),
    }
}

/// `chat_template_kwargs` with the switches that have a name of their own. A switch that the template does not know
/// would be without effect, so it is refused, unless it says what holds anyway.
fn template_kwargs(
    options: &TemplateOptions,
    mentions: impl Fn(&str) -> bool,
) -> Result<Map<String, Value>, ApiError> {
    let mut kwargs = options.kwargs.clone();
    let mut put = |name: &str, value: Value, is_moot: bool| {
        if !mentions(name) {
            let message = format!("`{name}` is not supported: the model's chat template does not know it");
            return if is_moot { Ok(()) } else { Err(ApiError::unsupported(name, message)) };
        }
        match kwargs.insert(name.to_owned(), value.clone()) {
            Some(other) if other != value => {
                let message = format!("`{name}` and `chat_template_kwargs.{name}` differ; give one of them");
                Err(ApiError::invalid(name, message))
            }
            _ => Ok(()),
        }
    };
    if let Some(thinking) = options.wishes_thinking
        && mentions("enable_thinking")
    {
        put("enable_thinking", Value::Bool(thinking), true)?;
    }
    let effort = options.reasoning_effort.as_deref();
    // Templates with a switch and no degrees: any effort but none is on.
    let by_switch = !mentions("reasoning_effort") && mentions("enable_thinking");
    match (options.enable_thinking, effort) {
        (None, Some(effort)) if by_switch => {
            put("enable_thinking", Value::Bool(effort != "none"), effort == "none")?;
        }
        (Some(thinking), Some(effort)) if by_switch && thinking != (effort != "none") => {
            let message = "`reasoning_effort` and `enable_thinking` contradict each other";
            return Err(ApiError::invalid("reasoning_effort", message));
        }
        (thinking, effort) => {
            if let Some(thinking) = thinking {
                put("enable_thinking", Value::Bool(thinking), !thinking)?;
            }
            if let Some(effort) = effort.filter(|_| !by_switch) {
                put("reasoning_effort", Value::String(effort.to_owned()), effort == "none")?;
            }
        }
    }
    Ok(kwargs)
}

fn render(template: &ChatTemplate, input: &TemplateInput<'_>) -> Result<String, ApiError> {
    template.render(input).map_err(|error| match error {
        TemplateError::Missing => ApiError::unsupported("messages", error.to_string()),
        TemplateError::Raised { message } => ApiError::invalid(
            "messages",
            format!("the model's chat template refuses these messages: {message}"),
        ),
        // Whether the template or the conversation is at fault cannot be told; another conversation may do.
        other => ApiError::invalid("messages", other.to_string()),
    })
}
