#!/usr/bin/env bash
# RAY_ADDRESS=http://head:8265 recipes/cluster/submit.sh RECIPE iranker.run_dir=/shared/folder [--dry-run] [override=value …]
# Submits a recipe to a running Ray head and follows its log to the end; exits with 0 only where the job succeeded. See README.md.
set -euo pipefail

fail() {
  echo "error: $1" >&2
  exit 2
}

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
PATH="$root/.venv/bin:$PATH"
dry_run='' recipe='' run='' overrides=()
for argument in "$@"; do
  case $argument in
    # Ray hands the command to a shell, and quotes blanks only
    *[\$\`\"\\\'\;\&\|\<\>\(\)\{\}]*) fail "$argument: quotes, \$, braces and the like do not survive ray job submit; put it into a recipe of your own" ;;
    --dry-run) dry_run=1 ;;
    -*) fail "$argument: unknown option; there is only --dry-run" ;;
    iranker.run_dir=*) run=${argument#*=} overrides+=("$argument") ;;
    *) if [[ -z $recipe ]]; then recipe=$argument; else overrides+=("$argument"); fi ;;
  esac
done

[[ -n $recipe ]] || fail "which recipe? submit.sh RECIPE iranker.run_dir=/shared/folder [override=value …]"
if [[ -d $recipe ]]; then
  recipe=$(cd -- "$recipe" && pwd)
  recipe="$recipe/$(basename -- "$recipe").yaml"
fi
[[ -f $recipe ]] || fail "$recipe: no such recipe; give a folder of recipes/ or a YAML file"
recipe="$(cd -- "$(dirname -- "$recipe")" && pwd)/$(basename -- "$recipe")"
[[ $run == /* ]] ||
  fail "iranker.run_dir=${run:-…} has to be an absolute folder that all nodes share; Ray removes the one that a job starts in"
[[ -n ${RAY_ADDRESS:-} ]] || fail "RAY_ADDRESS is not set; give the head's address, e.g. RAY_ADDRESS=http://head:8265"
[[ $RAY_ADDRESS =~ ^https?://[^/] ]] ||
  fail "RAY_ADDRESS=$RAY_ADDRESS is no dashboard's address; it has the form http://head:8265"
[[ ${MLFLOW_TRACKING_URI:-} != *://*@* ]] ||
  fail "MLFLOW_TRACKING_URI holds a user or password, and Ray's dashboard shows a job's environment; set it on the nodes"
command -v ray > /dev/null || fail "ray is not installed here; run make setup"

# Ray itself would try for minutes, and then print a traceback.
[[ -n $dry_run ]] || python - "$RAY_ADDRESS" 2> /dev/null << 'PYTHON' ||
import socket, sys
from urllib.parse import urlsplit

address = urlsplit(sys.argv[1])
socket.create_connection((address.hostname, address.port or {"http": 80, "https": 443}[address.scheme]), 20).close()
PYTHON
  fail "$RAY_ADDRESS: nobody listens there; is the head up (ray start --head), and is its dashboard to be reached from here?"

# What travels: the code and the recipes, with the metadata that names our plug-ins of verl and vLLM (their entry points),
# so that a cluster on which only verl is installed finds them as well. Nothing of runs, data or models.
bundle=$(mktemp -d)
trap 'rm -rf -- "$bundle"' EXIT
tar -C "$root" --exclude=__pycache__ -cf - iranker_verl data_prep reward_fns recipes requirements/verl.txt setup.py |
  tar -C "$bundle" -xf -
(cd "$bundle" && python setup.py -q egg_info) > /dev/null 2>&1 ||
  fail "setup.py egg_info failed; setuptools is missing, or $root is not whole"
if [[ $recipe == "$root"/recipes/* ]]; then
  recipe=${recipe#"$root"/}
else
  mkdir -p "$bundle/recipes/own"
  cp -- "$(dirname -- "$recipe")"/*.yaml "$bundle/recipes/own/"
  recipe="recipes/own/$(basename -- "$recipe")"
fi

# The cluster has its own processors, so the recipe may not ask Ray for any. These come first: a user's own values win.
command=("${PYTHON:-python}" -m iranker_verl.cli train "$recipe" ray_kwargs.ray_init.num_cpus=null
  ++ray_kwargs.ray_init.num_gpus=null ++ray_kwargs.ray_init.address=null "iranker.base.cache=$run/cache" "${overrides[@]}")

# Of the submitter's environment only what says where and how to run; no keys: the dashboard shows a job's environment.
runtime_env=$(
  python - "$bundle" "$run" << 'PYTHON'
import json, os, sys

bundle, run = sys.argv[1:]
fixed = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TENSORBOARD_DIR": f"{run}/tensorboard"}
passed = ("VERL_PLATFORM", "OMP_NUM_THREADS", "WANDB_MODE", "WANDB_BASE_URL", "MLFLOW_TRACKING_URI", "TENSORBOARD_DIR")
variables = fixed | {name: os.environ[name] for name in passed if name in os.environ}
print(json.dumps({"working_dir": bundle, "excludes": ["**/__pycache__"], "env_vars": variables}))
PYTHON
)
job="iranker-$(date +%Y%m%d-%H%M%S)-$$"
submit=(ray job submit --address "$RAY_ADDRESS" --submission-id "$job" --runtime-env-json "$runtime_env" -- "${command[@]}")
if [[ -n $dry_run ]]; then
  printf '%q ' "${submit[@]}"
  echo
  exit
fi
"${submit[@]}" # waits, and prints the log as it comes; with set -e its exit code is ours
# It is 0 as well where somebody stopped the job, or where following the log broke off.
ended=$(ray job status --address "$RAY_ADDRESS" "$job" 2>&1) || fail "$job: its status cannot be asked for: $ended"
[[ $ended == *"Job '$job' succeeded"* ]] ||
  fail "$job has not succeeded: $(grep . <<< "$ended" | tail -n 1) (ray job logs -f --address $RAY_ADDRESS $job)"
