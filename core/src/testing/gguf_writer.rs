//! Writes GGUF files, whole or broken: for tests of everything that reads them.
//!
//! Writes what it is told, also what no reader should accept; counts, magic, version and offsets can each be falsified.

use std::io;
use std::path::Path;

use crate::model::gguf::GgmlType;

/// A metadata value as it is written.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the format's own names")]
pub enum GgufValue {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(Vec<u8>),
    U64(u64),
    I64(i64),
    F64(f64),
    /// Elements of one type, that of the first; an empty list is written as one of U32.
    Array(Vec<GgufValue>),
    /// A type number and whatever bytes follow it.
    Raw(u32, Vec<u8>),
}

impl GgufValue {
    fn type_id(&self) -> u32 {
        match self {
            Self::U8(_) => 0,
            Self::I8(_) => 1,
            Self::U16(_) => 2,
            Self::I16(_) => 3,
            Self::U32(_) => 4,
            Self::I32(_) => 5,
            Self::F32(_) => 6,
            Self::Bool(_) => 7,
            Self::String(_) => 8,
            Self::Array(_) => 9,
            Self::U64(_) => 10,
            Self::I64(_) => 11,
            Self::F64(_) => 12,
            Self::Raw(id, _) => *id,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::U8(v) => out.push(*v),
            Self::I8(v) => out.extend(v.to_le_bytes()),
            Self::U16(v) => out.extend(v.to_le_bytes()),
            Self::I16(v) => out.extend(v.to_le_bytes()),
            Self::U32(v) => out.extend(v.to_le_bytes()),
            Self::I32(v) => out.extend(v.to_le_bytes()),
            Self::F32(v) => out.extend(v.to_le_bytes()),
            Self::Bool(v) => out.push((*v).into()),
            Self::String(v) => write_string(out, v),
            Self::U64(v) => out.extend(v.to_le_bytes()),
            Self::I64(v) => out.extend(v.to_le_bytes()),
            Self::F64(v) => out.extend(v.to_le_bytes()),
            Self::Array(values) => {
                let element = values.first().map_or(4, Self::type_id);
                out.extend(element.to_le_bytes());
                out.extend((values.len() as u64).to_le_bytes());
                values.iter().for_each(|value| value.write(out));
            }
            Self::Raw(_, bytes) => out.extend(bytes),
        }
    }
}

macro_rules! from {
    ($($from:ty => $variant:ident),*) => {
        $(impl From<$from> for GgufValue {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}
from!(u8 => U8, u16 => U16, u32 => U32, i32 => I32, f32 => F32, bool => Bool, &str => String, u64 => U64, f64 => F64);

impl<T: Into<GgufValue>> From<Vec<T>> for GgufValue {
    fn from(values: Vec<T>) -> Self {
        Self::Array(values.into_iter().map(Into::into).collect())
    }
}

/// A tensor as it is written.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufTensor {
    /// Its name.
    pub name: Vec<u8>,
    /// Its lengths, fastest first.
    pub dims: Vec<u64>,
    /// The number of its type.
    pub type_id: u32,
    /// Its bytes.
    pub data: Vec<u8>,
    /// Written in place of the right offset.
    pub offset: Option<u64>,
}

/// A GGUF file to be. `Default` is an empty one of version 3.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufWriter {
    /// The first four bytes.
    pub magic: [u8; 4],
    /// The version.
    pub version: u32,
    /// Keys and values, in order; nothing prevents doubles.
    pub metadata: Vec<(Vec<u8>, GgufValue)>,
    /// Tensors, in order.
    pub tensors: Vec<GgufTensor>,
    /// Padding of the tensors' data. Written under `general.alignment` only if the caller adds that key.
    pub alignment: u64,
    /// Written in place of the right number of tensors.
    pub n_tensors: Option<u64>,
    /// Written in place of the right number of keys.
    pub n_keys: Option<u64>,
}

impl Default for GgufWriter {
    fn default() -> Self {
        Self {
            magic: *b"GGUF",
            version: 3,
            metadata: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            n_tensors: None,
            n_keys: None,
        }
    }
}

impl GgufWriter {
    /// A small but complete model of `architecture`: two layers, hidden size 64, 4 query and 2 key/value heads of 16,
    /// 32 tokens, a tied head, Q4_0 matrices of zeros.
    pub fn tiny(architecture: &str) -> Self {
        let mut file = Self::default();
        file.set("general.architecture", architecture).set("general.name", "Tiny");
        let keys: [(&str, u32); 6] = [
            ("context_length", 2048),
            ("embedding_length", 64),
            ("block_count", 2),
            ("feed_forward_length", 128),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 2),
        ];
        for (key, value) in keys {
            file.set(&format!("{architecture}.{key}"), value);
        }
        file.set("tokenizer.ggml.model", "gpt2");
        file.set("tokenizer.ggml.tokens", (0..32).map(|n| format!("t{n}")).map(string).collect::<Vec<_>>());
        file.set("tokenizer.ggml.bos_token_id", 1u32).set("tokenizer.ggml.eos_token_id", 2u32);
        file.zeros("token_embd.weight", &[64, 32], GgmlType::Q4_0);
        file.zeros("output_norm.weight", &[64], GgmlType::F32);
        for layer in 0..2 {
            let mut part = |name: &str, dims: &[u64], ty| {
                file.zeros(&format!("blk.{layer}.{name}.weight"), dims, ty);
            };
            part("attn_norm", &[64], GgmlType::F32);
            part("attn_q", &[64, 64], GgmlType::Q4_0);
            part("attn_k", &[64, 32], GgmlType::Q4_0);
            part("attn_v", &[64, 32], GgmlType::Q4_0);
            part("attn_output", &[64, 64], GgmlType::Q4_0);
            part("ffn_norm", &[64], GgmlType::F32);
            part("ffn_gate", &[64, 128], GgmlType::Q4_0);
            part("ffn_up", &[64, 128], GgmlType::Q4_0);
            part("ffn_down", &[128, 64], GgmlType::Q4_0);
        }
        file
    }

    /// Sets a key, replacing the value it has.
    pub fn set(&mut self, key: &str, value: impl Into<GgufValue>) -> &mut Self {
        let value = value.into();
        match self.metadata.iter_mut().find(|(other, _)| other == key.as_bytes()) {
            Some(entry) => entry.1 = value,
            None => self.metadata.push((key.into(), value)),
        }
        self
    }

    /// Removes a key.
    pub fn unset(&mut self, key: &str) -> &mut Self {
        self.metadata.retain(|(other, _)| other != key.as_bytes());
        self
    }

    /// Adds a tensor; `data` is expected to have the right length, and written as it is.
    pub fn tensor(&mut self, name: &str, dims: &[u64], ty: GgmlType, data: Vec<u8>) -> &mut Self {
        let (name, dims, type_id) = (name.into(), dims.to_vec(), ty.id());
        self.tensors.push(GgufTensor { name, dims, type_id, data, offset: None });
        self
    }

    /// Adds a tensor of zero bytes.
    ///
    /// # Panics
    /// If the rows are no whole number of blocks.
    pub fn zeros(&mut self, name: &str, dims: &[u64], ty: GgmlType) -> &mut Self {
        let n_bytes = ty.bytes_for(dims.iter().product()).expect("whole blocks");
        self.tensor(name, dims, ty, vec![0; n_bytes as usize])
    }

    /// The file's bytes up to the end of the tensor table, and its whole length.
    pub fn header(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.n_keys.unwrap_or(self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            write_string(&mut out, key);
            out.extend(value.type_id().to_le_bytes());
            value.write(&mut out);
        }
        let mut offset = 0;
        for tensor in &self.tensors {
            write_string(&mut out, &tensor.name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|dim| out.extend(dim.to_le_bytes()));
            out.extend(tensor.type_id.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(offset).to_le_bytes());
            offset = (offset + tensor.data.len() as u64).next_multiple_of(self.alignment);
        }
        out
    }

    /// The whole file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment as usize), 0);
            out.extend(&tensor.data);
        }
        out
    }

    /// Writes the whole file to `path`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        std::fs::write(path, self.to_bytes())
    }
}

fn string(text: String) -> GgufValue {
    GgufValue::String(text.into_bytes())
}

fn write_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}
