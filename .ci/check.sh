#!/usr/bin/env bash
# Everything that can be said about the code without running it.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
failed=()
step() { # name, command...
  local name=$1; shift
  local out
  if out=$("$@" 2>&1); then printf '  \033[32m✓\033[0m %s\n' "$name"
  else printf '  \033[31m✗\033[0m %s\n%s\n' "$name" "$out"; failed+=("$name"); fi
}
step "format (ruff)" ruff format --check .
step "lint (ruff)" ruff check .
step "types (mypy --strict)" mypy
step "import rules (import-linter)" lint-imports --no-cache
step "schemas (buf lint)" bash -c 'cd proto && buf lint'
step "stubs are up to date" bash .ci/proto.sh --check
step "shell (shellcheck)" bash -c 'git ls-files -z "*.sh" .ci/run | xargs -0 shellcheck'
step "locks hold no addresses" bash -c '! grep -nE "https?://|--index-url" requirements/*.txt'
[ ${#failed[@]} = 0 ] || { printf 'check: failed: %s\n' "${failed[*]}" >&2; exit 1; }
