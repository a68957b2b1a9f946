//! Special tokens as a model directory's configuration files have them.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer as Library;

use super::{malformed, named};
use crate::text::template::token_text;
use crate::text::{TokenId, TokenizerError};

/// Far more than any of these files holds.
const MAX_CONFIG_BYTES: u64 = 64 << 20;

/// Which tokens begin and end texts.
#[derive(Debug)]
pub(super) struct Config {
    pub(super) bos: Option<TokenId>,
    pub(super) eos: Option<TokenId>,
    /// In rising order.
    pub(super) end_of_generation: Vec<TokenId>,
}

impl Config {
    pub(super) fn read(
        dir: &Path,
        library: &Library,
        vocab: &HashMap<String, TokenId>,
    ) -> Result<Self, TokenizerError> {
        let tokenizer = read_json(&dir.join("tokenizer_config.json"))?;
        let generation = read_json(&dir.join("generation_config.json"))?;
        let model = read_json(&dir.join("config.json"))?;
        let written = |name: &str| token_text(&tokenizer[name]).and_then(|text| library.token_to_id(text));
        let known = |id: &TokenId| library.id_to_token(*id).is_some();
        // A generation configuration replaces the model's.
        let numbered = |name: &str| {
            let sources = [&generation[name], &model[name], &model["text_config"][name]];
            let given = sources.into_iter().map(ids).find(|ids| !ids.is_empty()).unwrap_or_default();
            given.into_iter().filter(known).collect::<Vec<TokenId>>()
        };
        let eos_ids = numbered("eos_token_id");
        let eos = written("eos_token").or(eos_ids.first().copied());
        let given: BTreeSet<TokenId> = eos_ids.into_iter().chain(eos).collect();
        let end_of_generation = named::ends(vocab, given).into_iter().collect();
        let bos = written("bos_token").or(numbered("bos_token_id").first().copied());
        Ok(Self { bos, eos, end_of_generation })
    }
}

/// The ids in a number or a list of numbers; what is neither is left out.
fn ids(value: &Value) -> Vec<TokenId> {
    let id = |value: &Value| value.as_u64().and_then(|id| TokenId::try_from(id).ok());
    match value {
        Value::Array(values) => values.iter().filter_map(id).collect(),
        value => id(value).into_iter().collect(),
    }
}

/// The file's bytes.
pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>, TokenizerError> {
    let failed = |source: io::Error| TokenizerError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let n_bytes =
        fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if n_bytes as u64 > limit {
        return Err(malformed(path, format!("it is larger than the limit of {limit} bytes")));
    }
    Ok(bytes)
}

/// The file's JSON, null if there is no file.
fn read_json(path: &Path) -> Result<Value, TokenizerError> {
    match read(path, MAX_CONFIG_BYTES) {
        Err(TokenizerError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Value::Null),
        Err(error) => Err(error),
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| malformed(path, error)),
    }
}
