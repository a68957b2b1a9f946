//! The smallest .gguf file that describes a model.

/// Header values that tests vary.
pub(crate) struct Header {
    pub(crate) architecture: &'static str,
    pub(crate) context_length: u32,
    pub(crate) n_layers: u32,
    pub(crate) sampling_temperature: Option<f32>,
    pub(crate) chat_template: Option<&'static str>,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            architecture: "llama",
            context_length: 256,
            n_layers: 2,
            sampling_temperature: None,
            chat_template: Some("(given by the resolver)"),
        }
    }
}

const U32: u32 = 4;
const F32: u32 = 6;
const STRING: u32 = 8;
const WIDTH: u64 = 32;
const VOCAB: u64 = 260;

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Header {
    /// The file's bytes: a header, one tensor, its (zero) weights.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut pairs: Vec<(String, u32, Vec<u8>)> = Vec::new();
        let mut string = |key: &str, value: &str| {
            let mut bytes = Vec::new();
            text(&mut bytes, value);
            pairs.push((key.to_owned(), STRING, bytes));
        };
        string("general.architecture", self.architecture);
        string("tokenizer.ggml.model", "gpt2");
        if let Some(template) = self.chat_template {
            string("tokenizer.chat_template", template);
        }
        for (key, value) in [
            ("context_length", self.context_length),
            ("block_count", self.n_layers),
            ("embedding_length", WIDTH as u32),
            ("feed_forward_length", 64),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 2),
            ("vocab_size", VOCAB as u32),
        ] {
            pairs.push((format!("{}.{key}", self.architecture), U32, value.to_le_bytes().to_vec()));
        }
        if let Some(temperature) = self.sampling_temperature {
            pairs.push(("general.sampling.temp".into(), F32, temperature.to_le_bytes().to_vec()));
        }
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend(1u64.to_le_bytes());
        out.extend((pairs.len() as u64).to_le_bytes());
        for (key, kind, value) in pairs {
            text(&mut out, &key);
            out.extend(kind.to_le_bytes());
            out.extend(value);
        }
        text(&mut out, "token_embd.weight");
        out.extend(2u32.to_le_bytes());
        out.extend(WIDTH.to_le_bytes());
        out.extend(VOCAB.to_le_bytes());
        out.extend(0u32.to_le_bytes()); // F32
        out.extend(0u64.to_le_bytes());
        out.resize(out.len().next_multiple_of(32) + (WIDTH * VOCAB * 4) as usize, 0);
        out
    }
}
