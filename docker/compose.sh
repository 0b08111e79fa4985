#!/usr/bin/env bash
# `docker compose`, with the CPU override where nobody has chosen files and this machine shows no NVIDIA GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
. docker/settings.sh

if [ -z "${COMPOSE_FILE:-}" ] && ! grep -qs '^COMPOSE_FILE=' .env && ! nvidia-smi -L 2>/dev/null | grep -q GPU; then
    export COMPOSE_FILE=compose.yaml:docker/compose.cpu.yaml
    echo "no NVIDIA GPU here: computing on the CPU (docker/compose.cpu.yaml)" >&2
fi
exec docker compose "$@"
