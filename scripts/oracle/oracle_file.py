"""The oracle's file format and the two prompts.

One safetensors file per model. For each prompt P in prompt_short, prompt_long:
  P.ids            [n]        int32    the prompt
  P.logits         [n, vocab] float32  logits after each of its tokens
  P.greedy_ids     [32]       int32    greedy continuation, end-of-sequence ids ignored
  P.greedy_margin  [32]       float32  best logit minus second best at each of these steps
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

N_GREEDY = 32


def prompts() -> dict[str, list[int]]:
    """Fixed ids that are ordinary tokens in every tiny vocabulary (special ids are below 8 or above 311)."""
    rng = np.random.Generator(np.random.PCG64(20_241))
    return {name: rng.integers(8, 312, n).tolist() for name, n in (("prompt_short", 17), ("prompt_long", 70))}


def greedy(logits: Callable[[list[int]], np.ndarray], ids: list[int]) -> tuple[list[int], list[float]]:
    """Greedy continuation by whole re-evaluation, so that no cache can be at fault, and its margins."""
    ids, new, margins = list(ids), [], []
    for _ in range(N_GREEDY):
        row = logits(ids)[-1]
        second, first = np.partition(row, -2)[-2:]
        new.append(int(row.argmax()))
        margins.append(float(first - second))
        ids.append(new[-1])
    return new, margins


def collect(logits: Callable[[list[int]], np.ndarray], names=("prompt_short", "prompt_long")) -> dict[str, np.ndarray]:
    """All entries of the file format for the prompts called `names`."""
    entries = {}
    for name in names:
        ids = prompts()[name]
        new, margins = greedy(logits, ids)
        entries[f"{name}.ids"] = np.array(ids, np.int32)
        entries[f"{name}.logits"] = np.ascontiguousarray(logits(ids), np.float32)
        entries[f"{name}.greedy_ids"] = np.array(new, np.int32)
        entries[f"{name}.greedy_margin"] = np.array(margins, np.float32)
    return entries


def worst(a: np.ndarray, b: np.ndarray) -> float:
    """max |a − b| relative to max |b|."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def save(entries: dict[str, np.ndarray], path: Path, made_by: str) -> None:
    """Writes the oracle file."""
    save_file(entries, path, metadata={"made_by": made_by})
