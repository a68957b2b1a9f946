//! What one answer needs from start to end: the engine's requests, and how to write what comes back.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use duet_core::request::GenerateRequest;
use duet_core::sampling::SamplingParams;
use duet_core::text::{TokenId, Tokenizer};

use crate::models::Resident;
use crate::tools::parse::ParseOptions;
use crate::wire::openai::chat::Voice;

/// Whole seconds since 1970.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Which route answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Text,
}

impl Kind {
    pub(crate) fn id_prefix(self) -> &'static str {
        match self {
            Kind::Chat => "chatcmpl-",
            Kind::Text => "cmpl-",
        }
    }

    /// The field that a prompt comes in.
    pub(crate) fn prompt_field(self) -> &'static str {
        match self {
            Kind::Chat => "messages",
            Kind::Text => "prompt",
        }
    }
}

/// One prompt of a request.
#[derive(Debug, Clone)]
pub(crate) struct PromptInfo {
    pub(crate) n_tokens: usize,
    /// Its text, if the answer begins with it (`echo`).
    pub(crate) echo: Option<Arc<str>>,
    /// Its tokens, if the answer begins with their log-probabilities.
    pub(crate) scored: Option<Arc<[TokenId]>>,
    /// Its tokens, if the answer shows them.
    pub(crate) ids: Option<Arc<[TokenId]>>,
}

/// How an answer is written.
pub(crate) struct Form {
    pub(crate) kind: Kind,
    pub(crate) id: String,
    pub(crate) created: u64,
    /// As the client named it.
    pub(crate) model: String,
    pub(crate) resident: Arc<Resident>,
    pub(crate) prompts: Vec<PromptInfo>,
    /// Choice i belongs to prompt i / n.
    pub(crate) n: usize,
    /// Of the choices of a prompt, the answer has so many: the most probable ones.
    pub(crate) n_kept: usize,
    pub(crate) stop: Vec<String>,
    pub(crate) logprobs: bool,
    pub(crate) return_token_ids: bool,
    pub(crate) include_usage: bool,
    /// In whose words it is answered.
    pub(crate) voice: Voice,
    /// What it is drawn with, after all defaults.
    pub(crate) sampling: SamplingParams,
    /// How the model's text is read.
    pub(crate) parse: ParseOptions,
}

impl Form {
    /// The answer's words, and its id in that API's manner.
    pub(crate) fn answer_in(&mut self, voice: Voice) {
        match &voice {
            Voice::OpenAi => {}
            Voice::Anthropic => self.id = format!("msg_{:032x}", rand::random::<u128>()),
            Voice::Responses(ask) => self.id.clone_from(&ask.id),
        }
        self.voice = voice;
    }

    pub(crate) fn n_choices(&self) -> usize {
        self.prompts.len() * self.n
    }

    pub(crate) fn prompt_of(&self, choice: usize) -> &PromptInfo {
        &self.prompts[self.prompt_index(choice)]
    }

    pub(crate) fn prompt_index(&self, choice: usize) -> usize {
        choice / self.n
    }

    pub(crate) fn tokenizer(&self) -> &dyn Tokenizer {
        self.resident.model.tokenizer().as_ref()
    }

    pub(crate) fn n_prompt_tokens(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.n_tokens).sum()
    }
}

/// A form and what to run for it: choice i is request i.
pub(crate) struct Job {
    pub(crate) form: Form,
    pub(crate) requests: Vec<GenerateRequest>,
}
