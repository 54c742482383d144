#!/usr/bin/env bash
# RAY_ADDRESS=http://head:8265 recipes/cluster/submit.sh RECIPE iranker.run_dir=/shared/folder [--dry-run] [override=value …]
# Submits a recipe to a running Ray head and follows its log to the end; exits with 0 only where the job succeeded. See README.md.
set -euo pipefail
root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
PATH="$root/.venv/bin:$PATH"
PYTHONPATH="$root" exec python -P -m iranker_verl.job.submit "$@"
