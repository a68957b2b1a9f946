//! The model object. Clients look for the context window under different names, so all of them are there.

use std::sync::atomic::Ordering;

use serde::Serialize;

use crate::config::ModelConfig;
use crate::error::ApiError;
use crate::models::{Described, ModelEntry, Phase};
use crate::reasoning::Tags;

/// One model of `GET /v1/models`.
#[derive(Serialize)]
pub(crate) struct ModelObject {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    aliases: Vec<String>,
    /// "inspecting", "unloaded", "loading", "ready", "crashed", "failed".
    state: &'static str,
    engine: Option<&'static str>,
    /// Why this engine.
    engine_reason: Option<String>,
    format: Option<&'static str>,
    architecture: Option<String>,
    quantization: Option<String>,
    /// What the engine holds the weights as, or would.
    weights: Option<String>,
    /// What a user should know: a slow path, an inexact conversion, kernel choices.
    notes: Vec<String>,
    context_length: Option<u32>,
    max_model_len: Option<u32>,
    max_context_length: Option<u32>,
    max_output_tokens: Option<u32>,
    limit: Limit,
    meta: Option<Meta>,
    capabilities: Capabilities,
    /// How the context and the cache were chosen.
    plan: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_progress: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ApiError>,
}

/// As models.dev has it.
#[derive(Serialize)]
struct Limit {
    context: Option<u32>,
    output: Option<u32>,
}

/// As llama.cpp has it.
#[derive(Serialize)]
struct Meta {
    n_ctx: u32,
    n_ctx_train: u32,
    context_length: u32,
    n_vocab: u32,
    n_embd: u32,
    n_params: u64,
    size: u64,
}

/// What the model can do here, on either engine.
#[derive(Serialize)]
struct Capabilities {
    chat: bool,
    completions: bool,
    streaming: bool,
    logprobs: bool,
    tools: bool,
    /// Whether it thinks before it answers.
    reasoning: bool,
    structured_output: bool,
    vision: bool,
    embeddings: bool,
    /// Whether it scores documents beside a query.
    rerank: bool,
    /// Requests that run at once, and what they share.
    max_sequences: Option<u32>,
    kv_tokens: Option<u32>,
}

impl ModelObject {
    /// From memory: no engine is asked, nothing is waited for.
    pub(crate) fn new(entry: &ModelEntry, created: u64) -> Self {
        let phase = entry.phase();
        let described = phase.described();
        let context = context(&phase);
        Self {
            id: entry.config.name.clone(),
            object: "model",
            created,
            owned_by: "duet",
            aliases: entry.config.aliases.clone(),
            state: phase.name(),
            engine: described.map(|described| described.engine),
            engine_reason: described.map(|described| described.selection.reason.clone()),
            format: described.map(|described| described.info.format.as_str()),
            architecture: described.map(|described| described.info.architecture.clone()),
            quantization: described.map(|described| described.info.quantization.clone()),
            weights: weights(&phase),
            notes: notes(&phase),
            context_length: context,
            max_model_len: context,
            max_context_length: context,
            max_output_tokens: context,
            limit: Limit { context, output: context },
            meta: described.zip(context).map(|(described, context)| meta(described, context)),
            capabilities: capabilities(&phase, &entry.config),
            plan: described.map(|described| described.plan.reason.clone()),
            load_progress: match &phase {
                Phase::Loading(loading) => Some(loading.progress.load(Ordering::Relaxed) as f32 / 1000.0),
                _ => None,
            },
            error: match &phase {
                Phase::Failed(_, error) => Some(error.as_ref().clone()),
                _ => None,
            },
        }
    }
}

fn weights(phase: &Phase) -> Option<String> {
    match phase {
        Phase::Ready(resident) => Some(resident.model.info().weights.clone()),
        other => other.described().map(|described| described.selection.probe.weights.clone()),
    }
}

fn notes(phase: &Phase) -> Vec<String> {
    let mut notes =
        phase.described().map_or_else(Vec::new, |described| described.selection.probe.notes.clone());
    if let Phase::Ready(resident) = phase {
        for note in &resident.model.info().notes {
            if !notes.contains(note) {
                notes.push(note.clone());
            }
        }
    }
    notes
}

/// The loaded context, else what a load would give.
fn context(phase: &Phase) -> Option<u32> {
    match phase {
        Phase::Ready(resident) => {
            let capabilities = resident.model.capabilities();
            Some(capabilities.context_length.min(capabilities.kv_tokens))
        }
        other => other.described().map(|described| described.plan.context),
    }
}

fn meta(described: &Described, context: u32) -> Meta {
    let info = &described.info;
    Meta {
        n_ctx: context,
        n_ctx_train: info.context_length,
        context_length: context,
        n_vocab: info.vocab_size,
        n_embd: info.hidden_size,
        n_params: info.n_params,
        size: info.weight_bytes,
    }
}

fn capabilities(phase: &Phase, config: &ModelConfig) -> Capabilities {
    let described = phase.described();
    let chat = match phase {
        Phase::Ready(resident) => resident.assets.template.is_ok(),
        other => other.described().is_some_and(|described| described.info.chat_template.is_some()),
    };
    let (max_sequences, kv_tokens) = match phase {
        Phase::Ready(resident) => {
            let capabilities = resident.model.capabilities();
            (Some(capabilities.max_sequences), Some(capabilities.kv_tokens))
        }
        _ => (described.map(|d| d.plan.parallel), described.map(|d| d.plan.kv_tokens)),
    };
    let (tools, reasoning) = speech(phase, config);
    let Does { generates, embeds, ranks } = Does::of(phase);
    let chat = chat && generates;
    Capabilities {
        chat,
        completions: generates,
        streaming: generates,
        logprobs: generates,
        tools: chat && tools,
        reasoning: chat && reasoning,
        structured_output: generates,
        vision: false,
        embeddings: embeds,
        rerank: ranks,
        max_sequences,
        kv_tokens,
    }
}

/// What a model is for.
struct Does {
    generates: bool,
    embeds: bool,
    ranks: bool,
}

impl Does {
    /// As it does when it is loaded, else what its header lets expect; nothing is known of a broken file.
    fn of(phase: &Phase) -> Self {
        match phase {
            Phase::Ready(resident) => {
                let capabilities = resident.model.capabilities();
                Self {
                    generates: capabilities.generates,
                    embeds: capabilities.embedding_width.is_some(),
                    ranks: capabilities.ranks,
                }
            }
            other => {
                let info = other.described().map(|described| &described.info);
                let ranks = info.is_some_and(|info| info.encoder && info.ranks);
                Self {
                    generates: info.is_none_or(|info| !info.encoder),
                    embeds: info.is_some() && !ranks,
                    ranks,
                }
            }
        }
    }
}

/// Whether it calls tools, and whether it thinks: as it does when it is loaded, else what its header lets expect.
fn speech(phase: &Phase, config: &ModelConfig) -> (bool, bool) {
    if let Phase::Ready(resident) = phase {
        return (resident.speech.calls.is_some(), resident.speech.reasoning.is_some());
    }
    let template = phase.described().and_then(|described| described.info.chat_template.as_deref());
    let reasoning = match config.reasoning_parser {
        "auto" => template.is_some_and(|source| Tags::of_template(source).is_some()),
        name => name != "none",
    };
    (config.tool_parser != "none", reasoning)
}
