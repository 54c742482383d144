#!/usr/bin/env bash
# [MODEL=folder] [DATA=folder-of-raw-files] [RUN=folder] recipes/tiny_cpu/run.sh [NAME] [--dry-run] [override=value …], NAME as in README.md
# MODEL needs iranker.base.make=null: these recipes make a base of their own.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
PATH="$here/../../.venv/bin:$PATH"
name=tiny_cpu
if [[ -f $here/${1:-}.yaml ]]; then
  name=$1
  shift
fi
exec iranker train "$here/$name.yaml" ${MODEL:+"actor_rollout_ref.model.path=$MODEL"} \
  ${DATA:+"iranker.data.raw=$DATA"} ${RUN:+"iranker.run_dir=$RUN"} "$@"
