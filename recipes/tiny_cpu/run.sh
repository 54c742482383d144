#!/usr/bin/env bash
# [DATA=folder-of-raw-files] [RUN=folder] recipes/tiny_cpu/run.sh [NAME] [--dry-run] [override=value …], NAME as in README.md
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
PATH="$here/../../.venv/bin:$PATH"
name=tiny_cpu
if [[ -f $here/${1:-}.yaml ]]; then
  name=$1
  shift
fi
exec iranker train "$here/$name.yaml" ${DATA:+"iranker.data.raw=$DATA"} ${RUN:+"iranker.run_dir=$RUN"} "$@"
