#!/usr/bin/env bash
# llmprobe against both engines: tests/conformance/llmprobe.sh DUET [ENGINE...]
#
# The demo model, with the template of one that thinks, says what llmprobe.jsonl tells it; all else is the server and its
# engines. Fails where a MUST does, or where Core or Extended (but for images) is not whole; see docs/conformance.md.
# What the script does not know are llmprobe's tests of the model's abilities: they end at once with a 400.
set -euo pipefail
duet=$(realpath "${1:?usage: tests/conformance/llmprobe.sh DUET [ENGINE...]}")
shift
[ $# -gt 0 ] || set -- gguf mlx
cd "$(dirname "$0")/../.."
# shellcheck source=tests/lib.sh
. tests/lib.sh

.tools/bin/python -m gguf.scripts.gguf_new_metadata --chat-template-file tests/conformance/llmprobe.jinja \
  models/SmolLM2-135M-Instruct.Q4_1.gguf "$work/model.gguf" >"$work/copy" 2>&1 || { cat "$work/copy" >&2; exit 1; }
{
  printf '[server]\nport = 0\nreplay = "%s"\n' "$PWD/tests/conformance/llmprobe.jsonl"
  both_engines 'context = 8192' 'parallel = 2' | sed 's#^path = .*#path = "model.gguf"#'
} >"$work/duet.toml"
serve

failed=
for engine in "$@"; do
  # Its exit code counts what llmprobe.mjs does not.
  HOME="$work" .tools/bin/node tests/conformance/node_modules/llmprobe/bin/dist/llmprobe.mjs "$url" --model "smol-$engine" \
    --full --no-bench --no-save --save "$work/$engine.json" --no-color --timeout 300 || true
  .tools/bin/node tests/conformance/llmprobe.mjs "$work/$engine.json" || failed="$failed $engine"
done
[ -z "$failed" ] || { echo "llmprobe failed on$failed" >&2; exit 1; }
