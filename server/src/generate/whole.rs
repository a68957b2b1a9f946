//! An answer in one piece: the fold of the same events that a stream writes.

use duet_core::event::{FinishReason, Finished, GenerationEvent, StopCause, TokenEvent};
use duet_core::text::TokenId;
use serde::Serialize;

use crate::error::{ApiError, ErrorCode};
use crate::generate::choices::Choices;
use crate::generate::job::{Form, Kind};
use crate::generate::spoken::{Block, Spoken, fold};
use crate::wire::anthropic;
use crate::wire::openai::chat::Voice;
use crate::wire::openai::logprobs::{ChatLogprobs, ChatToken, TextLogprobs};
use crate::wire::openai::response::{Answer, AssistantMessage, ChatChoice, StopReason, Tally, TextChoice};

/// A choice as it grows.
struct Growing<'a> {
    spoken: Spoken,
    blocks: Vec<Block>,
    /// Of completions.
    text: String,
    n_chars: usize,
    chat_logprobs: Vec<ChatToken<'a>>,
    text_logprobs: TextLogprobs<'a>,
    ids: Vec<TokenId>,
    end: Option<End>,
    reason: Option<FinishReason>,
    /// Sum and number of the tokens' logprobs, where choices are compared.
    likelihood: (f64, u32),
}

impl<'a> Growing<'a> {
    fn token(&mut self, form: &'a Form, token: TokenEvent) {
        if let Some(logprobs) = &token.logprobs {
            self.likelihood.0 += f64::from(logprobs.logprob);
            self.likelihood.1 += 1;
        }
        if let Some(logprobs) = token.logprobs.as_ref().filter(|_| form.logprobs) {
            match form.kind {
                Kind::Chat => self.chat_logprobs.push(ChatToken::new(form.tokenizer(), token.id, logprobs)),
                Kind::Text => self.text_logprobs.push(form.tokenizer(), token.id, logprobs, self.n_chars),
            }
            self.n_chars += token.text.chars().count();
        }
        match form.kind {
            Kind::Chat => self.spoken.token(&token, |said| fold(&mut self.blocks, said)),
            Kind::Text => self.text.push_str(&token.text),
        }
        if form.return_token_ids {
            self.ids.push(token.id);
        }
    }

    /// The mean logprob of its tokens; a choice without tokens is the least likely.
    fn mean_logprob(&self) -> f64 {
        let (sum, n) = self.likelihood;
        if n == 0 { f64::NEG_INFINITY } else { sum / f64::from(n) }
    }

    /// Puts the prompt's log-probabilities in front, if they are wanted. The token that ended the answer gets its own behind
    /// it then: who scores prompts asks for one token more and leaves out the last, whatever it is.
    fn score_prompt(&mut self, form: &'a Form, index: usize, finished: &Finished) {
        if let Some(ids) = &form.prompt_of(index).scored {
            let answer = std::mem::take(&mut self.text_logprobs);
            let tokenizer = form.resident.model.tokenizer();
            self.text_logprobs = TextLogprobs::of_prompt(tokenizer, ids, &finished.prompt_logprobs);
            self.text_logprobs.extend(answer);
            let id = match finished.reason {
                FinishReason::Stop(StopCause::EndOfGeneration(id) | StopCause::StopToken(id)) => Some(id),
                FinishReason::Stop(_) | FinishReason::Length => None,
            };
            if let (Some(id), Some(logprobs)) = (id, &finished.end_logprobs) {
                self.text_logprobs.push(tokenizer.as_ref(), id, logprobs, self.n_chars);
            }
        }
    }

    fn end(&mut self, form: &Form, finished: &Finished) {
        match form.kind {
            Kind::Chat => self.spoken.finish(finished, |said| fold(&mut self.blocks, said)),
            Kind::Text => self.text.push_str(&finished.text),
        }
        let reason = self.spoken.finish_reason(&finished.reason);
        self.reason = Some(finished.reason.clone());
        self.end = Some((reason, StopReason::new(&finished.reason, &form.stop)));
    }
}

/// Characters of the answer before its first new token, where tokens have places in it.
fn n_chars_before(form: &Form, index: usize) -> usize {
    let prompt = form.prompt_of(index);
    prompt.scored.as_ref().and(prompt.echo.as_deref()).map_or(0, |echo| echo.chars().count())
}

/// Waits for all choices and gives the body and the counts.
///
/// # Errors
/// The first choice's failure; the others are cancelled then.
///
/// # Cancel safety
/// Dropping it cancels all choices.
pub(crate) async fn whole(form: &Form, mut choices: Choices) -> Result<(Vec<u8>, Tally), ApiError> {
    let new = |index| Growing {
        spoken: Spoken::new(&form.parse),
        blocks: Vec::new(),
        text: form.prompt_of(index).echo.as_deref().unwrap_or_default().to_owned(),
        n_chars: n_chars_before(form, index),
        chat_logprobs: Vec::new(),
        text_logprobs: TextLogprobs::new(),
        ids: Vec::new(),
        end: None,
        reason: None,
        likelihood: (0.0, 0),
    };
    let mut growing: Vec<Growing<'_>> = (0..form.n_choices()).map(new).collect();
    let mut tally = Tally::default();
    while let Some((index, event)) = choices.next().await {
        match event? {
            GenerationEvent::Token(token) => growing[index].token(form, token),
            GenerationEvent::Finished(finished) => {
                growing[index].end(form, &finished);
                growing[index].score_prompt(form, index, &finished);
                tally.add(&finished, form.prompt_index(index));
                tally.add_reasoning(growing[index].spoken.n_reasoning_tokens());
            }
        }
    }
    keep_best(form, &mut growing);
    let body = match form.kind {
        Kind::Chat if !matches!(form.voice, Voice::OpenAi) => {
            let one = growing.pop().and_then(|growing| Some((growing.blocks, growing.reason?)));
            let (blocks, reason) =
                one.ok_or_else(|| ApiError::new(ErrorCode::EngineCrashed, "the engine stopped"))?;
            foreign(form, blocks, &reason, &tally)
        }
        Kind::Chat => {
            body(form, &tally, each(growing, |index, growing, end| chat(form, index, growing, end))?)
        }
        Kind::Text => {
            body(form, &tally, each(growing, |index, growing, end| text(form, index, growing, end))?)
        }
    };
    Ok((body, tally))
}

/// Leaves each prompt its most probable choices, the best one first; earlier ones where two are alike.
fn keep_best(form: &Form, growing: &mut Vec<Growing<'_>>) {
    if form.n_kept == form.n {
        return;
    }
    let mut kept = Vec::with_capacity(form.prompts.len() * form.n_kept);
    while !growing.is_empty() {
        let mut of_prompt: Vec<_> = growing.drain(..form.n.min(growing.len())).collect();
        of_prompt.sort_by(|a, b| b.mean_logprob().total_cmp(&a.mean_logprob()));
        of_prompt.truncate(form.n_kept);
        kept.append(&mut of_prompt);
    }
    *growing = kept;
}

/// In another API's words.
fn foreign(form: &Form, blocks: Vec<Block>, reason: &FinishReason, tally: &Tally) -> Vec<u8> {
    match &form.voice {
        Voice::Responses(ask) => ask.body(form, &blocks, reason, tally),
        Voice::OpenAi | Voice::Anthropic => {
            let calls = blocks.iter().any(|block| matches!(block, Block::Call { .. }));
            anthropic::response::body(form, blocks, calls, reason, tally)
        }
    }
}

type End = (&'static str, Option<StopReason>);

/// The choices in order. One without an end cannot be (every stream has a terminal item), and none is invented here.
fn each<'a, C>(
    growing: Vec<Growing<'a>>,
    choice: impl Fn(usize, Growing<'a>, End) -> C,
) -> Result<Vec<C>, ApiError> {
    let one = |(index, mut growing): (usize, Growing<'a>)| match growing.end.take() {
        Some(end) => Ok(choice(index, growing, end)),
        None => Err(ApiError::new(ErrorCode::EngineCrashed, "the engine stopped")),
    };
    growing.into_iter().enumerate().map(one).collect()
}

fn chat<'a>(
    form: &Form,
    index: usize,
    growing: Growing<'a>,
    (finish_reason, stop_reason): End,
) -> ChatChoice<'a> {
    ChatChoice {
        index,
        message: AssistantMessage::new(growing.blocks),
        logprobs: form.logprobs.then_some(ChatLogprobs { content: growing.chat_logprobs, refusal: None }),
        finish_reason,
        stop_reason,
        token_ids: form.return_token_ids.then_some(growing.ids),
    }
}

fn text<'a>(
    form: &'a Form,
    index: usize,
    growing: Growing<'a>,
    (finish_reason, stop_reason): End,
) -> TextChoice<'a> {
    TextChoice {
        index,
        text: growing.text,
        logprobs: form.logprobs.then_some(growing.text_logprobs),
        finish_reason,
        stop_reason,
        prompt_token_ids: form.prompts[index / form.n_kept].ids.as_deref(),
        token_ids: form.return_token_ids.then_some(growing.ids),
    }
}

fn body<C: Serialize>(form: &Form, tally: &Tally, choices: Vec<C>) -> Vec<u8> {
    let answer = Answer {
        id: &form.id,
        object: match form.kind {
            Kind::Chat => "chat.completion",
            Kind::Text => "text_completion",
        },
        created: form.created,
        model: &form.model,
        system_fingerprint: &form.resident.fingerprint,
        choices,
        usage: tally.usage(),
        timings: tally.timings(&form.resident),
        prompt_token_ids: match form.kind {
            Kind::Chat => form.prompts.first().and_then(|prompt| prompt.ids.as_deref()),
            Kind::Text => None,
        },
    };
    // Strings and finite numbers only: cannot fail.
    serde_json::to_vec(&answer).unwrap_or_default()
}
