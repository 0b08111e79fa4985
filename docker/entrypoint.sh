#!/usr/bin/env bash
# VERB [flags]: runs the image's package, `train` in as many processes as NPROC says (auto: one per GPU).
#
#   NPROC        processes on this machine: a number or auto (auto)
#   NNODES       machines (1); each runs this image with the same command and shares the folders data and runs
#   NODE_RANK    number of this machine, from 0 (0)
#   MASTER_ADDR  name or address of machine 0;  MASTER_PORT  a port that is free there (29500)
#   TOPOLOGY     another file of /opt/accelerate, such as fsdp
set -euo pipefail

fail() { echo "entrypoint: $*" >&2; exit 2; }
number() {  # variable, least, most
    [[ ${!1} =~ ^(0|[1-9][0-9]{0,5})$ ]] && ((${!1} >= $2 && ${!1} <= $3)) ||
        fail "$1=${!1}: give a whole number from $2 to $3"
}

module=${PACKAGE//-/_}
gpus=$(nvidia-smi -L 2>/dev/null | grep -c '^GPU' || true)
: "${NNODES:=1}" "${NODE_RANK:=0}" "${MASTER_PORT:=29500}" "${NPROC:=auto}"
[ "$NPROC" = auto ] && NPROC=$((gpus > 1 ? gpus : 1))
number NPROC 1 1024; number NNODES 1 1024; number NODE_RANK 0 1023; number MASTER_PORT 1 65535
((NODE_RANK < NNODES)) || fail "NODE_RANK=$NODE_RANK: the machines are numbered from 0 to $((NNODES - 1)) (NNODES=$NNODES)"

# the other verbs work in one process; and `accelerate launch` with one process, or as a container's first, passes no
# SIGTERM on: the trainer must be what `docker stop` talks to
if [ "${1:-}" != train ] || ((NPROC * NNODES == 1)) || [[ " $* " =~ \ (-h|--help|--print[-_]config)\  ]]; then
    exec python -m "$module" "$@"
fi
# a mistake in the flags is one line here; below it would be one of each process, and the launcher's traceback
python -m "$module" "$@" --print-config >/dev/null

topology=${TOPOLOGY:-multi_gpu} machines=()
((gpus > 0)) || topology=${TOPOLOGY:-cpu}
if ((NNODES > 1)); then
    [ -n "${MASTER_ADDR:-}" ] || fail "MASTER_ADDR: NNODES=$NNODES needs the name or address of machine 0"
    topology=${TOPOLOGY:-multi_node}
    machines=(--num_machines "$NNODES" --machine_rank "$NODE_RANK" --main_process_ip "$MASTER_ADDR")
fi
file=${ACCELERATE_FILES:-/opt/accelerate}/$topology.yaml
[[ $topology =~ ^(cpu|multi_gpu|multi_node|fsdp)$ ]] ||
    fail "TOPOLOGY=$topology: there are cpu, multi_gpu, multi_node and fsdp"

# the launcher kills what has not ended so many seconds after SIGTERM; below compose's stop_grace_period
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-100}
exec accelerate launch --config_file "$file" --num_processes $((NPROC * NNODES)) ${machines[@]+"${machines[@]}"} \
    --main_process_port "$MASTER_PORT" --module "$module" "$@"
