#!/usr/bin/env bash
# Writes docker/locks/: what each layer of the images installs besides PyTorch, exact versions with checksums, for Python 3.11
# and newer, without addresses. The versions are those of requirements.txt, which the tests ran with. Needs uv.
set -euo pipefail
cd "$(dirname "$0")/.."

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT

resolve() {  # what to lock..., as `uv pip compile` takes it
    ${UV:-uv} pip compile "$@" --python-version 3.11 --no-emit-index-url --no-emit-find-links --strip-extras \
        --no-annotate --no-header --quiet
}
lock() {  # name, what it is, what to lock...
    local name=$1 what=$2
    shift 2
    { echo "# Made by \`just lock\`: $what"
      resolve "$@" --universal --generate-hashes --constraint requirements.txt --excludes "$temporary/elsewhere.txt" \
          --no-emit-package shared-core; } >"$temporary/new.txt"
    mv "$temporary/new.txt" "docker/locks/$name.txt"
}

# PyTorch has a build for each variant of CUDA, so its checksum is nobody's; each build brings the CUDA libraries it wants
echo torch >"$temporary/elsewhere.txt"
grep '^torch==' requirements.txt >"$temporary/torch.in"
resolve "$temporary/torch.in" --constraint requirements.txt | grep -vE '^(torch|triton|cuda-|nvidia-)' >"$temporary/needed.in"
echo 'setuptools>=77' >>"$temporary/needed.in"
lock torch "what PyTorch needs, and what builds the packages" "$temporary/needed.in"
lock shared-core "what shared_core needs" shared/pyproject.toml --extra datasets --extra search --extra onnx --extra transformers
for project in packages/*/pyproject.toml; do
    name=$(basename "$(dirname "$project")")
    lock "$name" "what $name needs" "$project"
done
