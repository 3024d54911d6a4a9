#!/usr/bin/env bash
# Regenerates the committed stubs; with --check only says whether they differ from the schemas.
set -euo pipefail
cd "$(dirname "$0")/../proto"
out=.
if [ "${1:-}" = --check ]; then out=$(mktemp -d); trap 'rm -rf "$out"' EXIT; fi
mapfile -t schemas < <(find mesh -name '*.proto' | sort)
python -m grpc_tools.protoc -I . --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" "${schemas[@]}"
[ "$out" = . ] && exit 0
stale=0
while read -r stub; do
  cmp -s "$out/$stub" "$stub" || { echo "stale: proto/$stub (run: make proto)"; stale=1; }
done < <(cd "$out" && find mesh -name '*_pb2*')
exit $stale
