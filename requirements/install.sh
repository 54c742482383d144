#!/usr/bin/env bash
# Installs one stack into a virtual environment: [FLASH_ATTN=wheel] requirements/install.sh VENV [cpu|gpu]. Idempotent.
# Every file is checked against its hash in the lock, but for the wheel of flash-attn that FLASH_ATTN may name.
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

pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet --quiet --no-input "$@"; }
flash_attn() {
  if [ -n "${FLASH_ATTN:-}" ]; then
    pip install --no-deps --only-binary :all: "$FLASH_ATTN" ||
      fail "FLASH_ATTN=$FLASH_ATTN cannot be installed; give a wheel of flash-attn for Python $found and the lock's torch, or leave it out"
  else
    echo "without flash-attn, of which the index has no wheels: recipes use torch's own attention; make setup FLASH_ATTN=wheel adds it"
  fi
}

wanted=$(cat requirements/verl.txt "$lock" setup.py | sha256sum | cut -c1-16)-$stack
if [ "$(cat "$venv/.installed" 2>/dev/null || true)" = "$wanted" ]; then
  [ -z "${FLASH_ATTN:-}" ] || flash_attn
  exit 0
fi

# measured: unpacked 4.6 GB (cpu) and 10.8 GB (gpu), and what is downloaded, 4.4 GB of the gpu stack
case $stack in cpu) needs_mb=7000 ;; *) needs_mb=16000 ;; esac
free_mb=$(df -Pm . | awk 'NR==2 {print $4}')
[ "$free_mb" -ge $needs_mb ] || fail "$(pwd): $free_mb MB free, installing needs $needs_mb MB; free some space"
if [ "$stack" = gpu ]; then
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1) || driver=
  if [ -z "$driver" ]; then
    echo "no NVIDIA driver here: a machine that trains needs 580 or newer (CUDA 13)"
  elif [ "${driver%%.*}" -lt 580 ]; then
    fail "the NVIDIA driver is $driver, CUDA 13 needs 580 or newer; update it"
  fi
fi
echo "installing the $stack stack into $venv (once, a few minutes)"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
hashed=$(mktemp -d)
trap 'rm -rf "$hashed"' EXIT
cat requirements/verl.txt "$lock" | grep -e --hash= >"$hashed/all.txt"
# A few packages have no wheels; setuptools from the lock builds them, and nothing that is not in the lock.
grep '^setuptools==' "$hashed/all.txt" >"$hashed/setuptools.txt"
pip install --no-deps --require-hashes -r "$hashed/setuptools.txt"
pip install --no-deps --require-hashes --no-build-isolation -r "$hashed/all.txt"
pip install --no-deps --no-build-isolation --editable .
echo "$wanted" >"$venv/.installed"
[ "$stack" != gpu ] || flash_attn
echo "installed"
