"""Where metrics also go: TensorBoard, Weights & Biases or Trackio. Each is imported only when it is used."""

from __future__ import annotations

import importlib
import importlib.util
import uuid
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared_core import files
from shared_core.errors import UserError

if TYPE_CHECKING:
    import torch


class Tracker(ABC):
    """Receives every metrics row of a run."""

    @abstractmethod
    def log(self, step: int, values: dict[str, float]) -> None: ...

    def picture(self, step: int, name: str, picture: torch.Tensor) -> None:  # noqa: B027
        """Receives a (height, width, 3) uint8 picture; some show none."""

    @abstractmethod
    def close(self) -> None: ...


def check(name: str) -> None:
    """Raise a `UserError` that names the extra to install if the tracker's package is missing."""
    if name != "none" and importlib.util.find_spec(name) is None:
        raise UserError(
            f"logging.tracker: {name} is not installed; run `pip install 'shared-core[{name}]'` or use --tracker none"
        )


def start(name: str, run: Path, first_step: int) -> Tracker:
    """Open the tracker `name` for the run folder `run`, whose rows up to `first_step` are already there."""
    if name == "tensorboard":
        return TensorBoard(run, first_step)
    if name in ("wandb", "trackio"):
        return Service(name, run)
    return Nothing()


class Nothing(Tracker):
    def log(self, step: int, values: dict[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class TensorBoard(Tracker):
    """Event files in the run's `events/`."""

    def __init__(self, run: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # purge_step hides what an interrupted run wrote after the checkpoint that this one resumes from.
        self._writer = SummaryWriter(str(run / "events"), purge_step=first_step or None)

    def log(self, step: int, values: dict[str, float]) -> None:
        for key, value in values.items():
            if key != "step":
                self._writer.add_scalar(key, value, step)

    def picture(self, step: int, name: str, picture: torch.Tensor) -> None:
        self._writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        self._writer.close()


class Service(Tracker):
    """Weights & Biases or Trackio, which share one interface. The project is the package, the run keeps its name."""

    def __init__(self, name: str, run: Path) -> None:
        module: Any = importlib.import_module(name)
        options: dict[str, Any] = {"project": run.parent.name, "name": run.name, "resume": "allow"}
        if name == "wandb":
            options |= {"dir": str(run), "id": _identity(run)}
        self._run = module.init(**options)
        self._module = module

    def log(self, step: int, values: dict[str, float]) -> None:
        self._module.log({key: value for key, value in values.items() if key != "step"}, step=step)

    def picture(self, step: int, name: str, picture: torch.Tensor) -> None:
        self._module.log({name: self._module.Image(picture.numpy())}, step=step)

    def close(self) -> None:
        self._module.finish()


def _identity(run: Path) -> str:
    """An id that stays with the run folder, so that a resumed run goes on in the same W&B run."""
    path = run / "wandb_id"
    if not path.is_file():
        files.atomic_write(path, uuid.uuid4().hex[:12])
    return path.read_text(encoding="utf-8").strip()
