"""Checkpoints on Modal's volume: what there is, and bringing one here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from shared_core import files, manifest
from shared_core.errors import UserError
from shared_core.launch.modal_call import require_library
from shared_core.launch.plan import WORKSPACE, LaunchPlan

_WITH_IT = ("config.yaml", "run.json", "status.json")  # what makes a folder a run, for the verbs that read one


def listing(plan: LaunchPlan) -> list[str]:
    """One line for each checkpoint of the run.

    Raises UserError: Modal cannot be asked, or has no such run.
    """
    with _explained(plan):
        store = _volume(plan)
        names = _names(store, plan)
        marks = {_pointer(store, plan, mark): mark for mark in ("best", "latest")}
        both = marks if len(marks) == 2 else {name: "best, latest" for name in marks}
        return [f"{name}{'  ' + both[name] if name in both else ''}" for name in names]


def download(plan: LaunchPlan, which: str, out: Path | None) -> Path:
    """Fetch one checkpoint (best, latest or its name) and verify it against its manifest; its folder here.

    It goes to the run's own place here, `out` None, with what the other verbs need to know about the run.

    Raises UserError: there is no such checkpoint, or it arrived damaged; nothing is left of it then.
    """
    with _explained(plan):
        store = _volume(plan)
        names = _names(store, plan)
        name = _pointer(store, plan, which) if which in ("best", "latest") else which
        if name not in names:
            raise UserError(f"--download: no checkpoint {which!r}; there are {', '.join(names) or 'none'}")
        run = plan.inner.runs / plan.inner.package / plan.inner.name
        target = out or run / "checkpoints" / name
        if target.exists():
            raise UserError(f"{target}: is here already; remove it, or give another place with --out")
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_dir(target) as folder:
            _fetch(store, f"{_remote(plan)}/checkpoints/{name}", folder)
            if damage := manifest.verify(folder):
                raise UserError(f"{name}: arrived damaged ({damage}); fetch it again, or another one")
        if out is None:
            for file in _WITH_IT:
                if not (run / file).exists():
                    files.atomic_write(run / file, b"".join(store.read_file(f"{_remote(plan)}/{file}")))
        return target


def _volume(plan: LaunchPlan) -> Any:
    require_library()
    import modal

    return modal.Volume.from_name(str(plan.volume))


def _remote(plan: LaunchPlan) -> str:
    """The run's folder on the volume."""
    path = PurePosixPath(plan.inner.runs) / plan.inner.package / plan.inner.name
    return str(path.relative_to(WORKSPACE) if path.is_absolute() else path)


def _names(store: Any, plan: LaunchPlan) -> list[str]:
    found = {PurePosixPath(entry.path).name for entry in store.listdir(f"{_remote(plan)}/checkpoints")}
    return sorted((n for n in found if manifest.match(Path(n))), key=lambda n: [int(x) for x in n.split("-")[1:]])


def _pointer(store: Any, plan: LaunchPlan, which: str) -> str:
    try:
        return b"".join(store.read_file(f"{_remote(plan)}/checkpoints/{which}")).decode().strip()
    except FileNotFoundError:
        return ""


def _fetch(store: Any, remote: str, folder: Path) -> None:
    """Every file below `remote`, none of them outside `folder`."""
    for entry in store.listdir(remote, recursive=True):
        path = PurePosixPath(entry.path.lstrip("/")).relative_to(remote)
        if ".." in path.parts:
            raise UserError(f"{entry.path}: leads out of the checkpoint; it was not fetched")
        if entry.type.name == "FILE":
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with (folder / path).open("wb") as file:
                for chunk in store.read_file(entry.path):
                    file.write(chunk)


@contextmanager
def _explained(plan: LaunchPlan) -> Iterator[None]:
    """Modal's errors as one line."""
    require_library()
    import modal

    try:
        yield
    except (modal.exception.NotFoundError, FileNotFoundError) as error:
        raise UserError(
            f"--volume {plan.volume}: has no {_remote(plan)}/checkpoints; check --volume and --name (`modal volume ls`)"
        ) from error
    except (modal.exception.AuthError, modal.exception.ConnectionError) as error:
        raise UserError(f"--on modal: {str(error).splitlines()[0]}; see `modal setup`") from error
    except modal.exception.Error as error:
        raise UserError(f"--on modal: {str(error).splitlines()[0]}") from error
