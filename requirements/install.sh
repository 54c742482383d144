#!/usr/bin/env bash
# Installs one stack into a virtual environment: requirements/install.sh VENV [cpu|gpu]. Idempotent.
# Every file is checked against its hash in the lock.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 stack=${2:-cpu} python=${PYTHON:-python3.11}
lock=requirements/$stack.txt
fail() { echo "error: $*" >&2; exit 2; }

[ -f "$lock" ] || fail "no lock for the stack '$stack'; choose cpu or gpu"
command -v "$python" >/dev/null || fail "$python not found; install Python 3.11, or name it: make setup PYTHON=/path/to/python3.11"
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $stack-$found in
  cpu-3.11 | gpu-3.11 | gpu-3.12) ;;
  gpu-*) fail "$python is Python $found, the gpu stack needs 3.11 or 3.12; name another: make setup PYTHON=python3.11" ;;
  *) fail "$python is Python $found, the $stack stack needs 3.11; name another: make setup PYTHON=python3.11" ;;
esac

wanted=$(cat requirements/*.txt setup.py | sha256sum | cut -c1-16)-$stack
[ "$(cat "$venv/.installed" 2>/dev/null || true)" = "$wanted" ] && exit 0

free_mb=$(df -Pm . | awk 'NR==2 {print $4}')
[ "$free_mb" -ge 7000 ] || fail "$(pwd): $free_mb MB free, installing needs 7000 MB; free some space"
echo "installing the $stack stack into $venv (once, a few minutes)"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet --quiet --no-input "$@"; }
hashed=$(mktemp -d)
trap 'rm -rf "$hashed"' EXIT
cat requirements/verl.txt "$lock" | grep -e --hash= >"$hashed/all.txt"
# A few packages have no wheels; setuptools from the lock builds them, and nothing that is not in the lock.
grep '^setuptools==' "$hashed/all.txt" >"$hashed/setuptools.txt"
pip install --no-deps --require-hashes -r "$hashed/setuptools.txt"
pip install --no-deps --require-hashes --no-build-isolation -r "$hashed/all.txt"
pip install --no-deps --no-build-isolation --editable .
echo "$wanted" >"$venv/.installed"
echo "installed"
