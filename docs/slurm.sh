#!/usr/bin/env bash
# Runs a sweep on a Slurm allocation:   sbatch docs/slurm.sh sweeps/lab.yaml
#
# Run it from a checkout on a shared file system, after scripts/install.sh has created .venv. Submit it again to resume
# the sweep. The first node is the head node; NODE_LABELS below determines which nodes train. --mem=0 asks for all of a
# node's memory: by default, many clusters give a job only a few GB per core.
#SBATCH --job-name=safecomm
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --signal=B:INT@120
set -euo pipefail
sweep=${1:?usage: sbatch docs/slurm.sh SWEEP [OPTION...]}
shift
source .venv/bin/activate
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
address=${nodes[0]}:6379

# A token for this job only, so that other users on the nodes can't access its Ray cluster.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$PWD/.ray-token-$SLURM_JOB_ID"
(umask 077 && python -c 'import secrets; print(secrets.token_hex(32))' >"$RAY_AUTH_TOKEN_PATH")
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT

# Labels by node number; a sweep selects them with cluster.finetune.labels and cluster.target.labels.
NODE_LABELS=(pool=fleet pool=train)
start() { # NUMBER OPTION...: runs a Ray node until the job ends
  local number=$1
  shift
  srun --nodes=1 --ntasks=1 --overlap --nodelist="${nodes[number]}" \
    ray start --block --disable-usage-stats --object-store-memory=8000000000 \
    --labels="${NODE_LABELS[number]:-pool=train}" "$@" &
}

start 0 --head --port=6379 --dashboard-host=127.0.0.1
until ray status --address "$address" >/dev/null 2>&1; do sleep 2; done
for number in $(seq 1 $((${#nodes[@]} - 1))); do start "$number" --address="$address"; done
until [ "$(ray list nodes --filter state=ALIVE --format json | python -c 'import json, sys; print(len(json.load(sys.stdin)))')" \
  -eq "${#nodes[@]}" ]; do sleep 2; done

# Slurm's signal before the time limit is passed on as Ctrl-C; the sweep keeps its finished work.
python -m safecomm run "$sweep" --address "$address" "$@" &
driver=$!
trap 'kill -INT "$driver"' INT
until wait "$driver"; do
  code=$?
  kill -0 "$driver" 2>/dev/null || exit "$code"
done
