# shellcheck shell=bash
# What the scripts here share. Sourced, from the root of the checkout.

# rustup installs there; a bare login may not have it on the path.
PATH="$PATH:${CARGO_HOME:-${HOME:-/nonexistent}/.cargo}/bin"

say() {
  printf 'setup: %s\n' "$*"
}

die() {
  printf 'setup: error: %s\n' "$*" >&2
  exit 1
}

# version_at_least FOUND WANTED: whether the version FOUND (may be empty) is WANTED (major.minor) or newer.
version_at_least() {
  local found_major found_minor
  IFS=. read -r found_major found_minor _ <<END
$1
END
  [ -n "${found_minor%%[!0-9]*}" ] || return 1
  [ "$found_major" -gt "${2%%.*}" ] ||
    { [ "$found_major" -eq "${2%%.*}" ] && [ "${found_minor%%[!0-9]*}" -ge "${2#*.}" ]; }
}

# find_python: the first Python that is new enough and has pip; nothing if there is none.
find_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python3.10 python3.9; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 9))' >/dev/null 2>&1 &&
      "$candidate" -m pip --version >/dev/null 2>&1; then
      command -v "$candidate"
      return
    fi
  done
}

# sha256: the digest of standard input, as hexadecimal digits.
sha256() {
  if command -v sha256sum >/dev/null; then
    sha256sum | cut -d ' ' -f 1
  else
    shasum -a 256 | cut -d ' ' -f 1
  fi
}

# stale STEP INPUT...: whether STEP has to run, that is, was not done yet with exactly these inputs.
stale() {
  local step=$1
  shift
  stale_digest=$(printf '%s\n' "$@" | sha256)
  [ "$(cat ".tools/stamps/$step" 2>/dev/null)" != "$stale_digest" ]
}

# done_with STEP: notes that the STEP last asked about by `stale` is done.
done_with() {
  printf '%s\n' "$stale_digest" >".tools/stamps/$1"
}

# write_if_changed FILE: standard input becomes the FILE's contents, which keeps its date if they are the same.
write_if_changed() {
  local contents
  contents=$(cat)
  if [ "$(cat "$1" 2>/dev/null)" != "$contents" ]; then
    printf '%s\n' "$contents" >"$1"
  fi
}
