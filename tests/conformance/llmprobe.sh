#!/usr/bin/env bash
# llmprobe against both engines with the demo model: tests/conformance/llmprobe.sh DUET [ENGINE...]
#
# Fails where an assertion that llmprobe calls a MUST failed. The model is a very small one, which falls into loops when it
# decodes greedily; a repetition penalty, as such models are served with, keeps it out of them.
set -euo pipefail
duet=$(realpath "${1:?usage: tests/conformance/llmprobe.sh DUET [ENGINE...]}")
shift
[ $# -gt 0 ] || set -- gguf mlx
cd "$(dirname "$0")/../.."
# shellcheck source=tests/lib.sh
. tests/lib.sh

{
  printf '[server]\nport = 0\n'
  both_engines 'context = 8192' 'parallel = 2' 'repetition_penalty = 1.2'
} >"$work/duet.toml"
serve

failed=
for engine in "$@"; do
  HOME="$work" .tools/bin/node tests/conformance/node_modules/llmprobe/bin/dist/llmprobe.mjs "$url" \
    --model "smol-$engine" --no-bench --no-save --no-color --timeout 300 || failed="$failed $engine"
done
[ -z "$failed" ] || { echo "llmprobe failed on$failed" >&2; exit 1; }
