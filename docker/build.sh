#!/usr/bin/env bash
# NAME... or all: builds images, labelled with the version and commit that they are made of. `all`: of the packages here.
set -euo pipefail
cd "$(dirname "$0")/.."
. docker/settings.sh

names=("$@")
[ "${1:-}" != all ] || mapfile -t names < <(basename -a packages/*/)
docker buildx bake --file docker/bake.hcl --load "${names[@]}"
docker image ls --filter label=training.package --filter dangling=false --format 'table {{.Repository}}\t{{.Tag}}\t{{.Size}}'
