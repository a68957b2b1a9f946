#!/usr/bin/env bash
# duet's pages in a headless browser: the reports of a bench and the server's page: tests/browser/run.sh target/release/duet
#
# PICTURES=FOLDER keeps pictures and prints. The browser is CHROMIUM, the one that scripts/setup.sh --verify has unpacked, or
# one on the path; without any, nothing is tested and that is said.
set -euo pipefail
duet=$(realpath "${1:?usage: tests/browser/run.sh DUET}")
cd "$(dirname "$0")/../.."
model=models/SmolLM2-135M-Instruct.Q4_1.gguf
pictures=${PICTURES:-}
[ -z "$pictures" ] || mkdir -p "$pictures"

# shellcheck source=tests/lib.sh
. tests/lib.sh

if ! .tools/bin/node --input-type=module -e "
  import { find } from '$PWD/tests/browser/browser.mjs';
  process.exit(find() ? 0 : 1)"; then
  echo '*** NOT TESTED in a browser: there is none. scripts/setup.sh --verify unpacks one on Linux x86-64; CHROMIUM=FILE names one.' >&2
  exit 0
fi

# Small, but with every chart in it.
"$duet" bench "$model" --prompt 64 --decode 8 --blocks 3 --self-blocks 3 --agreement 0 \
  --scenario streams,shared-prefix,idle --streams 1,2 --html "$work/report.html" >"$work/bench.txt"
"$duet" bench "$model" --depths 32,128,512 --decode 8 --blocks 3 --agreement 0 --html "$work/sweep.html" >"$work/sweep.txt"
# Ratios, three distributions, decoding under its ceiling, two of scenarios, memory, four figures block by block.
.tools/bin/node tests/browser/report.mjs "$work/report.html" 12 "$pictures"
# The curves, and the ratios at each depth.
.tools/bin/node tests/browser/report.mjs "$work/sweep.html" 4 "$pictures"

key=a-key-for-the-browser-tests
echo "$key" >"$work/keys.txt"
{
  printf '[server]\nport = 0\napi_keys_file = "keys.txt"\n'
  both_engines 'context = 2048'
} >"$work/duet.toml"
serve
.tools/bin/node tests/browser/page.mjs "$url" "$key" "$pictures"
