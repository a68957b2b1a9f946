//! Writes MLX model directories: for tests of everything that reads them.

use std::io;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

/// A tensor to be: name, element type and shape; its data is zero.
pub type ZeroTensor = (String, Dtype, Vec<usize>);

/// A model directory to be: config.json, weight files and whatever else.
#[derive(Debug, Clone, Default)]
pub struct MlxWriter {
    /// config.json; not written if null.
    pub config: Value,
    /// Weight files: name and tensors.
    pub shards: Vec<(String, Vec<ZeroTensor>)>,
    /// Other files: name and bytes.
    pub others: Vec<(String, Vec<u8>)>,
}

impl MlxWriter {
    /// A small but complete model of `model_type`, with one weight file: two layers, hidden size 64, 4 query and 2
    /// key/value heads of 16, 32 tokens, an untied head, bf16.
    pub fn tiny(model_type: &str) -> Self {
        let config = json!({
            "model_type": model_type, "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 32,
            "max_position_embeddings": 2048, "rope_theta": 10000.0, "tie_word_embeddings": false,
            "bos_token_id": 1, "eos_token_id": 2,
        });
        let mut tensors = Vec::new();
        let mut add = |name: &str, shape: &[usize]| {
            tensors.push((format!("{name}.weight"), Dtype::BF16, shape.to_vec()));
        };
        add("model.embed_tokens", &[32, 64]);
        add("model.norm", &[64]);
        add("lm_head", &[32, 64]);
        for layer in 0..2 {
            let mut part = |name: &str, shape: &[usize]| add(&format!("model.layers.{layer}.{name}"), shape);
            part("input_layernorm", &[64]);
            part("self_attn.q_proj", &[64, 64]);
            part("self_attn.k_proj", &[32, 64]);
            part("self_attn.v_proj", &[32, 64]);
            part("self_attn.o_proj", &[64, 64]);
            part("post_attention_layernorm", &[64]);
            part("mlp.gate_proj", &[128, 64]);
            part("mlp.up_proj", &[128, 64]);
            part("mlp.down_proj", &[64, 128]);
        }
        let shards = vec![("model.safetensors".to_owned(), tensors)];
        let tokenizer = ("tokenizer.json".to_owned(), b"{}".to_vec());
        Self { config, shards, others: vec![tokenizer] }
    }

    /// Sets a field of config.json.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> &mut Self {
        self.config[key] = value.into();
        self
    }

    /// Packs every matrix: words of `bits` per value, scales and biases (bf16) per group.
    pub fn quantize(&mut self, group_size: usize, bits: usize) -> &mut Self {
        for (_, tensors) in &mut self.shards {
            let packed = std::mem::take(tensors).into_iter().flat_map(|(name, dtype, shape)| {
                let Some(module) = name.strip_suffix(".weight").filter(|_| shape.len() == 2) else {
                    return vec![(name, dtype, shape)];
                };
                let (rows, columns) = (shape[0], shape[1]);
                let groups = vec![rows, columns / group_size];
                vec![
                    (name.clone(), Dtype::U32, vec![rows, columns * bits / 32]),
                    (format!("{module}.scales"), Dtype::BF16, groups.clone()),
                    (format!("{module}.biases"), Dtype::BF16, groups),
                ]
            });
            *tensors = packed.collect();
        }
        self.set("quantization", json!({ "group_size": group_size, "bits": bits }))
    }

    /// Divides the tensors over `n` numbered files, with an index.
    pub fn shard(&mut self, n: usize) -> &mut Self {
        let all: Vec<_> =
            std::mem::take(&mut self.shards).into_iter().flat_map(|(_, tensors)| tensors).collect();
        let mut weight_map = serde_json::Map::new();
        for (index, tensors) in all.chunks(all.len().div_ceil(n)).enumerate() {
            let name = format!("model-{:05}-of-{n:05}.safetensors", index + 1);
            weight_map.extend(tensors.iter().map(|(tensor, ..)| (tensor.clone(), name.clone().into())));
            self.shards.push((name, tensors.to_vec()));
        }
        let index = json!({ "metadata": {}, "weight_map": weight_map });
        self.others.push(("model.safetensors.index.json".to_owned(), index.to_string().into_bytes()));
        self
    }

    /// Writes everything into the directory `dir`, which exists.
    ///
    /// # Errors
    /// Those of the file system; `InvalidData` for tensors that the format cannot hold.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        if !self.config.is_null() {
            std::fs::write(dir.join("config.json"), self.config.to_string())?;
        }
        for (name, tensors) in &self.shards {
            std::fs::write(dir.join(name), safetensors_bytes(tensors)?)?;
        }
        for (name, bytes) in &self.others {
            std::fs::write(dir.join(name), bytes)?;
        }
        Ok(())
    }
}

/// A safetensors file of zeros.
fn safetensors_bytes(tensors: &[ZeroTensor]) -> io::Result<Vec<u8>> {
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let n_bytes = |dtype: Dtype, shape: &[usize]| shape.iter().product::<usize>() * dtype.bitsize() / 8;
    let largest = tensors.iter().map(|(_, dtype, shape)| n_bytes(*dtype, shape)).max().unwrap_or(0);
    let zeros = vec![0; largest];
    let views = tensors.iter().map(|(name, dtype, shape)| {
        TensorView::new(*dtype, shape.clone(), &zeros[..n_bytes(*dtype, shape)]).map(|view| (name, view))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(invalid)?;
    safetensors::serialize(views, None).map_err(invalid)
}
