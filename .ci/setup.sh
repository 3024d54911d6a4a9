#!/usr/bin/env bash
# Makes .venv with everything in it, exactly as locked. Does nothing when nothing changed.
#   setup.sh          what the product and its checks need
#   setup.sh test     also what the tests of network faults and of Redis need, when we are root (else they are skipped)
#   setup.sh bench    also .venv-peers, with the peers that benchmarks measure us against
set -euo pipefail
cd "$(dirname "$0")/.."

DISK_NEEDED=800 # MiB: .venv and what is downloaded for it

say() { printf '\033[1m»\033[0m %s\n' "$*" >&2; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

apt_install() { # package...
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    die "this machine lacks $*; to get it: sudo apt-get update && sudo apt-get install -y $*"
  fi
  say "installing $*"
  local said install=(apt-get -qq -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@")
  export DEBIAN_FRONTEND=noninteractive
  # Services that packages start must not inherit our lock.
  if said=$("${install[@]}" 2>&1 9>&-); then return; fi
  # The lists of packages may be old, or not be there yet.
  said=$({ apt-get -qq -o DPkg::Lock::Timeout=120 update || true; "${install[@]}"; } 2>&1 9>&-) ||
    die "apt-get cannot install $*: $(grep -m1 '^E:' <<< "$said" || tail -n1 <<< "$said")"
}

find_python() {
  local candidate candidates=(python3 python3.13 python3.12 python3.11)
  [ -z "${PYTHON:-}" ] || candidates=("$PYTHON")
  for candidate in "${candidates[@]}"; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  die "Python 3.11 or newer is needed; ${candidates[0]} is $("${candidates[0]}" --version 2>/dev/null || echo missing)" \
    "(another one: PYTHON=/path/to/python3.11)"
}

# The Debian packages that a python and its wheels need and that a small system lacks.
lacking() { # python
  local package=python3-venv
  case ${1##*/} in python3.*) package=${1##*/}-venv ;; esac
  "$1" -c 'import ensurepip, venv' 2>/dev/null || echo "$package"
  [ "$(uname)" != Linux ] || "$1" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null || echo libgomp1
}

check_disk() {
  local free there=0
  free=$(df -Pm . | awk 'NR == 2 {print $4}')
  [ ! -d .venv ] || there=$(du -sm .venv | cut -f1)
  ((free + there >= DISK_NEEDED)) ||
    die "the disk of $PWD is full: $free MiB are free and $((DISK_NEEDED - there)) MiB are needed"
}

# Neither one whose Python is gone, nor one that was moved, nor one whose making was interrupted.
is_usable() { # folder
  [ ! -e "$1/.unfinished" ] && "$1/bin/python" -c '' 2>/dev/null && grep -qF "$PWD/$1" "$1/bin/activate" 2>/dev/null &&
    { [ -x "$1/bin/uv" ] || "$1/bin/python" -c 'import pip' 2>/dev/null; }
}

begin() { # folder python
  if ! is_usable "$1"; then
    say "creating $1 ($("$2" --version))"
    rm -rf "$1" && mkdir "$1" && touch "$1/.unfinished"
    "$2" -m venv "$1" >&2 || die "cannot create $1; the lines above say why"
  fi
  touch "$1/.unfinished"
}

finish() { # folder stamp
  echo "$2" > "$1/.stamp"
  rm "$1/.unfinished"
}

install_uv() {
  local want; want=$(sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements/uv.txt)
  [ "$(.venv/bin/uv --version 2>/dev/null | cut -d' ' -f2)" = "$want" ] && return
  say "installing uv $want"
  .venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/uv.txt ||
    die "installing uv failed; the lines above say why (is the package index reachable? HTTPS_PROXY if need be)"
}

sync() { # folder, locks...
  local venv=$1; shift
  say "installing into $venv: $*"
  UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=$PWD/$venv .venv/bin/uv pip sync --require-hashes "$@" ||
    die "installing the locked packages failed; the lines above say why"
}

stamp() { cat "$@" | sha256sum | cut -d' ' -f1; }

# One at a time: a second `make` waits for the first. The lock is on the folder itself.
if command -v flock >/dev/null; then
  exec 9< .
  flock -n 9 || { say "waiting for another setup in $PWD"; flock 9; }
fi

locks=(requirements/uv.txt requirements/dev.txt requirements/model.txt)
want=$(stamp "${locks[@]}" pyproject.toml .ci/setup.sh)
if [ "$(cat .venv/.stamp 2>/dev/null)" != "$want" ] || ! is_usable .venv; then
  python=$(find_python)
  mapfile -t packages < <(lacking "$python")
  [ ${#packages[@]} = 0 ] || apt_install "${packages[@]}"
  check_disk
  begin .venv "$python"
  install_uv
  sync .venv "${locks[@]}"
  VIRTUAL_ENV=$PWD/.venv .venv/bin/uv pip install -q --no-deps --no-build-isolation -e . ||
    die "installing the project itself failed; the lines above say why"
  finish .venv "$want"
fi

# Limits that gateways share are counted in a real Redis.
if [ "${1:-}" = test ] && [ "$(id -u)" = 0 ]; then
  command -v redis-server >/dev/null || apt_install redis-server
fi

# The tests that cut cables do it inside network namespaces of their own; root of a container may not make any.
if [ "${1:-}" = test ] && [ "$(id -u)" = 0 ] && unshare --net --mount true 2>/dev/null; then
  { command -v ip && command -v iptables; } >/dev/null || apt_install iproute2 iptables
fi

if [ "${1:-}" = bench ]; then
  want=$(stamp requirements/bench.txt .ci/setup.sh)
  if [ "$(cat .venv-peers/.stamp 2>/dev/null)" != "$want" ] || ! is_usable .venv-peers; then
    begin .venv-peers .venv/bin/python
    sync .venv-peers requirements/bench.txt
    finish .venv-peers "$want"
  fi
  packages=()
  for need in gcc:gcc nginx:nginx sshd:openssh-server; do
    command -v "${need%%:*}" >/dev/null || [ -x "/usr/sbin/${need%%:*}" ] || packages+=("${need#*:}")
  done
  [ -e /usr/include/stdio.h ] || packages+=(libc6-dev)
  [ ${#packages[@]} = 0 ] || apt_install "${packages[@]}"
fi
