"""The whole command on a tiny set: prepare, train, evaluate, predict, and what goes wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from command_line import error

from pair_compare_stacking import model, pairfile, train
from pair_compare_stacking.__main__ import main
from pair_compare_stacking.generator import digit_prior
from shared_core.runtime import Runtime
from shared_core.settings import Runtime as RuntimeSettings

TINY = [
    *("--data.n_train", "60", "--data.n_val", "40", "--data.n_test_public", "30", "--severity", "1"),
    *("--stream.pairs_per_epoch", "64", "--epochs", "2", "--batch-size", "16", "--model.widths", "4,8"),
    *("--model.layers", "1,1", "--model.feat_dim", "8", "--model.hidden", "4", "--logging.tracker", "none"),
    *("--runtime.device", "cpu", "--runtime.threads", "1", "--logging.progress", "false", "--name", "tiny"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    assert run(folder, "prepare") == 0
    assert run(folder, "train") == 0
    return folder


def run(folder: Path, verb: str, *flags: str) -> int:
    return main([verb, "--paths.data", str(folder / "data"), "--paths.runs", str(folder / "runs"), *TINY, *flags])


def of_run(folder: Path, *parts: str) -> Path:
    return folder.joinpath("runs", "pair-compare-stacking", "tiny", *parts)


def prepared(folder: Path) -> Path:
    return folder / "data" / "pair-compare-stacking" / "digits-disjoint"


def test_evaluation_has_every_metric_with_its_interval(home: Path) -> None:
    assert run(home, "evaluate") == 0
    for split, n in (("val", 40), ("test_public", 30)):
        found = json.loads(of_run(home, "evaluation", f"{split}.json").read_text())
        assert found["n"] == n
        assert set(found["metrics"]) == {"accuracy", "f1", "precision", "recall", "roc_auc", "ece", "brier"}
        ece = found["metrics"].pop("ece")
        assert 0 <= ece["value"] <= 1 and ece["low"] is None and "of a calibrated model" in ece["method"]
        assert all(e["low"] <= e["value"] <= e["high"] for e in found["metrics"].values() if e["value"] is not None)
        assert 0 <= found["baselines"]["trees on pixels"]["accuracy"]["value"] <= 1
        names = {Path(figure).name.removeprefix(f"{split}_") for figure in found["figures"]}
        assert names == {
            *("reliability.png", "risk_coverage.png", "by_distance.png", "by_ink.png", "digits.png", "worst.png")
        }
        for table in ("Accuracy by distance of the digits", "Accuracy by visible ink"):
            assert sum(row["pairs"] for row in found["tables"][table]) == n
        errors = round(n * (1 - found["metrics"]["accuracy"]["value"]))
        assert sum(row["errors"] for row in found["tables"]["Where the errors are"]) == 2 * errors  # divided twice
        answered = found["tables"]["Risk against coverage"]
        assert [row["most confident"] for row in answered] == ["50%", "80%", "90%", "95%", "100%"]
        assert answered[-1]["accuracy"] == found["metrics"]["accuracy"]
        assert all(of_run(home, figure).is_file() for figure in found["figures"])
    assert "accuracy on test_public" in of_run(home, "report.md").read_text()


def test_table_of_all_models_of_a_run_with_one_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(of_run(home, "evaluation").iterdir())
    assert run(home, "evaluate", "--all-models") == 2
    assert f"--all-models: {of_run(home)} has one model only; leave the flag out" in error(capsys)
    assert sorted(of_run(home, "evaluation").iterdir()) == before


def test_intervals_are_over_the_source_images(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "evaluate", "--split", "test_public") == 0
    sources = pairfile.read_truth(prepared(home) / "test_public.npz").sources
    over = f"over {len(np.unique(sources))} images"
    said = capsys.readouterr()
    assert f"Wilson 95 % {over}" in said.out + said.err
    found = json.loads(of_run(home, "evaluation", "test_public.json").read_text())
    trees = found["baselines"]["trees on pixels"]
    assert f"the 30 pairs are made of {len(np.unique(sources))} source images" in found["notes"][0]
    for estimate in (
        *(found["metrics"][name] for name in ("accuracy", "f1", "roc_auc", "brier")),
        *(trees["accuracy"], trees["differences"]["accuracy"]),
        *(row["accuracy"] for row in found["tables"]["What the answer is made of"]),
        found["tables"]["Risk against coverage"][-1]["accuracy"],
    ):
        assert estimate["value"] is None or over in estimate["method"], estimate
    for table in ("Accuracy by distance of the digits", "Accuracy by visible ink", "Risk against coverage"):
        assert all("images" in row["accuracy"]["method"] for row in found["tables"][table])
    gain = found["metrics"]["accuracy"]["value"] - trees["accuracy"]["value"]
    assert trees["differences"]["accuracy"]["value"] == pytest.approx(gain)


def test_without_sources_pairs_are_taken_as_independent_and_that_is_said(home: Path) -> None:
    sidecar = pairfile.truth_path(prepared(home) / "val.npz")
    whole = sidecar.read_bytes()
    try:
        sidecar.unlink()
        assert run(home, "evaluate", "--split", "val") == 0
    finally:
        sidecar.write_bytes(whole)
    found = json.loads(of_run(home, "evaluation", "val.json").read_text())
    assert found["metrics"]["accuracy"]["method"] == "Wilson 95 %"
    assert "the intervals take the pairs as independent" in found["notes"][0]


def test_evaluation_agrees_with_the_answer_file(home: Path) -> None:
    """Accuracy recomputed from the CSV and the separate label file equals the evaluation's."""
    assert run(home, "predict") == run(home, "evaluate", "--baseline", "false") == 0
    answers, truth = (
        np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")
        for path in (
            of_run(home, "predictions", "pred_public.csv"),
            prepared(home) / "test_public_labels.csv",
        )
    )
    assert (answers["id"] == truth["id"]).all()
    found = json.loads(of_run(home, "evaluation", "test_public.json").read_text())
    assert found["metrics"]["accuracy"]["value"] == pytest.approx((answers["label"] == truth["label"]).mean())


def test_check_accepts_our_answers_and_names_a_defect(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "predict") == 0
    path = of_run(home, "predictions", "pred_public.csv")
    assert run(home, "predict", "--check", str(path)) == 0
    broken = home / "broken.csv"
    broken.write_text(path.read_text().replace("PUB_0000003,", "PUB_0000004,", 1))
    capsys.readouterr()
    assert run(home, "predict", "--check", str(broken)) == 2
    assert "PUB_0000004" in error(capsys)


class Gathered:
    """Stands for Accelerate in the last of three processes: notes what this one brings, adds nothing of the others."""

    def __init__(self) -> None:
        self.brought: list[torch.Size] = []

    def gather(self, rows: torch.Tensor) -> torch.Tensor:
        self.brought.append(rows.shape)
        return torch.cat([rows] * 3)


def test_process_without_rows_joins_the_gathering() -> None:
    """Two pairs for three processes: if one stayed away, the others would wait for ever."""
    gathered = Gathered()
    runtime = Runtime(gathered, torch.device("cpu"), "fp32", rank=2, world=3)  # type: ignore[arg-type]
    network = model.PairModel(digit_prior(0.8), widths=(4,), layers=(1,), feat_dim=8, hidden=4).eval()
    prediction = train.predict(network, torch.zeros(2, 28, 56, dtype=torch.uint8), runtime)
    assert gathered.brought == [(1,), (1, 2, 10)]  # the shape of everybody's share
    assert prediction.logit.shape == (2,)
    assert prediction.digit_logits.shape == (2, 2, 10)
    assert not prediction.logit.any()  # padding: this process had nothing to say


def test_pool_and_val_share_no_source_image(home: Path) -> None:
    folder = prepared(home)
    pool = np.load(folder / "pool.npz")["ids"]
    assert not np.isin(pool, pairfile.read_truth(folder / "val.npz").sources).any()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data.name", "nowhere"], "nowhere"),
        (["--severity", "2"], "prepared with severity 1 instead of 2"),
        (["--model.layers", "1,1,1"], "--model.widths, --model.layers: widths has 2 stages, layers 3"),
        (["--batch-size", "65"], "stream.pairs_per_epoch: 64 is less than one batch (65)"),
        (["--epohs", "3"], "did you mean"),
        (["--lr", "fast"], "--lr"),
    ],
)
def test_mistake_gets_one_line(home: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str) -> None:
    assert run(home, "train", "--resume", "never", *flags) == 2
    assert message in error(capsys)
    assert not of_run(home).with_name("tiny-2").exists()


def test_settings_without_weights_are_those_of_the_training(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every shape would fit, and the answers would be of a model that nobody trained."""
    before = of_run(home, "evaluation", "val.json").read_text()
    for verb in ("evaluate", "predict"):
        assert run(home, verb, "--antisymmetric", "false") == 2
        assert "another network (model.antisymmetric: true -> false); leave these flags out" in error(capsys)
    assert of_run(home, "evaluation", "val.json").read_text() == before


def test_a_tie_is_answered_alike_in_training_and_evaluation() -> None:
    """A head of dead units leaves the log-odds at exactly 0."""
    logit = torch.tensor([0.0, -0.0, 1.0, -1.0])
    answers = torch.sigmoid(logit.double()).numpy() >= 0.5
    assert train.says_left(logit).tolist() == answers.tolist() == [True, True, True, False]


def test_weights_of_another_model_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(home, "predict", "--model.widths", "4,12") == 2
    assert "another network (model.widths: [4, 8] -> [4, 12])" in error(capsys)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not really an archive"])
def test_damaged_set_is_named(home: Path, capsys: pytest.CaptureFixture[str], damage: bytes) -> None:
    path = prepared(home) / "val.npz"
    whole = path.read_bytes()
    try:
        path.write_bytes(damage)
        assert run(home, "train", "--resume", "never") == 2
        assert str(path) in error(capsys)
    finally:
        path.write_bytes(whole)


def test_swap_average_makes_any_model_antisymmetric() -> None:
    torch.manual_seed(0)
    net = model.PairModel(digit_prior(0.8), (4,), (1,), 8, 4, antisymmetric=False).eval()
    torch.nn.init.normal_(net.comparison.terms[0].out.weight, std=3)
    x = torch.randint(0, 256, (9, 28, 56), dtype=torch.uint8)
    swapped = torch.cat([x[:, :, 28:], x[:, :, :28]], dim=2)
    runtime = Runtime.start(RuntimeSettings(device="cpu"), 0)
    plain = [train.predict(net, picture, runtime).logit for picture in (x, swapped)]
    averaged = [train.predict(net, picture, runtime, swapped_too=True).logit for picture in (x, swapped)]
    assert not torch.allclose(plain[0], -plain[1], atol=1e-3)
    torch.testing.assert_close(averaged[0], -averaged[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(averaged[0], (plain[0] - plain[1]) / 2, rtol=1e-5, atol=1e-5)


def test_flags_of_the_guide_mean_our_settings(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--use_fusion", "--use_bottleneck", "--width_mult", "1.25", "--feat_dim", "64", "--layers", "3,3"]
    assert run(home, "train", *flags, "--gradient_accumulation_steps", "2", "--use_amp", "--print-config") == 0
    wanted = yaml.safe_load(capsys.readouterr().out)
    assert wanted["model"]["heads"] == ["difference", "concatenation", "product", "cosine", "l2", "residual"]
    assert (wanted["model"]["block"], wanted["model"]["width_mult"]) == ("bottleneck", 1.25)
    assert (wanted["model"]["feat_dim"], wanted["model"]["layers"]) == (64, [3, 3])
    assert (wanted["training"]["accumulation"], wanted["runtime"]["precision"]) == (2, "auto")
