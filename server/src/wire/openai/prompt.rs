//! The `prompt` of `/v1/completions`: a text, texts, token ids, or lists of token ids.

use std::fmt;

use duet_core::text::TokenId;
use serde::de::{Deserialize, Deserializer, SeqAccess, Unexpected, Visitor};

use crate::error::ApiError;

/// One prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Prompt {
    /// To be tokenized.
    Text(String),
    /// Taken as they are.
    Ids(Vec<TokenId>),
}

/// Most prompts of one request, as OpenAI has it.
const MOST_PROMPTS: usize = 2048;

#[derive(Debug)]
enum Item {
    Text(String),
    Id(TokenId),
    Ids(Vec<TokenId>),
}

struct Id(TokenId);

/// A prompt field as written; [`PromptField::prompts`] checks what serde cannot.
#[derive(Debug)]
pub(crate) struct PromptField(Vec<Item>, bool);

impl PromptField {
    /// The prompts, at least one, none of them an empty list of ids.
    ///
    /// # Errors
    /// `invalid_value` for an empty list, too many prompts, or a mixture.
    pub(crate) fn prompts(self) -> Result<Vec<Prompt>, ApiError> {
        self.named("prompt")
    }

    /// As [`PromptField::prompts`], for a field of another name.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn named(self, name: &str) -> Result<Vec<Prompt>, ApiError> {
        let Self(items, is_list) = self;
        if items.is_empty() {
            return Err(ApiError::invalid(name, format!("`{name}` must not be an empty list")));
        }
        if items.iter().all(|item| matches!(item, Item::Id(_))) {
            let ids =
                items.into_iter().filter_map(|item| if let Item::Id(id) = item { Some(id) } else { None });
            return Ok(vec![Prompt::Ids(ids.collect())]);
        }
        if items.len() > MOST_PROMPTS {
            let message =
                format!("`{name}` has {} entries, more than the limit of {MOST_PROMPTS}", items.len());
            return Err(ApiError::invalid(name, message));
        }
        let texts = matches!(items[0], Item::Text(_));
        let prompt = |(index, item): (usize, Item)| match item {
            Item::Text(text) if texts => Ok(Prompt::Text(text)),
            Item::Ids(ids) if !texts && !ids.is_empty() => Ok(Prompt::Ids(ids)),
            Item::Ids(ids) if ids.is_empty() => Err(ApiError::invalid(
                format!("{name}[{index}]"),
                format!("`{name}[{index}]` must not be an empty list of token ids"),
            )),
            _ => {
                let message =
                    format!("`{name}` must be all strings, all token ids, or all lists of token ids");
                let at = if is_list { format!("{name}[{index}]") } else { name.to_owned() };
                Err(ApiError::invalid(at, message))
            }
        };
        items.into_iter().enumerate().map(prompt).collect()
    }
}

impl<'de> Deserialize<'de> for PromptField {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Field;
        impl<'de> Visitor<'de> for Field {
            type Value = PromptField;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a string, a list of strings, a list of token ids, or a list of lists of token ids",
                )
            }

            fn visit_str<E>(self, text: &str) -> Result<PromptField, E> {
                Ok(PromptField(vec![Item::Text(text.to_owned())], false))
            }

            fn visit_string<E>(self, text: String) -> Result<PromptField, E> {
                Ok(PromptField(vec![Item::Text(text)], false))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<PromptField, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(PromptField(items, true))
            }
        }
        deserializer.deserialize_any(Field)
    }
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a token id or a list of token ids")
            }

            fn visit_str<E>(self, text: &str) -> Result<Item, E> {
                Ok(Item::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Item, E> {
                Ok(Item::Text(text))
            }

            fn visit_u64<E: serde::de::Error>(self, id: u64) -> Result<Item, E> {
                token_id(id).map(Item::Id)
            }

            fn visit_i64<E: serde::de::Error>(self, id: i64) -> Result<Item, E> {
                Err(E::invalid_value(Unexpected::Signed(id), &"a token id"))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Item, A::Error> {
                let mut ids = Vec::with_capacity(seq.size_hint().unwrap_or(0));
                while let Some(Id(id)) = seq.next_element()? {
                    ids.push(id);
                }
                Ok(Item::Ids(ids))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        TokenId::deserialize(deserializer).map(Id)
    }
}

fn token_id<E: serde::de::Error>(id: u64) -> Result<TokenId, E> {
    TokenId::try_from(id).map_err(|_| E::invalid_value(Unexpected::Unsigned(id), &"a token id"))
}
