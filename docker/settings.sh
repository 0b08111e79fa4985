# Sourced, in the repository's folder: what an image is told of its origin, and what .env says about building (Compose reads
# that file itself, others do not).

for name in BASE_IMAGE PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST USER_ID PREFIX TAG; do
    if [ -z "${!name+set}" ] && line=$(grep -s "^$name=" .env | tail -1) && [ -n "$line" ]; then
        value=${line#*=} value=${value%[\"\']} value=${value#[\"\']}
        export "$name=$value"
    fi
done

# a commit with changes on top is none that anybody else has; an address may hold somebody's password
REVISION=$(git rev-parse HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain 2>/dev/null)" ] || REVISION+=+changes
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' shared/pyproject.toml)
SOURCE=$(git remote get-url origin 2>/dev/null | grep -E '^(https?://|ssh://|git@)' | sed 's|//[^@/]*@|//|' || true)
export REVISION VERSION SOURCE
