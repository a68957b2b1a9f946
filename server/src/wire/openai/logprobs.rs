//! Log-probabilities in OpenAI's two forms. The same float is printed wherever a token's number appears.

use std::borrow::Cow;
use std::sync::Arc;

use duet_core::sampling::TokenLogprobs;
use duet_core::text::{Detokenizer, TokenId, Tokenizer};
use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};

/// JSON has no minus infinity; OpenAI prints this for tokens that cannot come.
const IMPOSSIBLE: f32 = -9999.0;

fn printable(logprob: f32) -> f32 {
    if logprob.is_finite() { logprob } else { IMPOSSIBLE }
}

/// The logprobs of a chat choice, or of one chunk of it.
#[derive(Serialize)]
pub(crate) struct ChatLogprobs<'a> {
    pub(crate) content: Vec<ChatToken<'a>>,
    pub(crate) refusal: Option<()>,
}

/// One token with its alternatives.
#[derive(Serialize)]
pub(crate) struct ChatToken<'a> {
    #[serde(flatten)]
    token: Entry<'a>,
    top_logprobs: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    token: Cow<'a, str>,
    logprob: f32,
    bytes: &'a [u8],
}

impl<'a> Entry<'a> {
    fn new(tokenizer: &'a dyn Tokenizer, id: TokenId, logprob: f32) -> Self {
        let bytes = tokenizer.token_bytes(id).unwrap_or_default();
        Self { token: String::from_utf8_lossy(bytes), logprob: printable(logprob), bytes }
    }
}

impl<'a> ChatToken<'a> {
    pub(crate) fn new(tokenizer: &'a dyn Tokenizer, id: TokenId, logprobs: &TokenLogprobs) -> Self {
        let top = logprobs.top.iter().map(|(id, logprob)| Entry::new(tokenizer, *id, *logprob));
        Self { token: Entry::new(tokenizer, id, logprobs.logprob), top_logprobs: top.collect() }
    }
}

/// The logprobs of a text choice, or of one chunk of it.
#[derive(Serialize, Default)]
pub(crate) struct TextLogprobs<'a> {
    #[serde(serialize_with = "tokens")]
    tokens: Vec<Token<'a>>,
    /// None of a prompt's first token.
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Top<'a>>>,
    /// Where each token begins in the text, in characters.
    text_offset: Vec<usize>,
}

#[derive(Clone, Copy)]
struct Token<'a> {
    id: TokenId,
    bytes: &'a [u8],
}

/// Alternatives of one token: text → logprob, every key once.
struct Top<'a>(Vec<(Token<'a>, f32)>);

impl<'a> TextLogprobs<'a> {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Of a prompt: `scores` are those of its tokens but the first.
    pub(crate) fn of_prompt(
        tokenizer: &'a Arc<dyn Tokenizer>,
        ids: &[TokenId],
        scores: &[TokenLogprobs],
    ) -> Self {
        let mut all = Self::new();
        // The echoed text is made in the same way, without the blank that some vocabularies have in front.
        let mut detokenizer = Detokenizer::new(tokenizer.clone());
        let mut offset = 0;
        for (index, &id) in ids.iter().enumerate() {
            match index.checked_sub(1).and_then(|before| scores.get(before)) {
                Some(score) => all.push(tokenizer.as_ref(), id, score, offset),
                None => all.push_unscored(tokenizer.as_ref(), id, offset),
            }
            offset += detokenizer.push(id).chars().count();
        }
        all
    }

    /// Puts the tokens of another one behind.
    pub(crate) fn extend(&mut self, other: Self) {
        self.tokens.extend(other.tokens);
        self.token_logprobs.extend(other.token_logprobs);
        self.top_logprobs.extend(other.top_logprobs);
        self.text_offset.extend(other.text_offset);
    }

    fn push_unscored(&mut self, tokenizer: &'a dyn Tokenizer, id: TokenId, offset: usize) {
        self.tokens.push(Token { id, bytes: tokenizer.token_bytes(id).unwrap_or_default() });
        self.token_logprobs.push(None);
        self.top_logprobs.push(None);
        self.text_offset.push(offset);
    }

    pub(crate) fn push(
        &mut self,
        tokenizer: &'a dyn Tokenizer,
        id: TokenId,
        logprobs: &TokenLogprobs,
        offset: usize,
    ) {
        let token = |id| Token { id, bytes: tokenizer.token_bytes(id).unwrap_or_default() };
        let chosen = (token(id), printable(logprobs.logprob));
        let others = logprobs.top.iter().map(|(id, logprob)| (token(*id), printable(*logprob)));
        let mut top: Vec<_> = others.collect();
        // The chosen token is always among them.
        if !top.iter().any(|(other, _)| other.id == id) {
            top.push(chosen);
        }
        self.tokens.push(chosen.0);
        self.token_logprobs.push(Some(chosen.1));
        self.top_logprobs.push(Some(Top(top)));
        self.text_offset.push(offset);
    }
}

impl Token<'_> {
    /// The token's text; bytes that are no whole characters are spelt out, as OpenAI does.
    fn text(&self) -> Cow<'_, str> {
        match std::str::from_utf8(self.bytes) {
            Ok(text) => Cow::Borrowed(text),
            Err(_) => {
                use std::fmt::Write as _;
                let mut spelt = String::from("bytes:");
                for byte in self.bytes {
                    let _ = write!(spelt, "\\x{byte:02x}"); // writing to a String cannot fail
                }
                Cow::Owned(spelt)
            }
        }
    }
}

fn tokens<S: Serializer>(tokens: &[Token<'_>], serializer: S) -> Result<S::Ok, S::Error> {
    let mut seq = serializer.serialize_seq(Some(tokens.len()))?;
    for token in tokens {
        seq.serialize_element(&token.text())?;
    }
    seq.end()
}

impl Serialize for Top<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (index, (token, logprob)) in self.0.iter().enumerate() {
            // Some vocabularies have two tokens of the same bytes: the less probable one goes by its number.
            let taken = self.0[..index].iter().any(|(other, _)| other.bytes == token.bytes);
            match taken {
                false => map.serialize_entry(&token.text(), logprob)?,
                true => map.serialize_entry(&format!("token_id:{}", token.id), logprob)?,
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use duet_core::testing::ByteTokenizer;

    fn scored(logprob: f32, top: &[(TokenId, f32)]) -> TokenLogprobs {
        TokenLogprobs { logprob, top: top.to_vec() }
    }

    #[test]
    fn the_chosen_token_is_among_the_alternatives_with_the_same_float() {
        let tokenizer = ByteTokenizer::default();
        let mut logprobs = TextLogprobs::new();
        logprobs.push(&tokenizer, 97, &scored(-3.1234567, &[(98, -0.1)]), 0);
        let text = serde_json::to_string(&logprobs).unwrap();
        assert_eq!(
            text,
            r#"{"tokens":["a"],"token_logprobs":[-3.1234567],"top_logprobs":[{"b":-0.1,"a":-3.1234567}],"text_offset":[0]}"#
        );
    }

    #[test]
    fn partial_characters_are_spelt_out_and_infinities_printed() {
        let tokenizer = ByteTokenizer::default();
        let mut logprobs = TextLogprobs::new();
        logprobs.push(&tokenizer, 0xe2, &scored(f32::NEG_INFINITY, &[]), 7);
        let text = serde_json::to_string(&logprobs).unwrap();
        assert_eq!(
            text,
            r#"{"tokens":["bytes:\\xe2"],"token_logprobs":[-9999.0],"top_logprobs":[{"bytes:\\xe2":-9999.0}],"text_offset":[7]}"#
        );
        let chat = ChatToken::new(&tokenizer, 0xe2, &scored(-1.5, &[(97, -0.5)]));
        assert_eq!(
            serde_json::to_string(&chat).unwrap(),
            r#"{"token":"�","logprob":-1.5,"bytes":[226],"top_logprobs":[{"token":"a","logprob":-0.5,"bytes":[97]}]}"#
        );
    }

    #[test]
    fn tokens_of_the_same_text_have_keys_of_their_own() {
        let twin = |id| (Token { id, bytes: b"A" }, -0.5f32);
        let text = serde_json::to_string(&Top(vec![twin(65), twin(300)])).unwrap();
        assert_eq!(text, r#"{"A":-0.5,"token_id:300":-0.5}"#);
    }
}
