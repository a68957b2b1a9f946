//! The decoder, tensor by tensor, with progress.

use duet_core::BackendError;
use duet_core::model::ModelInfo;

use super::upload::Placement;
use super::{Checkpoint, malformed};
use crate::convert::matrix::Matrix;
use crate::models::{Attention, Decoder, DecoderConfig, Family, Layer, Linear, Mlp, Rope};
use crate::tensor::{MlxError, Tensor};

/// What a load was told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LoadPlan {
    pub(crate) placement: Placement,
    /// Longest sequence that will come.
    pub(crate) context_length: usize,
}

/// Told how much is done, 0 to 1; an error ends the load.
pub(crate) type Progress<'a> = &'a dyn Fn(f32) -> Result<(), BackendError>;

/// Builds the decoder of `model`. Between layers it reports progress.
///
/// # Errors
/// `ModelFile`, `Unsupported`, `UnsupportedArchitecture`; `LoadFailed` if libmlx failed; those of `progress`.
pub(crate) fn build(
    model: &ModelInfo,
    plan: LoadPlan,
    progress: Progress<'_>,
) -> Result<Decoder, BackendError> {
    let family = Family::of(model)?;
    let config = DecoderConfig::of(model, family)?;
    let checkpoint = super::open(model, family)?;
    let builder = Builder { model, config: &config, checkpoint: checkpoint.as_ref(), plan, progress };
    let decoder = builder.decoder()?;
    let unused = checkpoint.unused();
    if let Some(first) = unused.first() {
        let what = format!("{} tensors have no place in this architecture, {first:?} for one", unused.len());
        return Err(malformed(model, what));
    }
    Ok(decoder)
}

struct Builder<'a> {
    model: &'a ModelInfo,
    config: &'a DecoderConfig,
    checkpoint: &'a dyn Checkpoint,
    plan: LoadPlan,
    progress: Progress<'a>,
}

impl Builder<'_> {
    fn decoder(&self) -> Result<Decoder, BackendError> {
        let (config, placement) = (self.config, &self.plan.placement);
        let n_layers = config.windows.len();
        let table = self.checkpoint.matrix("model.embed_tokens", config.vocab_size, config.hidden_size)?;
        let (embedding, head) = self.mlx(placement.embedding(table, config.tied))?;
        let mut layers = Vec::with_capacity(n_layers);
        for index in 0..n_layers {
            // The table and the head count as a layer each.
            (self.progress)((index + 1) as f32 / (n_layers + 2) as f32)?;
            layers.push(self.layer(index)?);
        }
        (self.progress)((n_layers + 1) as f32 / (n_layers + 2) as f32)?;
        let head = match head {
            Some(head) => head,
            None => {
                let matrix = self.checkpoint.matrix("lm_head", config.vocab_size, config.hidden_size)?;
                self.mlx(placement.linear(matrix, None))?
            }
        };
        let norm = self.norm("model.norm")?;
        let mut windows = config.windows.clone();
        windows.sort_unstable();
        windows.dedup();
        (self.progress)(1.0)?;
        Ok(Decoder {
            config: config.clone(),
            embedding,
            layers,
            norm,
            head,
            rope: Rope::new(&config.rope, self.plan.context_length, placement.device),
            windows,
            compute: placement.compute,
            device: placement.device,
        })
    }

    fn layer(&self, index: usize) -> Result<Layer, BackendError> {
        let config = self.config;
        let path = |module: &str| format!("model.layers.{index}.{module}");
        let (q, kv) = (config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim);
        let with_bias = config.biases.qkv;
        let qkv = vec![
            self.part(&path("self_attn.q_proj"), q, config.hidden_size, with_bias)?,
            self.part(&path("self_attn.k_proj"), kv, config.hidden_size, with_bias)?,
            self.part(&path("self_attn.v_proj"), kv, config.hidden_size, with_bias)?,
        ];
        let attention = Attention {
            qkv: self.mlx(self.plan.placement.projection(qkv))?,
            out: self.linear(&path("self_attn.o_proj"), config.hidden_size, q, config.biases.out)?,
            qk_norm: if config.qk_norm { Some((self.qk_norm(index)?, config.eps)) } else { None },
            n_heads: config.n_heads,
            n_kv_heads: config.n_kv_heads,
            head_dim: config.head_dim,
            window: config.windows[index],
            scale: self.mlx(Attention::scale_for(config.head_dim, self.plan.placement.compute))?,
            device: self.plan.placement.device,
        };
        let (width, with_bias) = (config.intermediate_size, config.biases.mlp);
        let gate_up = vec![
            self.part(&path("mlp.gate_proj"), width, config.hidden_size, with_bias)?,
            self.part(&path("mlp.up_proj"), width, config.hidden_size, with_bias)?,
        ];
        let mlp = Mlp {
            gate_up: self.mlx(self.plan.placement.projection(gate_up))?,
            down: self.linear(&path("mlp.down_proj"), config.hidden_size, width, with_bias)?,
            intermediate: width,
            device: self.plan.placement.device,
        };
        Ok(Layer {
            attention_norm: self.norm(&path("input_layernorm"))?,
            attention,
            mlp_norm: self.norm(&path("post_attention_layernorm"))?,
            mlp,
        })
    }

    fn part(
        &self,
        module: &str,
        rows: usize,
        cols: usize,
        with_bias: bool,
    ) -> Result<(Matrix<'_>, Option<Vec<f32>>), BackendError> {
        let matrix = self.checkpoint.matrix(module, rows, cols)?;
        let bias = with_bias.then(|| self.checkpoint.vector(&format!("{module}.bias"), rows)).transpose()?;
        Ok((matrix, bias))
    }

    fn linear(
        &self,
        module: &str,
        rows: usize,
        cols: usize,
        with_bias: bool,
    ) -> Result<Linear, BackendError> {
        let (matrix, bias) = self.part(module, rows, cols, with_bias)?;
        self.mlx(self.plan.placement.linear(matrix, bias))
    }

    fn norm(&self, module: &str) -> Result<Tensor, BackendError> {
        let values = self.checkpoint.vector(&format!("{module}.weight"), self.config.hidden_size)?;
        self.mlx(self.plan.placement.vector(&values))
    }

    /// The norms of queries and keys as one factor per head: `[n_heads + n_kv_heads, head_dim]`.
    fn qk_norm(&self, index: usize) -> Result<Tensor, BackendError> {
        let config = self.config;
        let norm = |side: &str| {
            let name = format!("model.layers.{index}.self_attn.{side}_norm.weight");
            self.checkpoint.vector(&name, config.head_dim)
        };
        let factors = [norm("q")?.repeat(config.n_heads), norm("k")?.repeat(config.n_kv_heads)].concat();
        let flat = self.mlx(self.plan.placement.vector(&factors))?;
        self.mlx(flat.reshape(&[config.n_heads + config.n_kv_heads, config.head_dim]))
    }

    fn mlx<T>(&self, result: Result<T, MlxError>) -> Result<T, BackendError> {
        result.map_err(|error| BackendError::load_failed(&self.model.path, error))
    }
}
