#!/usr/bin/env python3
"""What constrained output costs: decode speed under a JSON schema beside that of free text, in turns, on a running server.

    target/release/duet serve --config duet.toml          # two models of one file, on either engine
    scripts/bench-constraints.py http://127.0.0.1:8080 smol-gguf smol-mlx [--pairs 15] [--tokens 96]

Each pair is a free and a constrained request of so many tokens (nothing ends earlier: the schema wants more), in changing
order; a model's figure is the median over its pairs of constrained ÷ free decode time per token, with the interval that holds
the median at 95 % (order statistics). The first pair warms up and is not counted. Needs Python alone.
"""

import argparse
import json
import statistics
import urllib.request
from math import comb

SCHEMA = {
    "type": "array", "minItems": 200,
    "items": {
        "type": "object", "required": ["name", "age", "kind", "notes"], "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "minLength": 3, "maxLength": 24}, "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "kind": {"enum": ["cat", "dog", "bird"]},
            "notes": {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 40}},
        },
    },
}


def decode_ms(url: str, model: str, tokens: int, constrained: bool, seed: int) -> float:
    """Milliseconds per token from the first to the last one, as the engine's loop saw them."""
    body = {
        "model": model, "prompt": "A list of animals:\n", "max_tokens": tokens, "temperature": 1, "seed": seed,
        "cache_prompt": False,
    }
    if constrained:
        schema = {"name": "animals", "strict": True, "schema": SCHEMA}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    else:
        body["ignore_eos"] = True
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        timings = json.load(answer)["timings"]
    assert timings["predicted_n"] == tokens, f"{model}: {timings['predicted_n']} tokens instead of {tokens}"
    return timings["predicted_per_token_ms"]


def interval(values: list[float]) -> tuple[float, float]:
    """What holds the median at 95 %, by order statistics."""
    values, n = sorted(values), len(values)
    below, rank = 0.0, 0
    while below + comb(n, rank) / 2**n <= 0.025:
        below += comb(n, rank) / 2**n
        rank += 1
    rank = max(rank - 1, 0)
    return values[rank], values[n - 1 - rank]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=96)
    arguments = parser.parse_args()
    ratios: dict[str, list[float]] = {model: [] for model in arguments.models}
    for pair in range(arguments.pairs + 1):
        for model in arguments.models:
            order = [False, True] if pair % 2 else [True, False]
            took = {c: decode_ms(arguments.url, model, arguments.tokens, c, pair) for c in order}
            if pair:
                ratios[model].append(took[True] / took[False])
                print(f"{model} pair {pair}: free {took[False]:.2f} ms, constrained {took[True]:.2f} ms per token", flush=True)
    for model, of_model in ratios.items():
        low, high = interval(of_model)
        print(f"{model}: constrained / free = {statistics.median(of_model):.3f} ({low:.3f} to {high:.3f}), {len(of_model)} pairs")


if __name__ == "__main__":
    main()
