#!/usr/bin/env bash
# lm-eval's local-completions over HTTP against the engines in process: tests/conformance/lm_eval.sh DUET SCORE
#
# DUET is the server, SCORE the example of this name (cargo build --release --example score -p duet). Each choice of a small
# task is scored by both, on both engines; they have to agree within 0.001.
set -euo pipefail
duet=$(realpath "${1:?usage: tests/conformance/lm_eval.sh DUET SCORE}")
score=$(realpath "${2:?usage: tests/conformance/lm_eval.sh DUET SCORE}")
cd "$(dirname "$0")/../.."
# shellcheck source=tests/lib.sh
. tests/lib.sh
root=$PWD
model=$root/models/SmolLM2-135M-Instruct.Q4_1.gguf

mkdir "$work/tasks" "$work/home"
sed "s#FACTS#$root/tests/conformance/lm-eval/facts.jsonl#" tests/conformance/lm-eval/facts.yaml >"$work/tasks/facts.yaml"
# Nothing is fetched, and nothing of the user's is read.
export HOME="$work/home" HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 OPENAI_API_KEY=none
for engine in gguf mlx; do
  # One model, since lm-eval asks for the tokenizer without a name.
  printf '[server]\nport = 0\n[models.smol]\nengine = "%s"\npath = "%s"\ncontext = 512\n' "$engine" "$model" >"$work/duet.toml"
  serve
  "$root/.tools/bin/python-lm-eval" -m lm_eval --model local-completions \
    --model_args "model=smol,base_url=$url/v1/completions,num_concurrent=2,max_retries=1,max_length=512,timeout=300" \
    --tasks duet_facts --include_path "$work/tasks" --log_samples --output_path "$work/$engine" >"$work/lm-eval.log" 2>&1 ||
    { cat "$work/lm-eval.log" >&2; exit 1; }
  kill "$server"
  wait "$server" || true
  server=
  "$root/.tools/bin/python" tests/conformance/lm-eval/compare.py "$work/$engine" "$score" "$engine" "$model"
done
