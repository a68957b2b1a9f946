//! Chat templates: messages to the text that a model was trained on.
//!
//! Templates are Jinja programs out of model files, so nothing about them is trusted: instructions, strings and items
//! are metered, output is capped, and neither files nor other templates can be reached. One hole is known and lies in
//! the engine (minijinja 3.1.0): lists that are doubled dozens of times over (`l + l`, `[l, l]`) cost little to build
//! and are not metered when they are added once more, compared or joined to a string with `~`. Render on a thread that
//! may be lost.
//!
//! What templates see is what Python's `transformers` shows them, since that is what their authors tested against;
//! floats of extreme size are printed without exponent, which is the one difference known.

mod environment;
mod error;
mod json;
mod methods;
mod sources;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;

use minijinja::value::{Serde, Value};
use minijinja::{Environment, ErrorKind};
use serde_json::Map;

pub use error::TemplateError;
pub use sources::TemplateSources;
pub(super) use sources::token_text;

/// Fuel of a rendering: 1 is an instruction or 64 bytes made. Templates of known models use some hundreds and half a
/// unit for each byte of the conversation.
const BASE_FUEL: u64 = 100_000;
const FUEL_PER_BYTE: u64 = 4;
/// Output that is always allowed, and how much more there may be for each byte of the conversation.
const BASE_OUTPUT_BYTES: u64 = 1 << 20;
const OUTPUT_PER_BYTE: u64 = 8;
const DEFAULT: &str = "default";
const WITH_TOOLS: &str = "tool_use";

/// A model's chat template, compiled. Rendering works on the caller's thread; any number may run at once.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    sources: TemplateSources,
}

/// What a template is rendered with.
#[derive(Debug, Clone, Copy)]
pub struct TemplateInput<'a> {
    /// The conversation: an array of objects with `role`, `content` and whatever else the template knows.
    pub messages: &'a serde_json::Value,
    /// The tools' definitions, an array, where there are any.
    pub tools: Option<&'a serde_json::Value>,
    /// End with the words that begin an answer.
    pub add_generation_prompt: bool,
    /// End within the last message, so that the model goes on with it. Excludes `add_generation_prompt`.
    pub continue_final_message: bool,
    /// Further variables (`enable_thinking`, ...); they may replace special tokens, but not the fields above.
    pub kwargs: &'a Map<String, serde_json::Value>,
}

impl ChatTemplate {
    /// Compiles one template. `bos_text` and `eos_text` are the written forms of those tokens, empty for none.
    ///
    /// # Errors
    /// [`TemplateError::Malformed`].
    pub fn new(source: &str, bos_text: &str, eos_text: &str) -> Result<Self, TemplateError> {
        let texts = [("bos_token", bos_text), ("eos_token", eos_text)];
        Self::from_sources(TemplateSources {
            templates: BTreeMap::from([(DEFAULT.to_owned(), source.to_owned())]),
            special_tokens: texts.map(|(name, text)| (name.to_owned(), text.to_owned())).into(),
        })
    }

    /// Compiles all templates of a model; `default` and `tool_use` have a meaning, others are never used.
    ///
    /// # Errors
    /// [`TemplateError::Missing`] without any template, [`TemplateError::Malformed`] if one does not compile.
    pub fn from_sources(sources: TemplateSources) -> Result<Self, TemplateError> {
        if sources.templates.is_empty() {
            return Err(TemplateError::Missing);
        }
        let environment = environment::build(&sources.templates)?;
        Ok(Self { environment, sources })
    }

    /// The source of the template for conversations without tools, as the model's file has it.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.sources.templates.get(DEFAULT).map(String::as_str)
    }

    /// The sources of all templates that conversations are rendered with, that for tools included.
    pub fn all_sources(&self) -> impl Iterator<Item = &str> {
        [DEFAULT, WITH_TOOLS]
            .into_iter()
            .filter_map(|name| self.sources.templates.get(name))
            .map(String::as_str)
    }

    /// The prompt's text. It contains its special tokens in written form, a beginning-of-sequence token included if
    /// the template writes one: encode it with `parse_special` and without `add_special`.
    ///
    /// # Errors
    /// [`TemplateError::Raised`] if the template refuses the conversation, in its own words;
    /// [`TemplateError::InvalidInput`] for fields that contradict each other; [`TemplateError::LimitExceeded`] and
    /// [`TemplateError::Failed`] for templates that do too much or go wrong.
    pub fn render(&self, input: &TemplateInput<'_>) -> Result<String, TemplateError> {
        let continued = if input.continue_final_message { Some(Continued::new(input)?) } else { None };
        let messages = continued.as_ref().map_or(input.messages, |continued| &continued.messages);
        let n_bytes = n_bytes(messages) + input.tools.map_or(0, n_bytes) + map_bytes(input.kwargs);
        let context = self.context(input, messages)?;
        let text = self.run(self.name_for(input)?, context, n_bytes)?;
        match continued {
            Some(continued) => continued.cut(text),
            None => Ok(text),
        }
    }

    fn name_for(&self, input: &TemplateInput<'_>) -> Result<&'static str, TemplateError> {
        let wanted = [(WITH_TOOLS, input.tools.is_some()), (DEFAULT, true)];
        let found =
            wanted.into_iter().find(|(name, fits)| *fits && self.sources.templates.contains_key(*name));
        found.map(|(name, _)| name).ok_or(TemplateError::Missing)
    }

    fn context(
        &self,
        input: &TemplateInput<'_>,
        messages: &serde_json::Value,
    ) -> Result<Value, TemplateError> {
        let mut context: BTreeMap<&str, Value> = BTreeMap::from([("documents", Value::from(()))]);
        for (name, text) in &self.sources.special_tokens {
            context.insert(name, Value::from(text.as_str()));
        }
        for (name, value) in input.kwargs {
            context.insert(name, Value::from(Serde(value)));
        }
        let own = [
            ("messages", Value::from(Serde(messages))),
            ("tools", input.tools.map_or(Value::from(()), |tools| Value::from(Serde(tools)))),
            ("add_generation_prompt", Value::from(input.add_generation_prompt)),
        ];
        for (name, value) in own {
            if input.kwargs.contains_key(name) {
                let message =
                    format!("chat_template_kwargs cannot contain \"{name}\", which has a field of its own");
                return Err(TemplateError::InvalidInput { message });
            }
            context.insert(name, value);
        }
        Ok(Value::from(context))
    }

    fn run(&self, name: &'static str, context: Value, n_bytes: u64) -> Result<String, TemplateError> {
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(BASE_FUEL.saturating_add(FUEL_PER_BYTE * n_bytes)));
        let template = environment.get_template(name).map_err(|error| TemplateError::from_render(&error))?;
        let mut output =
            Capped { bytes: Vec::new(), left: BASE_OUTPUT_BYTES.saturating_add(OUTPUT_PER_BYTE * n_bytes) };
        match template.render_captured_to(context, &mut output) {
            Ok(_) => String::from_utf8(output.bytes)
                .map_err(|error| TemplateError::Failed { message: error.to_string(), line: None }),
            Err(error) if error.kind() == ErrorKind::WriteFailure => {
                Err(TemplateError::LimitExceeded { what: "output" })
            }
            Err(error) => Err(TemplateError::from_render(&error)),
        }
    }
}

/// A conversation whose last message is left open.
struct Continued {
    messages: serde_json::Value,
    mark: String,
}

impl Continued {
    /// Puts a mark behind the last message's text, where the rendered text is cut later: searching for the text itself
    /// would fail for templates that change it.
    fn new(input: &TemplateInput<'_>) -> Result<Self, TemplateError> {
        let invalid = |message: &str| TemplateError::InvalidInput { message: message.to_owned() };
        if input.add_generation_prompt {
            return Err(invalid("continue_final_message and add_generation_prompt exclude each other"));
        }
        let mut messages = input.messages.clone();
        let plain = messages.to_string();
        let mut mark = String::from("(the text goes on here)");
        while plain.contains(&mark) {
            mark.insert(1, '-');
        }
        let last = messages.as_array_mut().and_then(|messages| messages.last_mut());
        match last.and_then(last_text) {
            // The space behind the mark tells templates that trim from those that do not.
            Some(text) => text.extend([mark.as_str(), " "]),
            None => return Err(invalid("continue_final_message needs a last message with text")),
        }
        Ok(Self { messages, mark })
    }

    fn cut(&self, mut text: String) -> Result<String, TemplateError> {
        match text.rfind(&self.mark) {
            Some(end) => {
                let trims = !text[end + self.mark.len()..].starts_with(' ');
                text.truncate(if trims { text[..end].trim_end().len() } else { end });
                Ok(text)
            }
            None => Err(TemplateError::InvalidInput {
                message: "continue_final_message: the template does not show the last message's text"
                    .to_owned(),
            }),
        }
    }
}

/// The text of a message, or of its last text part.
fn last_text(message: &mut serde_json::Value) -> Option<&mut String> {
    match message.get_mut("content")? {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Array(parts) => {
            parts.iter_mut().rev().find_map(|part| match part.get_mut("text") {
                Some(serde_json::Value::String(text)) => Some(text),
                _ => None,
            })
        }
        _ => None,
    }
}

/// About the memory that a value costs a template.
fn n_bytes(value: &serde_json::Value) -> u64 {
    const NODE: u64 = 32;
    match value {
        serde_json::Value::String(text) => NODE + text.len() as u64,
        serde_json::Value::Array(items) => NODE + items.iter().map(n_bytes).sum::<u64>(),
        serde_json::Value::Object(map) => NODE + map_bytes(map),
        _ => NODE,
    }
}

fn map_bytes(map: &Map<String, serde_json::Value>) -> u64 {
    map.iter().map(|(key, value)| key.len() as u64 + n_bytes(value)).sum()
}

/// Collects output up to a limit.
struct Capped {
    bytes: Vec<u8>,
    left: u64,
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self
            .left
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
