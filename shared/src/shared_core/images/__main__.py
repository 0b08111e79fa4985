"""``python -m shared_core.images VERB``: what the recipes `doctor`, `smoke`, `logs` and `publish-image` run."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from shared_core.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 where a problem was found, 2 for a user's mistake, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="images", description="Checks this machine's Docker, and built images.")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("doctor", help="is this machine ready: engine, GPU, driver, disk, memory, ports, images")
    smoke = verbs.add_parser("smoke", help="run a built image and check what it promises")
    smoke.add_argument("name", metavar="NAME", help="a package, such as retina-diffusion, or an image with its tag")
    smoke.add_argument("--cpu", action="store_true", help="without the GPUs of this machine")
    logs = verbs.add_parser("logs", help="follow what the newest container of a package prints")
    logs.add_argument("name", metavar="NAME", help="a package")
    publish = verbs.add_parser("publish", help="push a built image to a registry, under its version and commit")
    publish.add_argument("name", metavar="NAME", help="a package")
    publish.add_argument("registry", metavar="REGISTRY", help="such as registry.example.org/team")
    prune = verbs.add_parser("prune", help="remove what a killed smoke test has left")
    prune.add_argument("--images", action="store_true", help="also the images of all packages")
    options = parser.parse_args(argv)
    before = signal.signal(signal.SIGTERM, _end)
    try:
        match options.verb:
            case "doctor":
                return _doctor()
            case "smoke":
                return _smoke(options.name, options.cpu)
            case "logs":
                return _logs(options.name)
            case "publish":
                return _publish(options.name, options.registry)
            case _:
                return _prune(options.images)
    except UserError as error:
        print(f"images {options.verb}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


def _doctor() -> int:
    from shared_core.images import doctor

    problems = 0
    for finding in doctor.findings(_checkout()):
        print(finding, flush=True)
        problems += finding.state == "problem"
    print(f"{problems} problem{'s' * (problems != 1)} found" if problems else "ready")
    return 1 if problems else 0


def _smoke(name: str, cpu: bool) -> int:
    from shared_core.images import engine, gpu, smoke

    running = engine.connect()
    has_gpu = bool(gpu.here()) if running.is_local else gpu.engine_knows_gpus(running.info())
    return 0 if smoke.smoke(running, name, has_gpu and not cpu, _say) else 1


def _logs(name: str) -> int:
    from shared_core.images import engine

    engine.connect().newest(name).follow(_say)
    return 0


def _publish(name: str, registry: str) -> int:
    from shared_core.images import engine, publish

    for pushed in publish.publish(engine.connect(), name, registry, _say):
        print(pushed)
    return 0


def _prune(images: bool) -> int:
    from shared_core.images import engine

    for name in engine.connect().prune(images):
        print(f"removed {name}")
    return 0


def _checkout() -> Path | None:
    """The folder with docker/ and compose.yaml: this one or one above it."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / "docker" / "Dockerfile").is_file()), None)


def _say(line: str) -> None:
    print(line, flush=True)


def _end(number: int, frame: FrameType | None) -> None:
    """SIGTERM as Ctrl-C: what was started is removed."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    raise SystemExit(main())
