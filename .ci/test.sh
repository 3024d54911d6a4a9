#!/usr/bin/env bash
# Every test. The fast ones run in parallel; those with real processes and faults follow, one at a time: they have bounds to keep.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ $# -gt 0 ]; then exec pytest "$@"; fi
pytest -n auto -m "not real" --cov --cov-report=term
pytest -p no:xdist -m real
