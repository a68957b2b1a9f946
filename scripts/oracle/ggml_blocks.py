"""Random blocks of every ggml type that duet reads, and their values by ggml's own Python package.

    python scripts/oracle/ggml_blocks.py --out tests/fixtures/ggml-blocks

Per type NAME.blocks (the bytes) and NAME.f32 (the values, little-endian). Needs numpy and gguf.
"""

import argparse
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants

# Byte offsets of the f16 factors in a block: random bits there would give infinities and NaNs.
FACTORS = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "IQ4_NL": [0], "IQ4_XS": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "MXFP4": [],
}
N_VALUES = 1024


def blocks_of(name: str, rng: np.random.Generator) -> np.ndarray:
    """Bytes of N_VALUES random values."""
    if name == "F32":
        return rng.standard_normal(N_VALUES).astype("<f4").view(np.uint8)
    if name == "F16":
        return rng.standard_normal(N_VALUES).astype("<f2").view(np.uint8)
    if name == "BF16":
        # The upper halves of ordinary floats.
        return np.ascontiguousarray(rng.standard_normal(N_VALUES).astype("<f4").view("<u2")[1::2]).view(np.uint8)
    values, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    blocks = rng.integers(0, 256, (N_VALUES // values, size), dtype=np.uint8)
    for at in FACTORS[name]:
        blocks[:, at : at + 2] = rng.uniform(-0.1, 0.1, (len(blocks), 1)).astype("<f2").view(np.uint8)
    if name == "MXFP4":
        blocks[:, 0] = rng.integers(0, 200, len(blocks))  # exponents down to the subnormal ones
    return blocks.reshape(-1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.Generator(np.random.PCG64(7))
    for name in ["F32", "F16", "BF16", *FACTORS]:
        blocks = blocks_of(name, rng)
        values = quants.dequantize(blocks, GGMLQuantizationType[name]).astype("<f4").reshape(-1)
        assert values.size == N_VALUES and np.isfinite(values).all(), name
        (out / f"{name}.blocks").write_bytes(blocks.tobytes())
        (out / f"{name}.f32").write_bytes(values.tobytes())


if __name__ == "__main__":
    main()
