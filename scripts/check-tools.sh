#!/usr/bin/env bash
# Says in one line each what is missing on this machine to build duet, and how to get it. Silent and 0 if nothing is.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

n_missing=0
missing() {
  printf 'setup: missing: %s\n' "$*" >&2
  n_missing=$((n_missing + 1))
}

case "$(uname -s)-$(uname -m)" in
  Linux-x86_64 | Linux-aarch64 | Darwin-arm64) ;;
  *) missing "a supported machine: Linux on x86-64 or aarch64, or macOS on Apple silicon, not $(uname -s) on $(uname -m)" ;;
esac
if [ "$(uname -s)" = Darwin ]; then
  hint='xcode-select --install'
  xcrun --find metal >/dev/null 2>&1 || missing "Xcode's Metal compiler (Xcode from the App Store, then: xcodebuild -downloadComponent MetalToolchain)"
else
  hint='apt install git make g++ python3 python3-pip'
  version_at_least "$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/[^0-9]*//')" 2.35 ||
    missing 'glibc 2.35 or newer (Debian 12, Ubuntu 22.04 or later): MLX is built for it'
fi
for tool in git make; do
  command -v "$tool" >/dev/null || missing "$tool ($hint)"
done
compiles() {
  printf '%s\n' '#include <version>' 'int main() {}' |
    "${CXX:-c++}" -std=c++20 -x c++ -c -o /dev/null - >/dev/null 2>&1
}
if ! command -v cc >/dev/null || ! compiles; then
  missing "a C and C++ compiler for C++20, as cc and c++ ($hint)"
fi
[ -n "$(find_python)" ] || missing "Python 3.9 or newer with pip ($hint)"
if ! version_at_least "$(cargo --version 2>/dev/null | cut -d ' ' -f 2)" 1.88; then
  missing 'Rust 1.88 or newer: cargo (see https://rustup.rs)'
fi

[ "$n_missing" -eq 0 ] || exit 1
