#!/usr/bin/env bash
# MODEL=file.gguf-or-folder [DATA=folder-of-raw-files] [RUN=folder] recipes/small_cpu/run.sh [--dry-run] [override=value …]
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
PATH="$here/../../.venv/bin:$PATH"
exec iranker train "$here/small_cpu.yaml" ${MODEL:+"actor_rollout_ref.model.path=$MODEL"} \
  ${DATA:+"iranker.data.raw=$DATA"} ${RUN:+"iranker.run_dir=$RUN"} "$@"
