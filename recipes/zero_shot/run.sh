#!/usr/bin/env bash
# MODEL=folder DATA=folder-of-raw-files [RUN=folder] recipes/zero_shot/run.sh rec|router|passage [--dry-run] [override=value …]
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
PATH="$here/../../.venv/bin:$PATH"
case ${1:-} in
  rec) unseen=(--task rec-movie --task rec-music --task rec-game) ;;
  router) unseen=(--task router-performance --task router-cost --task router-balance) ;;
  passage) unseen=(--task passage-5 --task passage-7 --task passage-9) ;;
  *) echo "error: which scenario is to be unseen? run.sh rec|router|passage" >&2; exit 2 ;;
esac
recipe="$here/$1.yaml" run=${RUN:-runs/zero-shot-$1}
shift
train=(iranker train "$recipe" "iranker.run_dir=$run" ${MODEL:+"actor_rollout_ref.model.path=$MODEL"}
  ${DATA:+"iranker.data.raw=$DATA"} "$@")
for argument in "$@"; do
  if [[ $argument == --dry-run ]]; then exec "${train[@]}"; fi
done
if [[ -z ${DATA:-} ]]; then
  echo "error: DATA is not set; give the folder of raw files that holds all nine tasks" >&2
  exit 2
fi
"${train[@]}"
iranker prepare --raw "$DATA" --out "$run/unseen" --template think-text "${unseen[@]}"
iranker evaluate --model "$run/model" --data "$run/unseen" --out "$run/unseen-results"
