"""Compares the log-likelihoods that lm-eval got over HTTP with those of the engine in process.

Usage: compare.py FOLDER SCORE ENGINE MODEL   FOLDER is lm-eval's output with its samples. Exits 1 where they differ.
"""

import json
import pathlib
import subprocess
import sys

TOLERANCE = 1e-3

folder, score, engine, model = sys.argv[1:]
(samples,) = pathlib.Path(folder).rglob("samples_duet_facts_*.jsonl")
asked, got = [], []
for line in samples.read_text().splitlines():
    sample = json.loads(line)
    # Of each choice: context and continuation, and what came back.
    for name in sorted(sample["arguments"]):
        arguments = sample["arguments"][name]
        asked.append({"context": arguments["arg_0"], "continuation": arguments["arg_1"]})
    for response in sample["resps"]:
        sum_of_logprobs, is_greedy = response[0]
        got.append((float(sum_of_logprobs), str(is_greedy) == "True"))
lines = "".join(json.dumps(item) + "\n" for item in asked)
done = subprocess.run([score, engine, model], input=lines, capture_output=True, text=True, check=False)
if done.returncode != 0:
    sys.exit(f"score: {done.stderr}")
direct = [json.loads(line) for line in done.stdout.splitlines()]
if not (len(asked) == len(got) == len(direct) >= 36):
    sys.exit(f"{engine}: {len(asked)} asked, {len(got)} over HTTP, {len(direct)} in process")
worst = 0.0
for item, (over_http, greedy), own in zip(asked, got, direct):
    difference = abs(over_http - own["loglikelihood"])
    worst = max(worst, difference)
    if difference > TOLERANCE or greedy != own["is_greedy"]:
        sys.exit(f"{engine}: {item}: {over_http} {greedy} over HTTP, {own} in process")
print(f"{engine}: {len(asked)} log-likelihoods over HTTP differ from those in process by {worst:.2g} at most")
