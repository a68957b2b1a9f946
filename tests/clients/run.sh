#!/usr/bin/env bash
# The clients' own packages against duet, on both engines: tests/clients/run.sh target/release/duet
#
# The models say what script.jsonl tells them (`duet serve --replay`), so that whole tool loops run on a model that is far
# too small for them; prompts are evaluated, cached and streamed by the real engines.
set -euo pipefail
duet=$(realpath "${1:?usage: tests/clients/run.sh DUET}")
cd "$(dirname "$0")/../.."
# shellcheck source=tests/lib.sh
. tests/lib.sh

key=a-key-for-the-client-tests
echo "$key" >"$work/keys.txt"
{
  printf '[server]\nport = 0\napi_keys_file = "keys.txt"\nreplay = "%s"\n' "$PWD/tests/clients/script.jsonl"
  both_engines 'context = 2048' 'parallel = 2' 'reasoning_parser = "think"'
} >"$work/duet.toml"
serve

.tools/bin/python tests/clients/agent_py.py "$url" "$key" smol-gguf smol-mlx
.tools/bin/node tests/clients/agent_node.mjs "$url" "$key" smol-gguf smol-mlx
