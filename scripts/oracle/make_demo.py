"""Writes reference logits of the converted demo model: mlx-lm in float32 over dequantised weights.

    python scripts/oracle/make_demo.py --model models/SmolLM2-135M-Instruct-mlx --out tests/fixtures

One safetensors file, oracle/smollm2-135m-q4_1.safetensors. For P in prompt_story, prompt_code, prompt_chat:
  P.ids            [n]        int32    the prompt
  P.max_abs        [n]        float32  largest |logit| after each of its tokens
  P.top_ids        [n, 64]    int32    the 64 best tokens, best first
  P.top_logits     [n, 64]    float32  their logits
  P.sample_logits  [n, 1024]  float32  logits of ids 0, 48, 96, …
and prompt_chat.greedy_ids [m] int32, greedy_margin [m] float32: the answer up to and including the end of turn.
prompt_chat keeps its last 4 positions only: P.first_position [1] int32 says where the rows start.
"""

import argparse
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.tokenizer_utils import load as load_tokenizer

import oracle_file
from mlx_variants import MlxModel

N_TOP, STRIDE, N_CHAT_ROWS, N_ANSWER = 64, 48, 4, 32
STORY = "Once upon a time there was an old clockmaker who lived at the edge of a deep forest."
CODE = "def area(radius):\n    return 3.14159 * radius ** 2\n"
QUESTION = "What is the capital of France?"


def compress(prompt: str, ids: list[int], logits: np.ndarray, first: int = 0) -> dict[str, np.ndarray]:
    """The entries that stand for logits [n, vocab] of positions from `first`."""
    rows = logits[first:]
    top = np.argsort(-rows, axis=-1, kind="stable")[:, :N_TOP]
    return {
        f"{prompt}.ids": np.array(ids, np.int32),
        f"{prompt}.first_position": np.array([first], np.int32),
        f"{prompt}.max_abs": np.abs(rows).max(axis=-1),
        f"{prompt}.top_ids": top.astype(np.int32),
        f"{prompt}.top_logits": np.take_along_axis(rows, top, axis=-1),
        f"{prompt}.sample_logits": np.ascontiguousarray(rows[:, ::STRIDE]),
    }


def answer(model: MlxModel, ids: list[int], ends: set[int]) -> tuple[list[int], list[float]]:
    """Greedy answer with mlx-lm's cache, and each step's margin."""
    cache, new, margins = make_prompt_cache(model.model), [], []
    while len(new) < N_ANSWER and not (new and new[-1] in ends):
        row = np.array(model.model(mx.array([new[-1:] or ids]), cache=cache)[0, -1])
        second, first = np.partition(row, -2)[-2:]
        new.append(int(row.argmax()))
        margins.append(float(first - second))
    return new, margins


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    tokenizer = load_tokenizer(args.model)
    model = MlxModel(args.model, dense=True)
    entries = {}
    for prompt, text in (("prompt_story", STORY), ("prompt_code", CODE)):
        ids = tokenizer.encode(text, add_special_tokens=False)
        entries |= compress(prompt, ids, model.logits(ids))
        print(prompt, len(ids), "tokens")
    ids = tokenizer.apply_chat_template([{"role": "user", "content": QUESTION}], add_generation_prompt=True)
    logits = model.logits(ids)
    entries |= compress("prompt_chat", ids, logits, first=len(ids) - N_CHAT_ROWS)
    new, margins = answer(model, ids, {tokenizer.eos_token_id})
    print("prompt_chat", len(ids), "tokens, answer:", repr(tokenizer.decode(new)), f"smallest margin {min(margins):.3f}")
    entries["prompt_chat.greedy_ids"] = np.array(new, np.int32)
    entries["prompt_chat.greedy_margin"] = np.array(margins, np.float32)
    path = args.out / "oracle" / "smollm2-135m-q4_1.safetensors"
    oracle_file.save(entries, path, "mlx-lm 0.32.2, dequantised to float32")
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
