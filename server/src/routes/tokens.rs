//! `POST /tokenize`, `/detokenize`, `/apply-template` and `GET /tokenizer_info`: a model's text side, as llama.cpp and
//! vLLM have it, in one answer that the clients of both read.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Query, Request, State};
use axum::response::Response;
use duet_core::text::{EncodeOptions, TokenId, Tokenizer};
use serde::{Deserialize, Serialize};

use super::completions::{left_over, tell_ignored};
use super::{body, json};
use crate::app::App;
use crate::error::{ApiError, ErrorCode};
use crate::generate::conversation::conversation;
use crate::generate::prepare::decode;
use crate::models::{ModelEntry, Resident, blocking};
use crate::params::Endpoint;
use crate::record::{Record, Stage};
use crate::tools::request::take_tools;
use crate::wire::fields::Fields;
use crate::wire::openai::chat::template;
use crate::wire::openai::message::take_messages;

/// A body that was read, its model, and what nobody reads of it.
struct Asked<T> {
    what: T,
    resident: Arc<Resident>,
    ignored: Vec<String>,
}

impl<T: Send + 'static> Asked<T> {
    async fn read(
        app: &Arc<App>,
        record: &Record,
        request: Request,
        endpoint: Endpoint,
        take: impl Fn(&mut Fields) -> Result<T, ApiError>,
    ) -> Result<Self, ApiError> {
        let body = body::read(request, &app.http).await?;
        record.stage(Stage::Preparing);
        let mut fields = Fields::of(endpoint, &body)?;
        let model: Option<String> = fields.take("model")?;
        let what = take(&mut fields)?;
        let ignored = left_over(app, fields)?;
        let entry = named(app, model.as_deref())?.clone();
        record.stage(Stage::Loading);
        let resident = app.models.ready(&entry).await?;
        Ok(Self { what, resident, ignored })
    }

    /// Long texts take their time: beside the async workers.
    async fn answer<A: Serialize + Send + 'static>(
        self,
        work: impl FnOnce(T, &Resident) -> Result<A, ApiError> + Send + 'static,
    ) -> Result<Response, ApiError> {
        let Self { what, resident, ignored } = self;
        let mut response = json(blocking(move || work(what, &resident)).await??);
        tell_ignored(&mut response, &ignored);
        Ok(response)
    }
}

/// The model of this name, or the only one there is.
fn named<'a>(app: &'a App, name: Option<&str>) -> Result<&'a Arc<ModelEntry>, ApiError> {
    match (name, app.models.entries()) {
        (Some(name), _) => app.models.find(name),
        (None, [only]) => Ok(only),
        (None, _) => {
            let message = "missing required parameter `model`: more than one is configured";
            Err(ApiError::param(ErrorCode::MissingParameter, "model", message))
        }
    }
}

struct Text {
    text: String,
    add_special: bool,
    parse_special: bool,
    with_pieces: bool,
    with_strings: bool,
}

fn take_text(fields: &mut Fields) -> Result<Text, ApiError> {
    let (prompt, content) = (fields.take::<String>("prompt")?, fields.take::<String>("content")?);
    let of_llama = content.is_some();
    let text = match (prompt, content) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid(
                "content",
                "`content` and `prompt` are one parameter; give one of them",
            ));
        }
        (prompt, content) => prompt.or(content).ok_or_else(|| ApiError::missing("prompt"))?,
    };
    let add = (fields.take("add_special_tokens")?, fields.take("add_special")?);
    Ok(Text {
        text,
        // As each of them has it: vLLM adds them, llama.cpp does not.
        add_special: add.0.or(add.1).unwrap_or(!of_llama),
        parse_special: fields.take("parse_special")?.unwrap_or(true),
        with_pieces: fields.take("with_pieces")?.unwrap_or(false),
        with_strings: fields.take("return_token_strs")?.unwrap_or(false),
    })
}

#[derive(Serialize)]
struct Tokenized {
    tokens: Vec<Token>,
    count: usize,
    max_model_len: u32,
    token_strs: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Token {
    Id(TokenId),
    Piece { id: TokenId, piece: Piece },
}

/// A text, or bytes where they are no whole characters.
#[derive(Serialize)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Bytes(Vec<u8>),
}

pub(crate) async fn tokenize(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    request: Request,
) -> Result<Response, ApiError> {
    let asked = Asked::read(&app, &record, request, Endpoint::Tokenize, take_text).await?;
    asked
        .answer(|Text { text, add_special, parse_special, with_pieces, with_strings }, resident| {
            let tokenizer = resident.assets.tokenizer.as_ref();
            let ids = tokenizer
                .encode(&text, EncodeOptions { add_special, parse_special })
                .map_err(|error| ApiError::invalid("prompt", error.to_string()))?;
            let token_strs = with_strings.then(|| {
                ids.iter().map(|id| String::from_utf8_lossy(bytes(tokenizer, *id)).into_owned()).collect()
            });
            let token = |id: &TokenId| match with_pieces {
                true => Token::Piece { id: *id, piece: piece(bytes(tokenizer, *id)) },
                false => Token::Id(*id),
            };
            let tokens = ids.iter().map(token).collect();
            Ok(Tokenized { tokens, count: ids.len(), max_model_len: context(resident), token_strs })
        })
        .await
}

fn bytes(tokenizer: &dyn Tokenizer, id: TokenId) -> &[u8] {
    tokenizer.token_bytes(id).unwrap_or_default()
}

fn piece(bytes: &[u8]) -> Piece {
    match std::str::from_utf8(bytes) {
        Ok(text) => Piece::Text(text.to_owned()),
        Err(_) => Piece::Bytes(bytes.to_vec()),
    }
}

fn context(resident: &Resident) -> u32 {
    let capabilities = resident.model.capabilities();
    capabilities.context_length.min(capabilities.kv_tokens)
}

#[derive(Serialize)]
struct Detokenized {
    content: String,
    prompt: String,
}

pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    request: Request,
) -> Result<Response, ApiError> {
    let take = |fields: &mut Fields| fields.need::<Vec<TokenId>>("tokens");
    let asked = Asked::read(&app, &record, request, Endpoint::Detokenize, take).await?;
    asked
        .answer(|ids, resident| {
            let tokenizer = &resident.assets.tokenizer;
            if let Some(index) = ids.iter().position(|id| tokenizer.token_bytes(*id).is_none()) {
                let message = format!("`tokens[{index}]`: the vocabulary has no token {}", ids[index]);
                return Err(ApiError::invalid(format!("tokens[{index}]"), message));
            }
            let content = decode(tokenizer, &ids);
            Ok(Detokenized { prompt: content.clone(), content })
        })
        .await
}

#[derive(Serialize)]
struct Templated {
    prompt: String,
}

pub(crate) async fn apply_template(
    State(app): State<Arc<App>>,
    Extension(record): Extension<Arc<Record>>,
    request: Request,
) -> Result<Response, ApiError> {
    let take = |fields: &mut Fields| Ok((take_messages(fields)?, template(fields)?, take_tools(fields)?));
    let asked = Asked::read(&app, &record, request, Endpoint::ApplyTemplate, take).await?;
    asked
        .answer(|(messages, options, tools), resident| {
            let talk = conversation(resident, messages, &options, tools.as_ref())?;
            Ok(Templated { prompt: talk.text })
        })
        .await
}

#[derive(Deserialize)]
pub(crate) struct Which {
    model: Option<String>,
}

/// The names are those of a `tokenizer_config.json`, which lm-eval reads.
#[derive(Serialize)]
struct TokenizerInfo {
    model: String,
    tokenizer_class: String,
    bos_token: Option<String>,
    eos_token: Option<String>,
    pad_token: Option<String>,
    unk_token: Option<String>,
    bos_token_id: Option<TokenId>,
    eos_token_id: Option<TokenId>,
    end_of_generation_ids: Vec<TokenId>,
    add_bos_token: bool,
    vocab_size: u32,
    model_max_length: u32,
    chat_template: Option<String>,
}

pub(crate) async fn info(
    State(app): State<Arc<App>>,
    which: Result<Query<Which>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(which) = which.map_err(|error| ApiError::invalid("model", error.body_text()))?;
    let entry = named(&app, which.model.as_deref())?.clone();
    let resident = app.models.ready(&entry).await?;
    let tokenizer = resident.assets.tokenizer.as_ref();
    let written = |id: Option<TokenId>| Some(String::from_utf8_lossy(bytes(tokenizer, id?)).into_owned());
    let template = resident.assets.template.as_ref().ok();
    Ok(json(TokenizerInfo {
        model: entry.config.name.clone(),
        tokenizer_class: tokenizer.kind().to_owned(),
        bos_token: written(tokenizer.bos()),
        eos_token: written(tokenizer.eos()),
        // Prompts are never padded; clients that have to name a token take the end of a sequence.
        pad_token: written(tokenizer.eos()),
        unk_token: None,
        bos_token_id: tokenizer.bos(),
        eos_token_id: tokenizer.eos(),
        end_of_generation_ids: tokenizer.end_of_generation().to_vec(),
        add_bos_token: tokenizer.adds_bos(),
        vocab_size: tokenizer.vocab_size(),
        model_max_length: context(&resident),
        chat_template: template.and_then(|template| template.source().map(str::to_owned)),
    }))
}
