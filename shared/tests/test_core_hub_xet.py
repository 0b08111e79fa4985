"""Large files through xet, as the client sends and takes them wherever its xet library is installed and the Hub has it.

The library is the real one; in place of the Hub's storage service it uses a folder, as its own tests do. What that
cannot show is how the service behaves: its faults, its limits, its rights.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from hub_runs import REPO, save
from hub_server import Hub

from shared_core import hub, publication, records
from shared_core.checkpoint import load_weights
from shared_core.errors import UserError

hf_xet = pytest.importorskip("hf_xet", reason="huggingface_hub's xet library is not installed here")
pytest_plugins = ("hub_fixtures",)


@pytest.fixture
def xet(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(constants, "HF_XET_CACHE", str(tmp_path / "xet-cache"))
    server.xet = tmp_path / "store"
    server.xet.mkdir()
    return server


def test_weights_go_and_come_through_xet(xet: Hub, run: records.RunDir, tmp_path: Path) -> None:
    save(run, 120, best=True, more=torch.randn(100_000))
    hub.push(run.path, REPO)
    assert xet.count("PUT /lfs/") == xet.count("lfs/objects/batch") == 0
    with publication.scratch(run.path) as folder:  # the same bytes again, of which the server saw a hash only
        publication.stage(run, folder, REPO)
        repo = xet.repo(REPO)
        for path in (folder / "model.safetensors", folder / "figures" / "curves.png"):
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            assert digest in xet.objects
            [found] = hf_xet.hash_files([str(path)])
            xet.xet_hashes[digest] = found.hash
            repo.commits[repo.refs["main"]][path.relative_to(folder).as_posix()] = content
    pulled = hub.pull(REPO, tmp_path / "pulled")
    assert xet.count("GET /cdn/") == 0
    expected, got = load_weights(run.path), load_weights(pulled)
    assert [name for name in expected if not torch.equal(got[name], expected[name])] == []


def test_mirror_without_xet_is_named(xet: Hub, run: records.RunDir) -> None:
    xet.xet = None
    with pytest.raises(UserError, match=r"xet.*HF_HUB_DISABLE_XET=1"):
        hub.push(run.path, REPO)
