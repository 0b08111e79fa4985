"""Publishing and fetching, with the Hub's real client against a Hub on loopback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hub_runs import REPO, make_run
from hub_server import TOKEN, Hub

from shared_core import hub, publication, records, tensorfile
from shared_core.checkpoint import load_weights
from shared_core.errors import UserError

pytest_plugins = ("hub_fixtures",)


def test_push_publishes_the_allow_list_and_nothing_else(server: Hub, run: records.RunDir) -> None:
    url = hub.push(run.path, REPO)
    assert url == f"{server.url}/{REPO}/tree/step-120"
    repo = server.repo(REPO)
    assert repo.private
    assert sorted(repo.files("step-120")) == [
        "README.md", "SHA256SUMS", "config.yaml", "evaluation/val.json", "figures/curves.png", "metrics.jsonl",
        "model.safetensors",
    ]  # fmt: skip
    [note] = json.loads((run.path / "hub.json").read_text())
    assert note["state"] == "pushed"
    assert (note["commit"], note["tag"]) == (repo.tags["step-120"], "step-120")


def test_push_publishes_the_averaged_weights(server: Hub, run: records.RunDir, tmp_path: Path) -> None:
    hub.push(run.path, REPO)
    (tmp_path / "got.safetensors").write_bytes(server.repo(REPO).files()["model.safetensors"])
    weights, _ = tensorfile.read(tmp_path / "got.safetensors")
    assert torch.equal(weights["w"], torch.tensor([0.0, 1.0, 2.0, 120.0]))


def test_card_carries_the_measured_metrics(server: Hub, run: records.RunDir) -> None:
    hub.push(run.path, REPO)
    card = server.repo(REPO).files()["README.md"].decode()
    _, metadata, text = card.split("---\n", 2)
    [index] = yaml.safe_load(metadata)["model-index"]
    [result] = index["results"]
    [metric] = result["metrics"]  # the undefined F1 is no result
    assert (metric["type"], metric["value"]) == ("accuracy", 0.893)
    assert metric["args"]["n"] == 10_000
    assert 0.886 < metric["args"]["low"] < metric["value"] < metric["args"]["high"] < 0.9
    assert result["dataset"]["split"] == "val"
    assert "| **accuracy** | 0.8930 [0.8868, 0.8989] | 0.5000 [0.4902, 0.5098] |" in text
    assert "| f1 | undefined |" in text
    assert "the darker half is larger" in text
    assert "seed: 7" in text
    assert "![curves](figures/curves.png)" in text


def test_card_is_one_that_the_hub_understands(server: Hub, run: records.RunDir) -> None:
    """The client's own reading of it gives back what was measured."""
    from huggingface_hub import ModelCard

    hub.push(run.path, REPO)
    read = ModelCard(_card(server), ignore_metadata_errors=False).data
    [result] = read.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("accuracy", 0.893, "val")
    assert (result.dataset_type, result.task_type) == ("pair-compare-stacking", "other")
    assert (read.model_name, read.library_name, read.metrics) == ("digits", "pytorch", ["accuracy"])
    assert result.metric_args["method"].startswith("Wilson")


def test_card_says_when_the_metrics_are_another_checkpoints(server: Hub, run: records.RunDir) -> None:
    path = run.evaluation / "val.json"
    path.write_text(path.read_text().replace("step-120", "step-60"))
    hub.push(run.path, REPO)
    assert "Measured on step-60, while the weights here are those of step-120." in _card(server)


def test_card_of_a_run_that_was_not_evaluated_says_so(server: Hub, run: records.RunDir) -> None:
    (run.evaluation / "val.json").unlink()
    hub.push(run.path, REPO)
    assert "Not evaluated." in _card(server)
    assert "model-index" not in _card(server)


def _card(server: Hub) -> str:
    return server.repo(REPO).files()["README.md"].decode()


def test_second_push_sends_weights_once_and_keeps_the_tag(server: Hub, run: records.RunDir) -> None:
    assert hub.push(run.path, REPO) == hub.push(run.path, REPO)
    assert sum(request.startswith("PUT /lfs/") for request in server.requests) == 2  # weights and a figure
    assert list(server.repo(REPO).tags) == ["step-120"]


def test_other_content_of_the_same_step_gets_its_own_tag_and_leaves_no_old_files(
    server: Hub, run: records.RunDir, tmp_path: Path
) -> None:
    hub.push(run.path, REPO)
    other = make_run(tmp_path / "runs" / "pair-compare-stacking" / "other")
    (other.figures / "curves.png").rename(other.figures / "reliability.png")
    assert hub.push(other.path, REPO).endswith("/step-120-2")
    assert "figures/curves.png" not in server.repo(REPO).files()
    assert "figures/curves.png" in server.repo(REPO).files("step-120")


def test_taken_tag_is_refused_before_anything_is_sent(server: Hub, run: records.RunDir) -> None:
    hub.push(run.path, REPO, tag="v1")
    server.requests.clear()
    with pytest.raises(UserError, match="tag 'v1' is taken"):
        hub.push(run.path, REPO, tag="v1")
    assert not [request for request in server.requests if "/preupload/" in request or "/commit/" in request]


def test_private_push_to_a_public_repository_is_refused(server: Hub, run: records.RunDir) -> None:
    server.add(REPO, {"README.md": b"---\n---\n"})
    with pytest.raises(UserError, match="it is public; say --private false"):
        hub.push(run.path, REPO)
    assert list(server.repo(REPO).files()) == ["README.md"]
    hub.push(run.path, REPO, private=False)
    assert "model.safetensors" in server.repo(REPO).files()


@pytest.mark.parametrize("where", ["config.yaml", "metrics.jsonl", "evaluation/val.json"])
@pytest.mark.parametrize("secret", ["hf_" + "a1B2" * 9, TOKEN])
def test_token_in_a_file_stops_the_push(server: Hub, run: records.RunDir, where: str, secret: str) -> None:
    path = run.path / where
    kept = path.read_text().rstrip()
    path.write_text(f"{kept}\nx: {secret}\n" if where == "config.yaml" else kept[:-1] + f', "x": "{secret}"' + "}")
    with pytest.raises(UserError, match="holds an access token"):
        hub.push(run.path, REPO)
    assert server.requests == []


def test_token_travels_in_headers_only(server: Hub, run: records.RunDir) -> None:
    hub.push(run.path, REPO)
    assert not [body for body in server.bodies if TOKEN.encode() in body]
    kept = [path for path in run.path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert kept == []


def test_preprocessing_is_published_and_comes_back(server: Hub, run: records.RunDir, tmp_path: Path) -> None:
    run.preprocessing.mkdir()
    (run.preprocessing / "scaler.json").write_text('{"mean": 2.5}')
    tensorfile.write(run.preprocessing / "pca.safetensors", {"components": torch.eye(3)})
    (run.preprocessing / "scaler.pkl").write_bytes(b"pickle")
    hub.push(run.path, REPO)
    pulled = records.RunDir(hub.pull(REPO, tmp_path / "pulled"))
    assert sorted(path.name for path in pulled.preprocessing.iterdir()) == ["pca.safetensors", "scaler.json"]
    assert torch.equal(tensorfile.read(pulled.preprocessing / "pca.safetensors")[0]["components"], torch.eye(3))
    (pulled.preprocessing / "scaler.json").write_text('{"mean": 0}')
    with pytest.raises(UserError, match=r"preprocessing/scaler\.json is missing or differs"):
        hub.pull(REPO, pulled.path)


def test_published_run_comes_back(server: Hub, run: records.RunDir, tmp_path: Path) -> None:
    hub.push(run.path, REPO)
    folder = hub.pull(REPO, tmp_path / "pulled", "step-120")
    assert torch.equal(load_weights(folder)["w"], torch.tensor([0.0, 1.0, 2.0, 120.0]))
    pulled = records.find(folder)
    assert pulled.read_status()["state"] == "finished"
    assert records.read_evaluations(pulled) == records.read_evaluations(run)
    assert hub.used()[f"model {REPO}"] == server.repo(REPO).tags["step-120"]
    assert hub.pull(REPO, folder, "step-120") == folder  # again: nothing to do
    with pytest.raises(UserError, match="came from the Hub"):
        hub.push(folder, "ada/other")


def test_pull_leaves_other_folders_alone(server: Hub, run: records.RunDir, tmp_path: Path) -> None:
    hub.push(run.path, REPO)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(UserError, match="is there already"):
        hub.pull(REPO, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"


def test_changed_file_is_noticed_and_nothing_is_left(server: Hub, run: records.RunDir, tmp_path: Path) -> None:
    hub.push(run.path, REPO)
    repo = server.repo(REPO)
    damaged = repo.files()["model.safetensors"][:-1] + b"\x01"
    server.commit(repo, {**repo.files(), "model.safetensors": damaged, "README.md": b"edited by hand: allowed"})
    with pytest.raises(UserError, match=r"model\.safetensors is missing or differs from its checksum"):
        hub.pull(REPO, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    assert not list(tmp_path.glob(".pulled*"))


@pytest.mark.parametrize("name", ["../../evil.json", "evaluation/../../x.json", "model.bin", "evaluation/a/b.json"])
def test_checksums_cannot_name_other_files(tmp_path: Path, name: str) -> None:
    for needed in ("model.safetensors", "config.yaml"):
        (tmp_path / needed).write_bytes(b"")
    sums = "".join(f"{'0' * 64}  {listed}\n" for listed in (name, "model.safetensors", "config.yaml"))
    (tmp_path / "SHA256SUMS").write_text(sums)
    with pytest.raises(UserError, match="which no publication has"):
        publication.copy_verified(tmp_path, tmp_path / "out", "x")


def test_repository_that_push_did_not_make(server: Hub, tmp_path: Path) -> None:
    server.add("bob/other", {"pytorch_model.bin": b"pickle", "README.md": b"hi"})
    with pytest.raises(UserError, match="`push` did not make it"):
        hub.pull("bob/other", tmp_path / "x")


def test_snapshot_is_pinned_and_served_offline(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    first = server.add("bob/images", {"a.txt": b"one", "b.png": b"two"}, kind="dataset")
    folder = hub.snapshot("bob/images", "main", "dataset", ("*.png",))
    assert [path.name for path in folder.iterdir()] == ["b.png"]
    assert first in capfd.readouterr().err
    server.commit(server.repo("bob/images", "dataset"), {"b.png": b"changed"})
    assert (hub.snapshot("bob/images", first, "dataset") / "b.png").read_bytes() == b"two"

    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub.commit("bob/images", "main", "dataset") == first  # as it was when last seen
    assert (hub.snapshot("bob/images", "main", "dataset") / "b.png").read_bytes() == b"two"
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        hub.commit("bob/never-seen", "main", "dataset")


@pytest.mark.slow
def test_dataset_is_loaded_at_a_commit(server: Hub, tmp_path: Path) -> None:
    """In a process of its own: the library reads its settings when it is imported."""
    commit = server.add("bob/table", {"train.csv": b"image,label\n1,0\n2,1\n"}, kind="dataset")
    code = (
        "from shared_core import hub\n"
        "table = hub.dataset('bob/table', 'main')\n"
        "print([row['label'] for row in table['train']], hub.used())"
    )
    environment = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == f"[0, 1] {{'dataset bob/table': '{commit}'}}"


def test_models_are_pinned_and_run_no_code(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = server.add("bob/net", {"config.json": b"{}"})
    calls: list[tuple[str, dict[str, Any]]] = []
    auto = types.SimpleNamespace(from_pretrained=lambda name, **options: calls.append((name, options)))
    fake = types.ModuleType("transformers")
    fake.AutoModel = fake.AutoTokenizer = fake.AutoencoderKL = auto  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", fake)
    monkeypatch.setitem(sys.modules, "diffusers", fake)
    hub.model("bob/net", "main", hidden=3)
    hub.tokenizer("bob/net", None)
    hub.autoencoder("bob/net", None)
    assert calls == [
        ("bob/net", {"revision": commit, "use_safetensors": True, "trust_remote_code": False, "hidden": 3}),
        ("bob/net", {"revision": commit, "trust_remote_code": False}),
        ("bob/net", {"revision": commit, "use_safetensors": True}),
    ]
    calls.clear()
    (tmp_path / "net").mkdir()
    hub.model(f"{tmp_path}/net", None)
    hub.autoencoder(f"{tmp_path}/net", None)
    local = {"local_files_only": True, "use_safetensors": True}
    assert calls == [(f"{tmp_path}/net", {**local, "trust_remote_code": False}), (f"{tmp_path}/net", local)]
    with pytest.raises(UserError, match="there is no such folder"):
        hub.model("./net", None)


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="pip install transformers"):
        hub.model("bob/net", "main")


@pytest.mark.parametrize("name", ["digits", "a/b/c", "ada/", "ada/../x", "https://hub/ada/digits", ""])
def test_bad_names_are_refused_before_the_network(server: Hub, run: records.RunDir, name: str) -> None:
    with pytest.raises(UserError, match="OWNER/NAME"):
        hub.push(run.path, name)
    with pytest.raises(UserError, match="OWNER/NAME"):
        hub.commit(name, None)
    assert server.requests == []


REFUSALS = [
    (r"POST /api/repos/create", 500, {}, "the Hub has a fault (500); repeat the command later"),
    (r"POST /api/repos/create", 429, {}, "too many requests (429)"),
    (r"POST /api/repos/create", 429, {"Retry-After": "3600"}, "(429); repeat the command in 3600 seconds"),
    (r"POST /api/models/.*/commit/", 403, {}, "this token may not do that (403)"),
    (r"POST /api/models/.*/commit/", 412, {}, "somebody else is changing the repository (412)"),
    (r"POST /api/models/.*/commit/", 422, {}, "the Hub refuses it (422)"),
    (r"POST /api/models/.*/tag/", 409, {}, "somebody else is changing the repository (409)"),
    (r"PUT /lfs/", 403, {}, "this token may not do that (403)"),
    (r"GET /api/models/.*/refs", 403, {"X-Error-Code": "GatedRepo"}, "access has to be asked for"),
]


@pytest.mark.parametrize(("pattern", "status", "headers", "message"), REFUSALS)
def test_refusals_are_one_line_and_are_recorded(
    server: Hub, run: records.RunDir, pattern: str, status: int, headers: dict[str, str], message: str
) -> None:
    server.fail(pattern, status, times=99, **headers)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        hub.push(run.path, REPO)
    assert "\n" not in str(caught.value)
    assert f"push to {REPO}" in str(caught.value)
    [note] = json.loads((run.path / "hub.json").read_text())
    assert (note["state"], note["reason"]) == ("failed", str(caught.value))
    server.faults.clear()
    hub.push(run.path, REPO)  # and the same command, repeated, succeeds
    assert json.loads((run.path / "hub.json").read_text())[-1]["state"] == "pushed"


def test_wrong_token(server: Hub, run: records.RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(UserError, match=r"no access with this token \(401\).*hf auth login") as caught:
        hub.push(run.path, REPO)
    assert "hf_wrong" not in str(caught.value)


def test_foreign_owner(server: Hub, run: records.RunDir) -> None:
    with pytest.raises(UserError, match=r"403.*write access to that owner"):
        hub.push(run.path, "bob/digits")


def test_unknown_repository_and_revision(server: Hub, tmp_path: Path) -> None:
    server.add("bob/net", {"a": b"1"})
    with pytest.raises(UserError, match=r"no such repository.*404.*check the name"):
        hub.pull("bob/nothing", tmp_path / "x")
    with pytest.raises(UserError, match=r"bob/net at v9: there is no such revision"):
        hub.pull("bob/net", tmp_path / "x", "v9")
    assert not (tmp_path / "x").exists()


def test_no_connection(server: Hub, run: records.RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="cannot be reached; check the connection"):
        hub.push(run.path, REPO)
    with pytest.raises(UserError, match="cannot be reached; check the connection"):
        hub.pull(REPO, tmp_path / "x")


def test_run_without_checkpoint_is_refused(server: Hub, tmp_path: Path) -> None:
    run = records.RunDir(tmp_path / "empty")
    run.checkpoints.mkdir(parents=True)
    run.write_config("seed: 1\n")
    with pytest.raises(UserError, match="no checkpoint"):
        hub.push(run.path, REPO)
    assert server.requests == []


def test_import_is_cheap() -> None:
    code = "import sys, shared_core.hub; print({'torch', 'huggingface_hub', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
