"""docker/Dockerfile as Modal's builder can take it.

Modal's client sends the files that COPY names, word for word, and nothing for `RUN --mount=type=bind`; and a container
of Modal starts Modal's own program, as root, who owns the volume. So the same file is sent with the package's name
filled in, binds as copies, without cache mounts, and with neither entrypoint nor user at its end.
"""

from __future__ import annotations

import re
from pathlib import Path

from shared_core.errors import UserError

DOCKERFILE = Path("docker/Dockerfile")
_BIND = re.compile(r"^RUN (?=.*?--mount=type=bind,source=([^,\s]+),target=([^,\s]+)\S*)", re.MULTILINE)
_MOUNT = re.compile(r"--mount=\S+\s*(?:\\\n\s*)?")


def repository() -> Path:
    """The checkout that this is run in or installed from.

    Raises UserError: there is none.
    """
    for folder in (Path.cwd(), *Path.cwd().parents, *Path(__file__).resolve().parents):
        if (folder / DOCKERFILE).is_file() and (folder / "packages").is_dir():
            return folder
    raise UserError(f"--on modal: no {DOCKERFILE} here; run this in a checkout of the repository, or give an --image")


def dockerfile(root: Path, package: str) -> str:
    """The text of the Dockerfile for one package.

    Raises UserError: the repository has no such package.
    """
    if not re.fullmatch(r"[\w-]+", package) or not (root / "packages" / package / "pyproject.toml").is_file():
        raise UserError(f"--package: {root / 'packages'} has no {package!r}")
    text = (root / DOCKERFILE).read_text()
    text = re.sub(r"\$\{PACKAGE\}|\$PACKAGE\b", package, text)
    text = _BIND.sub(lambda found: f"COPY {found[1]} {found[2]}\nRUN ", text)
    text = _MOUNT.sub("", text)
    return f"{text.rstrip()}\n\nUSER root\nENTRYPOINT []\n"
