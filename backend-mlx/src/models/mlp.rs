//! The feed-forward part: SwiGLU.

use super::linear::{Linear, Projection};
use crate::tensor::{Device, Result, Tensor};

/// `down(silu(gate(x)) · up(x))`.
#[derive(Debug)]
pub(crate) struct Mlp {
    /// Gate above up, `[2 · intermediate, hidden]`.
    pub(crate) gate_up: Projection,
    pub(crate) down: Linear,
    pub(crate) intermediate: usize,
    pub(crate) device: Device,
}

impl Mlp {
    /// `[n, hidden]` to `[n, hidden]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (n, width) = (x.len(0), self.intermediate);
        let both = self.gate_up.forward(x)?;
        if self.device == Device::Cpu
            && let Some(gated) = both.swiglu_on_cpu()?
        {
            return self.down.forward(&gated);
        }
        let gate = both.slice(&[0, 0], &[n, width])?;
        let up = both.slice(&[0, width], &[n, 2 * width])?;
        let gate = match self.device {
            Device::Cpu => gate.silu_on_cpu()?,
            Device::Gpu => gate.silu()?,
        };
        self.down.forward(&gate.multiply(&up)?)
    }

    /// Its matrices.
    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.gate_up.linears().chain([&self.down])
    }

    pub(crate) fn n_bytes(&self) -> usize {
        self.gate_up.n_bytes() + self.down.n_bytes()
    }
}
