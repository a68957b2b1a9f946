#!/bin/sh
# What docs/bench.md promises of real runs, measured: each engine against itself ten times, GGUF against MLX on one file five
# times, and the same engine behind a server three times. Keeps every report with its raw samples. Wants a machine that does
# nothing else: it takes about an hour and a quarter.
#
#   scripts/bench-proof.sh FOLDER [DUET [MODEL]]
set -eu

folder=${1:?usage: scripts/bench-proof.sh FOLDER [DUET [MODEL]]}
duet=${2:-target/release/duet}
model=${3:-models/SmolLM2-135M-Instruct.Q4_1.gguf}
mkdir -p "$folder"

# Two to three minutes each with the demo model. Short visits and many blocks: what disturbs a machine lasts seconds, and
# a block that is shorter than that is within it or without.
run() { # NAME SEED ARGUMENTS...
  name=$1 seed=$2
  shift 2
  [ -s "$folder/$name-$seed.json" ] && return # a folder that was begun is finished
  begin=$(date +%s)
  # shellcheck disable=SC2086 # several words
  "$duet" bench "$model" "$@" --seed "$seed" $work \
    --json "$folder/$name-$seed.part" > "$folder/$name-$seed.txt" || true
  mv "$folder/$name-$seed.part" "$folder/$name-$seed.json"
  echo "$name $seed: $(($(date +%s) - begin)) s"
}

# One thread: a second one waits for the first at every barrier, and so doubles what the machine disturbs.
work='--prompt 32 --decode 12 --blocks 36 --threads 1'
for seed in 1 2 3 4 5 6 7 8 9 10; do
  run aa-gguf $seed --engines gguf,gguf --agreement 0 --scenario none
  run aa-mlx $seed --engines mlx,mlx --agreement 0 --scenario none
done
work='--prompt 64 --decode 24 --blocks 16'
for seed in 1 2 3 4 5; do
  run gguf-mlx $seed --engines gguf,mlx --self-blocks 3 --scenario none
done

"$duet" serve "$model" --engine gguf --port 0 > "$folder/serve.out" 2> "$folder/serve.err" &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT INT TERM
n=0
until url=$(grep -om1 'http://[0-9.:]*' "$folder/serve.out"); do
  n=$((n + 1))
  [ "$n" -lt 60 ] || { echo 'the server did not start' >&2; exit 1; }
  sleep 1
done
for seed in 1 2 3; do
  run gguf-http $seed --engines gguf,http --url "$url" --scenario none
done

python3 "$(dirname "$0")/bench-proof.py" "$folder"
