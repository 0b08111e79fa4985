"""The fixtures `server` and `run`, for test files that say ``pytest_plugins = ("hub_fixtures",)``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_runs import environment, make_run, no_waiting
from hub_server import Hub, serve

from shared_core import records


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A Hub, and a client that knows it, has its token, and an empty cache; in child processes as well."""
    from huggingface_hub import constants, utils

    with serve() as running:
        template = running.url + constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        for name, value in environment(running, tmp_path).items():
            monkeypatch.setenv(name, value)
        no_waiting(monkeypatch)
        utils.disable_progress_bars()
        yield running


@pytest.fixture
def run(tmp_path: Path) -> records.RunDir:
    return make_run(tmp_path / "runs" / "pair-compare-stacking" / "fast")
