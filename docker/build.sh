#!/usr/bin/env bash
# NAME... or all: builds images, labelled with the version and commit that they are made of. `all`: of the packages here.
set -euo pipefail
cd "$(dirname "$0")/.."

names=("$@")
[ "${1:-}" != all ] || mapfile -t names < <(basename -a packages/*/)
# a commit with changes on top is none that anybody else has; an address may hold somebody's password
REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain 2>/dev/null)" ] || REVISION+=+changes
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' shared/pyproject.toml)
SOURCE=$(git remote get-url origin 2>/dev/null | grep -E '^(https?://|ssh://|git@)' | sed 's|//[^@/]*@|//|' || true)
export REVISION VERSION SOURCE
docker buildx bake --file docker/bake.hcl --load "${names[@]}"
docker image ls --filter label=training.package --filter dangling=false --format 'table {{.Repository}}\t{{.Tag}}\t{{.Size}}'
