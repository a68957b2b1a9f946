//! Choosing context, sequences and cache so that a model fits what is free.

use super::MemoryError;
use super::kv::{KvAllocation, KvType, STEP};
use super::plan::{Bytes, MemoryPlan, arithmetic, compute_bytes};
use crate::model::ModelInfo;

/// Sequences that are decoded together unless asked otherwise: on a CPU the first few come almost for nothing.
const DEFAULT_PARALLEL: u32 = 4;
/// The cache that defaults ask for beyond the longest request's: several requests of usual length.
const DEFAULT_KV_TOKENS: u64 = 32_768;
/// Defaults leave this share of what the weights leave free, so that a second model or a browser still fits.
const DEFAULT_SHARE: (u64, u64) = (3, 4);
/// A default context below this is of no use; then the model is refused.
const LEAST_CONTEXT: u64 = 512;

/// What is asked of a model; `None`: to be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FitRequest {
    /// The longest request, prompt and completion together, in tokens.
    pub context: Option<u32>,
    /// Sequences that run at the same time.
    pub parallel: Option<u32>,
    /// Tokens in the cache over all sequences together.
    pub kv_tokens: Option<u32>,
    /// How keys and values are stored.
    pub kv_type: KvType,
    /// Who lays the cache out.
    pub allocation: KvAllocation,
    /// Tokens per forward pass at most (micro-batch or prefill chunk); for the compute estimate.
    pub n_rows: u32,
    /// Bytes of the weights once loaded, where that is not what the files hold (dense f32 of packed weights).
    pub weights_bytes: Option<u64>,
}

impl Default for FitRequest {
    fn default() -> Self {
        Self {
            context: None,
            parallel: None,
            kv_tokens: None,
            kv_type: KvType::default(),
            allocation: KvAllocation::default(),
            n_rows: 512,
            weights_bytes: None,
        }
    }
}

/// A choice that fits.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// The longest request, prompt and completion together, in tokens.
    pub context: u32,
    /// Sequences that run at the same time.
    pub parallel: u32,
    /// Tokens in the cache over all sequences together; at least `context`.
    pub kv_tokens: u32,
    /// What it takes.
    pub plan: MemoryPlan,
    /// One line: which numbers were chosen, and why not larger ones.
    pub reason: String,
}

/// Chooses what `request` leaves open so that the model fits `available_bytes`. What was asked for is kept or refused,
/// never changed.
///
/// The trained context is the default for the longest request, four sequences for `parallel`, and a cache for one
/// longest request or 32,768 tokens, whichever is more; defaults shrink to three quarters of what weights and compute
/// buffers leave, to 512 tokens at least.
///
/// # Errors
/// `InvalidRequest` for zeros, a context beyond the trained one, or a cache shorter than the context; `Insufficient`
/// with the arithmetic; `UnknownCache` for models whose cache has no rule.
pub fn fit(info: &ModelInfo, available_bytes: u64, request: FitRequest) -> Result<Fit, MemoryError> {
    validate(info, &request)?;
    let fitting = Fitting { info, available_bytes, request };
    let trained = u64::from(info.context_length.max(1));
    let parallel = request.parallel.unwrap_or(DEFAULT_PARALLEL);

    // The least that has to fit: what was asked, and otherwise the shortest useful context.
    let shortest = request.context.map_or(LEAST_CONTEXT.min(trained), u64::from);
    let least =
        |parallel| request.kv_tokens.map_or(shortest.saturating_mul(fitting.pools(parallel)), u64::from);
    let parallel = fitting.most_sequences(parallel, least)?;
    let pools = fitting.pools(parallel);
    let wanted_context = request.context.map_or(trained, u64::from);
    let kv_tokens = match request.kv_tokens {
        Some(kv_tokens) => kv_tokens.into(),
        None => {
            let all_at_once = wanted_context.saturating_mul(parallel.into());
            let wanted = wanted_context.saturating_mul(pools).max(all_at_once.min(DEFAULT_KV_TOKENS));
            fitting.most_tokens(parallel, least(parallel), wanted)?
        }
    };
    let context = request.context.map_or((kv_tokens / pools).min(trained), u64::from);
    if context.saturating_mul(pools) > kv_tokens {
        let why = format!(
            "{parallel} sequences share it equally, and the longest request may have {context} tokens"
        );
        return Err(MemoryError::InvalidRequest { param: "kv_tokens", value: kv_tokens, why });
    }
    let plan = fitting.plan(kv_tokens, parallel)?;
    let reason = fitting.reason(context, wanted_context, kv_tokens, parallel, &plan);
    let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(Fit { context: narrow(context), parallel, kv_tokens: narrow(kv_tokens), plan, reason })
}

fn validate(info: &ModelInfo, request: &FitRequest) -> Result<(), MemoryError> {
    let invalid =
        |param, value: u32, why: String| Err(MemoryError::InvalidRequest { param, value: value.into(), why });
    for (param, value) in
        [("context", request.context), ("parallel", request.parallel), ("kv_tokens", request.kv_tokens)]
    {
        if value == Some(0) {
            return invalid(param, 0, "it has to be at least 1".to_owned());
        }
    }
    match (request.context, request.kv_tokens) {
        (Some(context), _) if context > info.context_length => {
            let why = format!("the model was trained for {} tokens", info.context_length);
            invalid("context", context, why)
        }
        (Some(context), Some(kv_tokens)) if kv_tokens < context => {
            let why = format!("the longest request alone may have {context} tokens");
            invalid("kv_tokens", kv_tokens, why)
        }
        _ => Ok(()),
    }
}

/// One question with its constants.
struct Fitting<'a> {
    info: &'a ModelInfo,
    available_bytes: u64,
    request: FitRequest,
}

impl Fitting<'_> {
    fn plan(&self, kv_tokens: u64, parallel: u32) -> Result<MemoryPlan, MemoryError> {
        let Self { info, request, .. } = self;
        let kv_bytes = request.allocation.bytes(info, kv_tokens, parallel, request.kv_type)?;
        let weights = request.weights_bytes.unwrap_or(info.weight_bytes);
        Ok(MemoryPlan::new(weights, kv_bytes, compute_bytes(info, request.n_rows, kv_tokens)))
    }

    /// Into how many equal parts the cache is cut: one for each sequence in llama.cpp without a common pool.
    fn pools(&self, parallel: u32) -> u64 {
        match self.request.allocation {
            KvAllocation::LlamaCpp { unified: false, .. } => parallel.into(),
            _ => 1,
        }
    }

    /// `parallel` if it was asked for or fits with the least number of tokens, else the most that does.
    fn most_sequences(&self, parallel: u32, least: impl Fn(u32) -> u64) -> Result<u32, MemoryError> {
        let fewest = if self.request.parallel.is_some() { parallel } else { 1 };
        let mut n = parallel;
        while n > fewest && self.plan(least(n), n)?.total > self.available_bytes {
            n -= 1;
        }
        match self.plan(least(n), n)? {
            plan if plan.total <= self.available_bytes => Ok(n),
            plan => Err(self.insufficient(&plan, least(n), n)?),
        }
    }

    /// The most tokens from `least` (known to fit) to `most` within the share of memory that defaults may take.
    fn most_tokens(&self, parallel: u32, least: u64, most: u64) -> Result<u64, MemoryError> {
        let fits = |kv_tokens: u64| -> Result<bool, MemoryError> {
            let plan = self.plan(kv_tokens, parallel)?;
            let left =
                self.available_bytes.saturating_sub(plan.weights_bytes).saturating_sub(plan.compute_bytes);
            let (part, whole) = DEFAULT_SHARE;
            Ok(plan.total <= self.available_bytes && plan.kv_bytes <= left / whole * part)
        };
        if least >= most || fits(most)? {
            return Ok(most.max(least));
        }
        // In whole steps: `low` fits or is the least, `high` does not.
        let (mut low, mut high) = (least / STEP, most.div_ceil(STEP));
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match fits(middle * STEP)? {
                true => low = middle,
                false => high = middle,
            }
        }
        Ok((low * STEP).max(least))
    }

    fn insufficient(
        &self,
        plan: &MemoryPlan,
        kv_tokens: u64,
        parallel: u32,
    ) -> Result<MemoryError, MemoryError> {
        let Self { info, available_bytes, request } = self;
        let (kv_type, allocation) = (request.kv_type, request.allocation);
        let mut text = arithmetic(info, plan, kv_tokens, parallel, kv_type, allocation, *available_bytes)?;
        let without_kv = plan.total - plan.kv_bytes;
        let remedy = match self.most_that_fits(parallel, kv_tokens)? {
            Some(tokens) => format!("; {tokens} tokens would fit"),
            None if without_kv > *available_bytes => "; the weights alone do not fit".to_owned(),
            None => String::new(),
        };
        text.push_str(&remedy);
        Ok(MemoryError::Insufficient {
            need_bytes: plan.total,
            available_bytes: *available_bytes,
            arithmetic: text,
        })
    }

    /// The most tokens below `kv_tokens` that fit at all; `None` if not even one step does.
    fn most_that_fits(&self, parallel: u32, kv_tokens: u64) -> Result<Option<u64>, MemoryError> {
        let fits = |steps: u64| Ok(self.plan(steps * STEP, parallel)?.total <= self.available_bytes);
        let (mut low, mut high) = (0, kv_tokens.div_ceil(STEP));
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match fits(middle)? {
                true => low = middle,
                false => high = middle,
            }
        }
        Ok((low > 0).then_some(low * STEP))
    }

    fn reason(
        &self,
        context: u64,
        wanted_context: u64,
        kv_tokens: u64,
        parallel: u32,
        plan: &MemoryPlan,
    ) -> String {
        let request = &self.request;
        let context = match request.context {
            Some(_) => format!("context {context} as asked"),
            None if context < wanted_context => {
                format!("context {context} of the trained {wanted_context}, which does not fit")
            }
            None => format!("context {context}, as trained"),
        };
        let parallel = match request.parallel {
            Some(_) => format!("{parallel} sequences as asked"),
            None => format!("{parallel} sequences"),
        };
        let kv = match request.kv_tokens {
            Some(_) => format!("{kv_tokens} tokens of KV cache as asked"),
            None => format!("{kv_tokens} tokens of KV cache"),
        };
        format!(
            "{context}; {parallel}; {kv}: weights {} + KV {} in {} + compute about {} = {} of {} free",
            Bytes(plan.weights_bytes),
            Bytes(plan.kv_bytes),
            request.kv_type,
            Bytes(plan.compute_bytes),
            Bytes(plan.total),
            Bytes(self.available_bytes),
        )
    }
}
