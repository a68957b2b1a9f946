"""Dense and quantised MLX directories of one checkpoint, by mlx-lm's own conversion, and reference logits from mlx-lm.

Reference logits are computed in float32: scales, biases, norms and dense weights are widened first, then the model
runs as mlx-lm runs it. The dequantised reference replaces each packed matrix by its float32 values s·q + β.
"""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from mlx_lm import convert
from mlx_lm.utils import dequantize_model, load_model

# Generates C++ and runs a compiler on Linux.
mx.disable_compile()


@dataclass(frozen=True)
class Variant:
    """One conversion. `bits` None means dense."""

    name: str
    dtype: str
    bits: int | None = None
    group_size: int | None = None
    overrides: dict = field(default_factory=dict)
    prompts: tuple[str, ...] = ("prompt_short",)


BOTH = ("prompt_short", "prompt_long")
VARIANTS = [
    Variant("bf16", "bfloat16"),
    Variant("f16", "float16"),
    Variant("q4g32", "bfloat16", 4, 32, prompts=BOTH),
    Variant("q8g64", "float16", 8, 64),
    Variant("mixed", "float32", 4, 32, prompts=BOTH, overrides={
        "model.embed_tokens": {"group_size": 64, "bits": 8},
        "model.layers.0.self_attn.v_proj": {"group_size": 32, "bits": 6},
        "model.layers.1.mlp.down_proj": False,
        "lm_head": {"group_size": 64, "bits": 8},
    }),
    Variant("q2g32", "float32", 2, 32),
    Variant("q3g64", "float32", 3, 64),
    Variant("q5g32", "float16", 5, 32),
    Variant("q6g64", "bfloat16", 6, 64),
]


def write_variant(variant: Variant, source: Path, target: Path) -> None:
    """Converts `source` into `target`, which is replaced."""
    shutil.rmtree(target, ignore_errors=True)
    predicate = None
    if variant.overrides:
        predicate = lambda path, _module: variant.overrides.get(path, True)
    convert(str(source), target, quantize=variant.bits is not None, q_bits=variant.bits,
            q_group_size=variant.group_size, dtype=variant.dtype, quant_predicate=predicate)
    (target / "README.md").unlink(missing_ok=True)
    refused = {path: False for path, value in variant.overrides.items() if value is False}
    if refused:
        # mlx-lm's loader accepts `false` for a module, its converter leaves the module out; files in the wild have it.
        config = json.loads((target / "config.json").read_text())
        for key in ("quantization", "quantization_config"):
            config[key] |= refused
        (target / "config.json").write_text(json.dumps(config, indent=4))


class MlxModel:
    """An MLX directory loaded by mlx-lm and widened to float32."""

    def __init__(self, folder: Path, dense: bool = False):
        self.model, self.config = load_model(folder)
        widen = lambda a: a.astype(mx.float32) if mx.issubdtype(a.dtype, mx.floating) else a
        self.model.update(tree_map(widen, self.model.parameters()))
        if dense:
            self.model = dequantize_model(self.model)
            self.model.update(tree_map(widen, self.model.parameters()))
        mx.eval(self.model.parameters())

    def logits(self, ids: list[int]) -> np.ndarray:
        """[n_tokens, vocab] float32."""
        out = self.model(mx.array([ids]))[0]
        assert out.dtype == mx.float32, out.dtype
        return np.array(out)
