#!/usr/bin/env bash
# schemathesis against what duet serves as /openapi.json, both engines behind it: tests/conformance/schemathesis.sh DUET
#
# Requests are made from the document, right ones and wrong ones. Fails on a 5xx, a status or content type that is not in the
# document, or a body that is not as it says. The models are tiny ones, so that the server's part is most of the time.
set -euo pipefail
duet=$(realpath "${1:?usage: tests/conformance/schemathesis.sh DUET}")
cd "$(dirname "$0")/../.."
# shellcheck source=tests/lib.sh
. tests/lib.sh

{
  printf '[server]\nport = 0\n'
  printf '[models.tiny-gguf]\nengine = "gguf"\npath = "%s"\ncontext = 256\nmax_tokens = 4\n' "$PWD/tests/fixtures/tiny-llama.gguf"
  printf '[models.tiny-mlx]\nengine = "mlx"\npath = "%s"\ncontext = 256\nmax_tokens = 4\n' "$PWD/tests/fixtures/tiny-llama-mlx-f16"
} >"$work/duet.toml"
serve

export SCHEMATHESIS_HOOKS=schemathesis_hooks DUET_MODELS=tiny-gguf,tiny-mlx
root=$PWD
cd "$work"
PYTHONPATH="$root/tests/conformance" "$root/.tools/bin/python-schemathesis" -m schemathesis.cli run "$url/openapi.json" \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
  --max-examples "${MAX_EXAMPLES:-40}" --max-time "${MAX_TIME:-300}" --seed "${SEED:-1}" --request-timeout 120 \
  --suppress-health-check all --warnings off --no-color

# What was answered; a run that never got beyond the refusals would prove little.
answers=$("$root/.tools/bin/python" -c 'import sys, urllib.request; sys.stdout.write(urllib.request.urlopen(sys.argv[1]).read().decode())' \
  "$url/metrics" | sed -n 's/^duet_http_requests_total{route="\([^"]*\)",status="\([0-9]*\)"}/\1 \2/p')
echo "$answers"
for route in /v1/chat/completions /v1/completions /v1/messages /v1/responses; do
  grep -q "^$route 200 " <<<"$answers" || { echo "no request to $route was answered" >&2; exit 1; }
done
