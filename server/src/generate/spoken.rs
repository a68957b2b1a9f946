//! One choice's text, read: content, reasoning and calls, whoever writes them to a client.

use std::collections::HashSet;

use duet_core::event::{FinishReason, Finished, TokenEvent};

use crate::tools::parse::{OutputParser, ParseOptions, Piece};
use crate::wire::openai::response::finish_reason;

/// Reads a choice as it comes.
pub(crate) struct Spoken {
    parser: Option<OutputParser>,
    ids: HashSet<String>,
    n_calls: usize,
    n_reasoning_tokens: u32,
}

impl Spoken {
    pub(crate) fn new(options: &ParseOptions) -> Self {
        let parser = (!options.is_plain()).then(|| OutputParser::new(options));
        Self { parser, ids: HashSet::new(), n_calls: 0, n_reasoning_tokens: 0 }
    }

    /// Whether all text is content.
    pub(crate) fn is_plain(&self) -> bool {
        self.parser.is_none()
    }

    /// What a token's text makes certain.
    pub(crate) fn token(&mut self, token: &TokenEvent, mut each: impl FnMut(Said<'_>)) {
        let Some(parser) = &mut self.parser else {
            if !token.text.is_empty() {
                each(Said::Content(&token.text));
            }
            return;
        };
        let was_thinking = parser.is_thinking();
        let pieces: Vec<Piece> = parser.push(&token.text).collect();
        let is_thinking = parser.is_thinking();
        if was_thinking || is_thinking || pieces.iter().any(|piece| matches!(piece, Piece::Reasoning(_))) {
            self.n_reasoning_tokens += 1;
        }
        self.say(pieces, &mut each);
    }

    /// What was held back.
    pub(crate) fn finish(&mut self, finished: &Finished, mut each: impl FnMut(Said<'_>)) {
        let Some(parser) = &mut self.parser else {
            if !finished.text.is_empty() {
                each(Said::Content(&finished.text));
            }
            return;
        };
        let mut pieces: Vec<Piece> = parser.push(&finished.text).collect();
        pieces.extend(parser.finish());
        self.say(pieces, &mut each);
    }

    fn say(&mut self, pieces: Vec<Piece>, each: &mut impl FnMut(Said<'_>)) {
        for piece in &pieces {
            match piece {
                Piece::Content(text) => each(Said::Content(text)),
                Piece::Reasoning(text) => each(Said::Reasoning(text)),
                Piece::Call { name, id } => {
                    let id = self.id(id.as_deref());
                    self.n_calls += 1;
                    each(Said::Call { index: self.n_calls - 1, id: &id, name });
                }
                Piece::Arguments(text) => {
                    each(Said::Arguments { index: self.n_calls.saturating_sub(1), text })
                }
                Piece::CallEnd => each(Said::CallEnd { index: self.n_calls.saturating_sub(1) }),
            }
        }
    }

    /// The model's own id where it is one: some templates want to see it again.
    fn id(&mut self, own: Option<&str>) -> String {
        let fits = |id: &&str| id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_graphic());
        let id = match own.filter(fits).filter(|id| !self.ids.contains(*id)) {
            Some(id) => id.to_owned(),
            None => format!("call_{:024x}", rand::random::<u128>() >> 32),
        };
        self.ids.insert(id.clone());
        id
    }

    /// OpenAI's word for the end.
    pub(crate) fn finish_reason(&self, reason: &FinishReason) -> &'static str {
        match reason {
            FinishReason::Stop(_) if self.n_calls > 0 => "tool_calls",
            reason => finish_reason(reason),
        }
    }

    /// Tokens that were thinking.
    pub(crate) fn n_reasoning_tokens(&self) -> u32 {
        self.n_reasoning_tokens
    }
}

/// Something that a choice has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    Content(&'a str),
    Reasoning(&'a str),
    Call { index: usize, id: &'a str, name: &'a str },
    Arguments { index: usize, text: &'a str },
    CallEnd { index: usize },
}

/// A part of a whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Block {
    Content(String),
    Reasoning(String),
    Call { id: String, name: String, arguments: String },
}

/// Adds what was said to the blocks, in order.
pub(crate) fn fold(blocks: &mut Vec<Block>, said: Said<'_>) {
    match (said, blocks.last_mut()) {
        (Said::Content(text), Some(Block::Content(last)))
        | (Said::Reasoning(text), Some(Block::Reasoning(last)))
        | (Said::Arguments { text, .. }, Some(Block::Call { arguments: last, .. })) => last.push_str(text),
        (Said::Content(text), _) => blocks.push(Block::Content(text.to_owned())),
        (Said::Reasoning(text), _) => blocks.push(Block::Reasoning(text.to_owned())),
        (Said::Call { id, name, .. }, _) => {
            let (id, name) = (id.to_owned(), name.to_owned());
            blocks.push(Block::Call { id, name, arguments: String::new() });
        }
        (Said::Arguments { .. } | Said::CallEnd { .. }, _) => {}
    }
}
