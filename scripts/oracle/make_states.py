"""Writes what transformers has for the states of the tiny checkpoints, as reference for embeddings.

    python scripts/oracle/make_states.py --out tests/fixtures

oracle/states.safetensors, for each checkpoint NAME: NAME.states [70, 64] float32, the last layer's states behind its norm
for the ids of prompt_long. Needs the packages of requirements.txt and the checkpoints of make_tiny.py.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel

import oracle_file
from tiny_models import TINY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    ids = oracle_file.prompts()["prompt_long"]
    entries = {}
    for tiny in TINY:
        model = AutoModel.from_pretrained(out / tiny.name, dtype=torch.float32, attn_implementation="eager").eval()
        with torch.no_grad():
            states = model(torch.tensor([ids]), use_cache=False).last_hidden_state[0]
        entries[f"{tiny.name}.states"] = np.ascontiguousarray(states.numpy(), np.float32)
    oracle_file.save(entries, out / "oracle" / "states.safetensors", "transformers 5.23.0, float32, eager")


if __name__ == "__main__":
    main()
