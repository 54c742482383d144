#!/usr/bin/env bash
# [MODEL=folder] [DATA=folder-of-raw-files] [RUN=prefix] recipes/zero_shot/run.sh [rec|router|passage|all] [--dry-run] [override=value …]
# With MODEL the published recipe for GPUs, without it the tiny one. `all` (the default) ends with one table of all nine.
set -euo pipefail
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
PATH="$here/../../.venv/bin:$PATH"
all=(rec router passage) dry_run='' overrides=()
case ${1:-} in
  rec | router | passage) unseen=("$1"); shift ;;
  all) unseen=("${all[@]}"); shift ;;
  '' | -* | *=*) unseen=("${all[@]}") ;;
  *) echo "error: which scenario is to be unseen? run.sh rec|router|passage|all" >&2; exit 2 ;;
esac
for argument in "$@"; do
  if [[ $argument == --dry-run ]]; then dry_run=--dry-run; else overrides+=("$argument"); fi
done
if [[ -n ${MODEL:-} && -z ${DATA:-} && -z $dry_run ]]; then
  echo "error: DATA is not set; give the folder of raw files that holds all nine tasks" >&2
  exit 2
fi

run=${RUN:-runs/zero-shot}
for scenario in "${unseen[@]}"; do
  if [[ -n ${MODEL:-} ]]; then
    recipe=("$here/$scenario.yaml" "actor_rollout_ref.model.path=$MODEL")
  elif [[ -n ${DATA:-} ]]; then # real data has a tiny recipe of its own; any recipe is zero-shot with +unseen
    recipe=("$here/../tiny_cpu/real_data.yaml" "+unseen=$scenario")
  else
    recipe=("$here/../tiny_cpu/zero_shot.yaml" "unseen=$scenario")
  fi
  iranker train "${recipe[@]}" $dry_run "iranker.run_dir=$run-$scenario" ${DATA:+"iranker.data.raw=$DATA"} \
    ${overrides[@]+"${overrides[@]}"}
done
if [[ -z $dry_run && ${#unseen[@]} == "${#all[@]}" ]]; then
  python -m iranker_verl.evaluation.zero_shot "$run" "${all[@]/#/$run-}"
  iranker report "$run"
fi
