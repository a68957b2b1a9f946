#!/usr/bin/env bash
# The clients' own packages against duet, on both engines: tests/clients/run.sh target/release/duet
#
# The models say what script.jsonl tells them (`duet serve --replay`), so that whole tool loops run on a model that is far
# too small for them; prompts are evaluated, cached and streamed by the real engines.
set -euo pipefail
duet=$(realpath "${1:?usage: tests/clients/run.sh DUET}")
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
server=
finish() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  [ -z "$server" ] || wait "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

key=a-key-for-the-client-tests
echo "$key" >"$work/keys.txt"
{
  printf '[server]\nport = 0\napi_keys_file = "keys.txt"\nreplay = "%s"\n' "$PWD/tests/clients/script.jsonl"
  for engine in gguf mlx; do
    printf '[models.smol-%s]\nengine = "%s"\npath = "%s"\n' "$engine" "$engine" "$PWD/models/SmolLM2-135M-Instruct.Q4_1.gguf"
    printf 'context = 2048\nparallel = 2\nreasoning_parser = "think"\n'
  done
} >"$work/duet.toml"
"$duet" serve --config "$work/duet.toml" --log warn >"$work/out" 2>"$work/err" &
server=$!
url=
for _ in $(seq 300); do
  url=$(sed -n 's/.* listens on //p' "$work/out")
  [ -z "$url" ] || break
  kill -0 "$server" 2>/dev/null || break
  sleep 0.1
done
[ -n "$url" ] || { cat "$work/err" >&2; exit 1; }

.tools/bin/python tests/clients/agent_py.py "$url" "$key" smol-gguf smol-mlx
.tools/bin/node tests/clients/agent_node.mjs "$url" "$key" smol-gguf smol-mlx
