# shellcheck shell=bash
# What the scripts below tests/ share: a folder of their own, and a server that ends with them. Sourced, from the root of
# the checkout, with `duet` set.

work=$(mktemp -d)
server=

finish() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  [ -z "$server" ] || wait "$server" 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT

# both_engines [LINE...]: the demo model on both engines, as `smol-gguf` and `smol-mlx`, each with these settings.
both_engines() {
  local engine
  for engine in gguf mlx; do
    printf '[models.smol-%s]\nengine = "%s"\n' "$engine" "$engine"
    printf 'path = "%s"\n' "$PWD/models/SmolLM2-135M-Instruct.Q4_1.gguf"
    printf '%s\n' "$@"
  done
}

# serve: starts duet with the settings in $work/duet.toml, whose port is 0; sets `url`.
serve() {
  "$duet" serve --config "$work/duet.toml" --log warn >"$work/out" 2>"$work/err" &
  server=$!
  url=
  for _ in $(seq 600); do
    url=$(sed -n 's/.* listens on //p' "$work/out")
    [ -z "$url" ] || return 0
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  cat "$work/err" >&2
  return 1
}
