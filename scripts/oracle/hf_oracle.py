"""Reference logits from transformers: float32, CPU, eager attention, no cache."""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM


class HfModel:
    """A checkpoint directory loaded for reference computations."""

    def __init__(self, folder: Path):
        torch.set_num_threads(1)
        self.model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
        )
        assert not report["missing_keys"] and not report["unexpected_keys"], report
        self.model.eval()

    @torch.no_grad()
    def logits(self, ids: list[int]) -> np.ndarray:
        """[n_tokens, vocab] float32."""
        out = self.model(torch.tensor([ids]), use_cache=False).logits[0]
        assert out.dtype == torch.float32
        return out.numpy()
