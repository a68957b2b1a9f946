#!/usr/bin/env bash
# Coding agents' command lines against duet, on both engines: tests/agents/run.sh target/release/duet
#
# Each gets a task that takes three turns (read a file, write one, say so). The models say what script.jsonl tells them; the
# agents' tools, their prompts, both engines and their prefix caches are real.
set -euo pipefail
duet=$(realpath "${1:?usage: tests/agents/run.sh DUET}")
cd "$(dirname "$0")/../.."
# shellcheck source=tests/lib.sh
. tests/lib.sh

key=a-key-for-the-agent-tests
echo "$key" >"$work/keys.txt"
mkdir "$work/project" "$work/home"
sed "s#@FOLDER@#$work/project#g" tests/agents/script.jsonl >"$work/script.jsonl"
{
  printf '[server]\nport = 0\napi_keys_file = "keys.txt"\nreplay = "script.jsonl"\n'
  both_engines 'context = 8192' 'parallel = 2'
} >"$work/duet.toml"
serve

.tools/bin/python tests/agents/agents.py "$url" "$key" "$work" smol-gguf smol-mlx
