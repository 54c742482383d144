#!/usr/bin/env bash
# [MODEL=folder] [DATA=folder-of-raw-files] [RUN=folder] recipes/r1_rec_3b/run.sh [--dry-run] [override=value …]
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
PATH="$here/../../.venv/bin:$PATH"
exec iranker train "$here" ${MODEL:+"actor_rollout_ref.model.path=$MODEL"} ${DATA:+"iranker.data.raw=$DATA"} \
  ${RUN:+"iranker.run_dir=$RUN"} "$@"
