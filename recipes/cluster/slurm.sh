#!/usr/bin/env bash
#SBATCH --job-name=iranker
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
# sbatch recipes/cluster/slurm.sh RECIPE iranker.run_dir=/shared/folder [override=value …]
# A Ray head on the first node, workers on the others, and the recipe on all of them. 180 s before its time ends, or when it is
# preempted, the run saves and ends, and is queued again; the same job then resumes from its last checkpoint.
set -euo pipefail
root=${IRANKER_ROOT:-$SLURM_SUBMIT_DIR}
PATH="$root/.venv/bin:$PATH"
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=$(srun --nodes=1 --ntasks=1 -w "${nodes[0]}" hostname -I | awk '{print $1}')
port=${RAY_PORT:-6379}
export RAY_AUTH_MODE=${RAY_AUTH_MODE:-token}
[ "$RAY_AUTH_MODE" = disabled ] || export RAY_AUTH_TOKEN=${RAY_AUTH_TOKEN:-$(python -c 'import secrets; print(secrets.token_hex(32))')}
gpus=${SLURM_GPUS_ON_NODE:-8}

srun --nodes=1 --ntasks=1 -w "${nodes[0]}" ray start --head --node-ip-address="$head" --port="$port" --num-gpus="$gpus" --disable-usage-stats --block &
for ((i = 0; i < 60; i++)); do ray health-check --address "$head:$port" > /dev/null 2>&1 && break; sleep 2; done
if ((${#nodes[@]} > 1)); then
  others=$(IFS=,; echo "${nodes[*]:1}")
  srun --nodes=$((${#nodes[@]} - 1)) --ntasks-per-node=1 -w "$others" ray start --address="$head:$port" --num-gpus="$gpus" --disable-usage-stats --block &
fi

# Preparation and evaluation need the accelerator of the first node, so the job runs there.
RAY_ADDRESS="$head:$port" iranker train "$@" trainer.nnodes="${#nodes[@]}" trainer.n_gpus_per_node="$gpus" \
  ray_kwargs.ray_init.num_cpus=null ++ray_kwargs.ray_init.num_gpus=null ++ray_kwargs.ray_init.address=null &
run=$!
requeue=
trap 'requeue=1; kill -TERM $run 2> /dev/null || true' TERM
code=0
wait "$run" || code=$?
while kill -0 "$run" 2> /dev/null; do wait "$run" && code=0 || code=$?; done # a trap ends a wait
[ -z "$requeue" ] || scontrol requeue "$SLURM_JOB_ID"
exit "$code"
