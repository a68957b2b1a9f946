//! A checked wire request and a loaded model → what the engine gets. On the caller's side: template, tokens, sampling.

use std::sync::Arc;
use std::time::Instant;

use duet_core::request::{GenerateRequest, LogprobsRequest};
use duet_core::sampling::{SamplingParams, sequence_breakers};
use duet_core::text::{Detokenizer, EncodeOptions, FillInMiddle, TokenId, Tokenizer};

use crate::error::ApiError;
use crate::generate::conversation::conversation;
use crate::generate::job::{Form, Job, Kind, PromptInfo, unix_seconds};
use crate::models::Resident;
use crate::replay::{Asked, Replay};
use crate::tools::parse::ParseOptions;
use crate::tools::request::{Choice, ToolRequest};
use crate::wire::openai::chat::{ChatRequest, Voice};
use crate::wire::openai::completion::{CompletionRequest, DEFAULT_MAX_TOKENS};
use crate::wire::openai::params::Params;
use crate::wire::openai::prompt::Prompt;
use crate::wire::openai::structure::Structure;

/// A request of either route.
pub(crate) enum Work {
    Chat(ChatRequest),
    Text(CompletionRequest),
}

impl Work {
    /// In whose words it is answered.
    pub(crate) fn voice(&self) -> Voice {
        match self {
            Work::Chat(request) => request.voice.clone(),
            Work::Text(_) => Voice::OpenAi,
        }
    }

    /// Whether a grammar has to be compiled for it.
    pub(crate) fn has_grammar(&self) -> bool {
        let of_calls = match self {
            Work::Chat(request) => request.tools.as_ref().is_some_and(|tools| tools.choice == Choice::Must),
            Work::Text(_) => false,
        };
        of_calls || self.params().structure.is_some()
    }

    pub(crate) fn params(&self) -> &Params {
        match self {
            Work::Chat(request) => &request.params,
            Work::Text(request) => &request.params,
        }
    }
}

/// What a request is prepared for.
pub(crate) struct ForModel {
    pub(crate) resident: Arc<Resident>,
    /// For the engine's log lines.
    pub(crate) request_id: String,
    pub(crate) deadline: Option<Instant>,
    /// Says what the model says.
    pub(crate) replay: Option<Arc<Replay>>,
}

impl ForModel {
    /// The model's answer to a prompt that ends with `last`, where a script decides it.
    fn script(&self, param: &str, last: &str, prompt: &str) -> Result<Option<Arc<[TokenId]>>, ApiError> {
        let Some(replay) = &self.replay else { return Ok(None) };
        let model = &self.resident.config.name;
        let says = replay.next(Asked { model, param, last, prompt })?;
        encode(self.resident.assets.tokenizer.as_ref(), says, false, param).map(|ids| Some(ids.into()))
    }
}

/// Templates and tokenizes; milliseconds for long prompts, so beside the async workers.
///
/// # Errors
/// What of the request this model cannot do, with the parameter's name.
pub(crate) fn prepare(work: Work, for_model: ForModel) -> Result<Job, ApiError> {
    let resident = &for_model.resident;
    if !resident.model.capabilities().generates {
        return Err(resident.cannot("generating text", "it is an encoder"));
    }
    match work {
        Work::Chat(request) => {
            let ChatRequest { params, messages, logprobs, template, tools, voice } = request;
            exclude(params.structure.as_ref(), tools.as_ref())?;
            let last = for_model.replay.as_ref().and_then(|_| Some(messages.last()?.shown_text()));
            let talk = conversation(resident, messages, &template, tools.as_ref())?;
            let script = for_model.script("messages", &last.unwrap_or_default(), &talk.text)?;
            let mut job = Preparation { kind: Kind::Chat, params, logprobs, for_model }
                .job(vec![(talk.ids, None)], talk.parse)?;
            job.form.answer_in(voice);
            for request in &mut job.requests {
                request.shown_control = talk.shown_control.clone();
                request.script = script.clone();
                if talk.constraint.is_some() {
                    request.constraint = talk.constraint.clone();
                }
            }
            Ok(job)
        }
        Work::Text(request) => {
            let tokenizer = resident.assets.tokenizer.clone();
            let gap = request.suffix.as_deref().map(|suffix| Gap::new(resident, suffix)).transpose()?;
            let one = |prompt| text_tokens(&tokenizer, prompt, request.echo, gap.as_ref());
            let prompts: Vec<Tokens> = request.prompts.into_iter().map(one).collect::<Result<_, _>>()?;
            let scripts = scripts(&prompts, &tokenizer, &for_model)?;
            let n = request.params.best_of as usize;
            let mut job = Preparation {
                kind: Kind::Text,
                params: request.params,
                logprobs: request.logprobs,
                for_model,
            }
            .job(prompts, ParseOptions::PLAIN)?;
            for (index, request) in job.requests.iter_mut().enumerate() {
                request.script = scripts.get(index / n).cloned().flatten();
            }
            Ok(job)
        }
    }
}

/// A call that has to be made leaves no room for another form.
fn exclude(structure: Option<&Structure>, tools: Option<&ToolRequest>) -> Result<(), ApiError> {
    match (structure, tools) {
        (Some(Structure { param, .. }), Some(tools)) if tools.choice == Choice::Must => {
            let message = format!("`{param}` and a `tool_choice` that asks for a call exclude each other");
            Err(ApiError::invalid(param.clone(), message))
        }
        _ => Ok(()),
    }
}

/// What a script says to each prompt; empty without a script.
fn scripts(
    prompts: &[Tokens],
    tokenizer: &Arc<dyn Tokenizer>,
    for_model: &ForModel,
) -> Result<Vec<Option<Arc<[TokenId]>>>, ApiError> {
    if for_model.replay.is_none() {
        return Ok(Vec::new());
    }
    let one = |(ids, _): &Tokens| {
        let text = decode(tokenizer, ids);
        for_model.script("prompt", &text, &text)
    };
    prompts.iter().map(one).collect()
}

pub(crate) fn encode(
    tokenizer: &dyn Tokenizer,
    text: &str,
    add_special: bool,
    param: &str,
) -> Result<Vec<TokenId>, ApiError> {
    tokenizer
        .encode(text, EncodeOptions { add_special, parse_special: true })
        .map_err(|error| ApiError::invalid(param, error.to_string()))
}

type Tokens = (Vec<TokenId>, Option<Arc<str>>);

fn text_tokens(
    tokenizer: &Arc<dyn Tokenizer>,
    prompt: Prompt,
    echo: bool,
    gap: Option<&Gap>,
) -> Result<Tokens, ApiError> {
    let (ids, text) = match prompt {
        Prompt::Text(text) => {
            let ids = encode(tokenizer.as_ref(), &text, gap.is_none(), "prompt")?;
            (ids, echo.then(|| text.into()))
        }
        Prompt::Ids(ids) => {
            let text = echo.then(|| decode(tokenizer, &ids).into());
            (ids, text)
        }
    };
    match gap {
        Some(gap) => {
            let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
            Ok((gap.marks.prompt(bos, &ids, &gap.after), text))
        }
        None => Ok((ids, text)),
    }
}

/// What stands behind the place that is to be filled, and how this model is told.
struct Gap {
    marks: FillInMiddle,
    after: Vec<TokenId>,
}

impl Gap {
    fn new(resident: &Resident, suffix: &str) -> Result<Self, ApiError> {
        let tokenizer = resident.assets.tokenizer.as_ref();
        let Some(marks) = tokenizer.fill_in_middle() else {
            let message = format!(
                "`suffix` is not supported by model `{}` on engine `{}`: it has no tokens for filling in the middle",
                resident.config.name,
                resident.model.info().backend
            );
            return Err(ApiError::unsupported("suffix", message));
        };
        Ok(Self { marks, after: encode(tokenizer, suffix, false, "suffix")? })
    }
}

pub(crate) fn decode(tokenizer: &Arc<dyn Tokenizer>, ids: &[TokenId]) -> String {
    let mut detokenizer = Detokenizer::new(tokenizer.clone());
    let mut text = String::new();
    for id in ids {
        text.push_str(detokenizer.push(*id));
    }
    text.push_str(detokenizer.flush());
    text
}

struct Preparation {
    kind: Kind,
    params: Params,
    logprobs: Option<u32>,
    for_model: ForModel,
}

impl Preparation {
    fn job(self, prompts: Vec<Tokens>, parse: ParseOptions) -> Result<Job, ApiError> {
        self.check(&prompts)?;
        let Self { kind, params, logprobs, for_model } = self;
        let ForModel { resident, request_id, deadline, .. } = for_model;
        let sampling = sampling(&params, &resident)?;
        let constraint = params
            .structure
            .as_ref()
            .map(|asked| asked.compile(&resident, parse.opened_thinking()))
            .transpose()?;
        let context = resident.model.capabilities().context_length;
        let default_max_tokens = if kind == Kind::Chat { context } else { DEFAULT_MAX_TOKENS };
        let max_tokens =
            params.max_tokens.or(resident.config.sampling.max_tokens).unwrap_or(default_max_tokens);
        let first_seed = params.sampling.seed().unwrap_or_else(rand::random);
        let id = format!("{}{:032x}", kind.id_prefix(), rand::random::<u128>());
        let mut requests = Vec::with_capacity(prompts.len() * params.best_of as usize);
        // The best ones are chosen by their logprobs.
        let n_top = logprobs.or((params.best_of > params.n).then_some(0));
        let answer_logprobs = n_top.map(|n_top| LogprobsRequest { n_top });
        for (ids, echo) in &prompts {
            // Without tokens to generate, the engine has to have something to do.
            let n_top = logprobs.or((max_tokens == 0).then_some(0)).filter(|_| echo.is_some());
            for choice in 0..u64::from(params.best_of) {
                let seed = first_seed.wrapping_add(choice);
                requests.push(GenerateRequest {
                    min_tokens: params.min_tokens,
                    sampling: SamplingParams { seed, ..sampling.clone() },
                    stop: params.stop.clone(),
                    stop_tokens: params.stop_token_ids.clone(),
                    ignore_eos: params.ignore_eos,
                    continues_prompt: kind == Kind::Text,
                    logprobs: answer_logprobs,
                    prompt_logprobs: n_top.map(|n_top| LogprobsRequest { n_top }),
                    constraint: constraint.clone(),
                    deadline,
                    priority: params.priority,
                    use_prefix_cache: params.cache_prompt,
                    ..GenerateRequest::new(request_id.clone(), ids.clone(), max_tokens)
                });
            }
        }
        let info = |(ids, echo): Tokens| PromptInfo {
            n_tokens: ids.len(),
            scored: (echo.is_some() && logprobs.is_some()).then(|| ids.as_slice().into()),
            echo,
            ids: params.return_token_ids.then(|| ids.into()),
        };
        let form = Form {
            kind,
            id,
            created: unix_seconds(),
            model: params.model,
            prompts: prompts.into_iter().map(info).collect(),
            n: params.best_of as usize,
            n_kept: params.n as usize,
            stop: params.stop,
            logprobs: logprobs.is_some(),
            return_token_ids: params.return_token_ids,
            include_usage: params.include_usage,
            voice: Voice::OpenAi,
            sampling,
            parse,
            resident,
        };
        Ok(Job { form, requests })
    }

    /// What depends on the model and concerns all prompts: the engine would say it too, but only when a prompt's turn
    /// comes.
    fn check(&self, prompts: &[Tokens]) -> Result<(), ApiError> {
        let capabilities = self.for_model.resident.model.capabilities();
        let most = capabilities.max_sequences;
        for (name, number) in [("n", self.params.n), ("best_of", self.params.best_of)] {
            if number > most {
                let message = format!(
                    "`{name}` must be at most {most}, the sequences that model runs at once; got {number}"
                );
                return Err(ApiError::invalid(name, message));
            }
        }
        let vocab_size = self.for_model.resident.assets.tokenizer.vocab_size();
        let known = |ids: &[TokenId]| ids.iter().copied().find(|id| *id >= vocab_size);
        if let Some(id) = known(&self.params.stop_token_ids) {
            let message =
                format!("`stop_token_ids` names token {id}, and the vocabulary ends at {vocab_size}");
            return Err(ApiError::invalid("stop_token_ids", message));
        }
        let context_length = capabilities.context_length.min(capabilities.kv_tokens) as usize;
        let field = self.kind.prompt_field();
        for (index, (ids, _)) in prompts.iter().enumerate() {
            let at = if prompts.len() > 1 { format!("{field}[{index}]") } else { field.to_owned() };
            if ids.is_empty() {
                return Err(ApiError::invalid(at.clone(), format!("`{at}` has no tokens")));
            }
            if let Some(id) = known(ids) {
                let message = format!("`{at}` has token id {id}, and the vocabulary ends at {vocab_size}");
                return Err(ApiError::invalid(at, message));
            }
            let n_prompt_tokens = ids.len();
            let n_wanted = usize::from(self.params.max_tokens != Some(0));
            if n_prompt_tokens + n_wanted > context_length {
                let refusal =
                    duet_core::BackendError::ContextLengthExceeded { n_prompt_tokens, context_length };
                return Err(ApiError { param: Some(at), ..ApiError::from(refusal) });
            }
        }
        Ok(())
    }
}

fn sampling(params: &Params, resident: &Resident) -> Result<SamplingParams, ApiError> {
    let tokenizer = resident.assets.tokenizer.as_ref();
    let breakers = breaker_tokens(tokenizer, &params.sampling.dry_breakers()?)?;
    let model = &resident.described.info.generation_defaults;
    params.sampling.resolve(&resident.config.sampling, model, breakers, tokenizer.vocab_size())
}

/// Every token whose text contains one of the breakers.
fn breaker_tokens(tokenizer: &dyn Tokenizer, breakers: &[&str]) -> Result<Vec<TokenId>, ApiError> {
    let mut ids = Vec::new();
    for (index, breaker) in breakers.iter().enumerate() {
        let found = sequence_breakers(tokenizer, &[(*breaker).to_owned()]);
        if found.is_empty() {
            let path = format!("dry_sequence_breakers[{index}]");
            return Err(ApiError::invalid(path, "no token of this model contains that text"));
        }
        ids.extend(found);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}
