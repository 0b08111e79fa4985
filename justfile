# `just` lists what there is. Everything runs in an activated virtual environment, or else in .venv, which is made
# and filled when needed.

set shell := ["bash", "-euo", "pipefail", "-c"]
set positional-arguments

# the packages are installed uncompiled, which is quicker; what is imported is compiled and kept at its first import
unexport PYTHONDONTWRITEBYTECODE

venv := env("VIRTUAL_ENV", justfile_directory() / ".venv")
python := venv / "bin/python"
packages := "timeseries-dualmodal retina-diffusion pair-compare-stacking mabe-behavior multimodal-fusion"
services := "dualmodal retina pair mabe fusion"

[private]
default:
    @'{{ just_executable() }}' --justfile '{{ justfile() }}' --list --unsorted

# Runs a package's demo on real data: prepare, train, evaluate, predict, report
[group('run')]
demo NAME="pair-compare-stacking" *FLAGS: (known NAME) install
    @module=${1//-/_}; shift; '{{ python }}' -m "$module" demo "$@"

# Runs any verb of a package: just run pair-compare-stacking train --config fast
[group('run')]
run NAME VERB *FLAGS: (known NAME) install
    @module=${1//-/_}; shift; '{{ python }}' -m "$module" "$@"

# Builds a package's image, or those of `all`: just build retina-diffusion
[group('containers')]
[no-exit-message]
build NAME:
    @[ "$1" = all ] || '{{ just_executable() }}' known "$1"
    @bash docker/build.sh "$1"

# Trains in a package's image: just train pair-compare-stacking --config demo
[group('containers')]
[no-exit-message]
train NAME *FLAGS: (known NAME)
    @service=$('{{ just_executable() }}' service "$1"); shift; bash docker/compose.sh run --rm "$service" train "$@"

# Opens a shell in a package's image, with its data and runs
[group('containers')]
[no-exit-message]
shell NAME="pair-compare-stacking": (known NAME)
    @bash docker/compose.sh run --rm --entrypoint bash "$('{{ just_executable() }}' service "$1")"

# Publishes a run on the Hub, from its image: just push pair-compare-stacking demo [OWNER/NAME]
[group('containers')]
[no-exit-message]
push NAME RUN *FLAGS: (known NAME)
    @service=$('{{ just_executable() }}' service "$1"); run=$2; shift 2; bash docker/compose.sh run --rm "$service" push --run "$run" "$@"

# Follows what the newest container of a package prints
[group('containers')]
[no-exit-message]
logs NAME="pair-compare-stacking": (known NAME) install
    @'{{ python }}' -m shared_core.images logs "$1"

# Says what a container would miss here: engine, GPU runtime, driver, disk, memory, ports
[group('containers')]
[no-exit-message]
doctor: install
    @'{{ python }}' -m shared_core.images doctor

# Tries a package's image: user, labels, help without network, demo, SIGTERM and resume
[group('containers')]
[no-exit-message]
smoke NAME: (known NAME) install
    @'{{ python }}' -m shared_core.images smoke "$1"

# Pushes a package's image, tagged with version and commit: just publish-image pair-compare-stacking registry.example.org/team
[group('containers')]
[no-exit-message]
publish-image NAME REGISTRY: (known NAME) install
    @'{{ python }}' -m shared_core.images publish "$1" "$2"

# `docker compose` with the CPU override where there is no NVIDIA GPU: just compose up tensorboard
[group('containers')]
[no-exit-message]
compose *ARGS:
    @bash docker/compose.sh "$@"

# Runs the tests; `just test slow` those that take longer, `just test all` both; flags go to pytest
[group('check')]
test WHICH="fast" *FLAGS: install
    #!/usr/bin/env bash
    set -euo pipefail
    shift $(( $# > 0 ? 1 : 0 ))
    workers=()
    case '{{ WHICH }}' in
        fast) marker='not slow'; workers=(-n logical --maxprocesses 8 --dist loadfile) ;;  # slow ones start processes of their own
        slow) marker='slow' ;;
        all) marker='slow or not slow' ;;
        *) echo "just test: no set of tests is called '{{ WHICH }}'; there are fast, slow and all" >&2; exit 2 ;;
    esac
    '{{ python }}' -m pytest -m "$marker" ${workers[@]+"${workers[@]}"} "$@"

# Checks style and formatting
[group('check')]
lint: install
    '{{ python }}' -m ruff check .
    '{{ python }}' -m ruff format --check .

# Checks the types of the shared core
[group('check')]
types: install
    '{{ python }}' -m mypy

# Formats the code and mends what can be mended by itself
[group('check')]
fmt: install
    '{{ python }}' -m ruff check --fix .
    '{{ python }}' -m ruff format .

# Makes the environment and installs everything into it; does nothing where nothing changed
[group('set up')]
install:
    #!/usr/bin/env bash
    set -euo pipefail
    venv='{{ venv }}' python='{{ python }}'
    if [ ! -x "$python" ]; then
        if command -v uv >/dev/null; then uv venv --quiet "$venv"; else python3 -m venv "$venv"; fi
    fi
    # what is installed is a function of these: the folder counts because the packages are installed in place
    wanted=$({ pwd; "$python" --version; cat requirements.txt shared/pyproject.toml packages/*/pyproject.toml; } | cksum)
    [ "$wanted" = "$(cat "$venv/.installed" 2>/dev/null || true)" ] && exit 0
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        { echo "just: Python 3.11 or newer is needed, and $python is $("$python" --version)" >&2; exit 2; }
    if "$python" -c 'import pip' 2>/dev/null; then
        pip=("$python" -m pip) fast=(--no-compile --no-warn-script-location)
    else
        pip=(env VIRTUAL_ENV="$venv" uv pip) fast=()
    fi
    echo "installing into $venv: $(grep -c == requirements.txt) packages; PyTorch is the big one"
    "${pip[@]}" install ${fast[@]+"${fast[@]}"} -r requirements.txt
    echo "installing shared/ and packages/ in place"
    editable=(); for folder in ./shared ./packages/*/; do editable+=(-e "$folder"); done
    "${pip[@]}" install --quiet --no-deps --no-build-isolation "${editable[@]}"
    "${pip[@]}" check
    echo "$wanted" > "$venv/.installed"

# Rewrites requirements.txt: exact pins, without addresses; `just lock --upgrade` takes the newest
[group('set up')]
lock *FLAGS: install
    #!/usr/bin/env bash
    set -euo pipefail
    command -v uv >/dev/null && uv=(uv) || { '{{ python }}' -m pip install --quiet uv; uv=('{{ python }}' -m uv); }
    "${uv[@]}" pip compile shared/pyproject.toml packages/*/pyproject.toml --group pyproject.toml:dev \
        --extra search --extra onnx --extra datasets --extra transformers --extra images --extra modal \
        --no-emit-package shared-core --python-version 3.11 \
        --no-emit-index-url --no-emit-find-links --strip-extras --no-annotate --no-header --quiet \
        --output-file requirements.txt "$@"
    # PyTorch brings the CUDA libraries that fit it, and a local version (+cpu) is one machine's business
    { echo '# Made by `just lock`: what runs and tests the whole repository. PyTorch brings its own CUDA libraries.'
      grep -vE '^(#|cuda-|nvidia-|triton==)' requirements.txt | sed 's/+cpu$//'; } > requirements.txt.new
    mv requirements.txt.new requirements.txt
    UV="${uv[*]}" bash docker/lock.sh

# Removes the caches of the tools, containers that have ended and images without a name; data, runs and volumes stay
[group('set up')]
clean:
    if docker info >/dev/null 2>&1; then for what in container image; do docker $what prune --force --filter label=training.package; done; fi
    rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
    find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

# the service of compose.yaml that a package is
[private]
service NAME:
    @paste -d' ' <(tr ' ' '\n' <<<'{{ packages }}') <(tr ' ' '\n' <<<'{{ services }}') | sed -n "s/^$1 //p"

[no-exit-message]
[private]
known NAME:
    #!/usr/bin/env bash
    case " {{ packages }} " in
        *" $1 "*) ;;
        *) echo "just: no package is called '$1'; the five are: {{ packages }}" >&2; exit 2 ;;
    esac
    [ -f "packages/$1/pyproject.toml" ] ||
        { echo "just: $1 is planned and not here yet; here now: $(ls packages | xargs)" >&2; exit 2; }
