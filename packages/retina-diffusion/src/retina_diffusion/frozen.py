"""A network that somebody else has trained and that stays as it is: where it lies, and which version of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared_core import hub, prepared
from shared_core.errors import UserError


@dataclass(frozen=True)
class Source:
    """One version of a pretrained network."""

    key: str  # the setting that names it
    name: str  # OWNER/NAME, or a folder
    version: str  # a commit; of a folder the SHA-256 of its files

    @classmethod
    def of(cls, key: str, given: str, before: Mapping[str, str] | None = None) -> Source:
        """The network that a setting names: OWNER/NAME[@REVISION], or a folder.

        Args:
            before: what `about` gave when a model was trained with it; that commit is taken, whatever is the newest.

        Raises UserError where there is none, or the folder's files are not those of `before`.
        """
        before = before or {}
        if hub.is_folder(given):
            folder = Path(given).expanduser()
            if not folder.is_dir():
                raise UserError(f"{key}: there is no folder {given}; correct the path, or write OWNER/NAME")
            now = cls(key, given, prepared.fingerprint({"network": folder}, {}))
            if hub.is_folder(before.get("path", "")) and before["sha256"] != now.version:
                raise UserError(f"{key}: the files in {given} are not those that this model was trained with")
            return now
        name, revision = hub.parse(given)
        if before.get("path") == name:
            return cls(key, name, hub.commit(name, before["sha256"]))
        return cls(key, name, hub.commit(name, revision))

    @property
    def about(self) -> dict[str, str]:
        """What a run notes of it."""
        return {"path": self.name, "sha256": self.version}

    def load(self, door: Callable[..., Any], **options: Any) -> Any:
        """What a door of `shared_core.hub` makes of it.

        Raises UserError where it cannot be loaded.
        """
        try:
            return door(self.name, None if hub.is_folder(self.name) else self.version, **options)
        except (ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError) as error:  # the libraries' ways
            reason = str(error).strip().partition("\n")[0].partition(" Please ")[0] or type(error).__name__
            raise UserError(f"{self.key}: {self} cannot be loaded ({reason}); choose another") from error

    def __str__(self) -> str:
        return self.name if hub.is_folder(self.name) else f"{self.name}@{self.version}"
