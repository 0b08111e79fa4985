"""The Kaggle challenge from its folder to a checked submission, on simulated mice in its layout."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mabe_behavior import metric, submission
from mabe_behavior.__main__ import main
from mabe_behavior.bouts import joined
from mabe_behavior.formats import kaggle, videos
from mabe_behavior.recording import Recording
from mabe_behavior.simulation import labs, simulator

SMALL = (
    *("--model.type", "tcn", "--model.width", "8", "--model.depth", "2", "--windows.length", "32"),
    *("--windows.jitter", "8", "--windows.workers", "0", "--batch-size", "8", "--training.steps", "4", "--epochs", "1"),
    *("--split.folds", "2", "--split.test", "0.3", "--trees.rounds", "8", "--trees.frames", "4000"),
    *("--training.ema_decay", "0.9", "--scheduler.warmup_steps", "1", "--features.workers", "1"),
    *("--logging.tracker", "none", "--logging.progress", "false", "--runtime.device", "cpu", "--runtime.threads", "1"),
)


def write(folder: Path, name: str, recordings: list[Recording]) -> None:
    """`NAME.csv`, and the tracks and, for train, the annotations of all recordings."""
    rows = []
    for one in recordings:
        tracks = one.tracks
        place = np.argwhere(tracks.seen_TAP)
        columns = {
            "video_frame": place[:, 0].astype(np.int32),
            "mouse_id": (place[:, 1] + 1).astype(np.int8),
            "bodypart": np.array(tracks.parts)[place[:, 2]],
            **{axis: tracks.xy_TAPX[..., k][tracks.seen_TAP] for k, axis in enumerate("xy")},
        }
        _parquet(folder / f"{name}_tracking" / one.lab / f"{one.name}.parquet", columns)
        if name == "train":
            number = {"agent_id": 1, "target_id": 2}
            lines = one.bouts.rows
            ids = {
                which: np.array([int((line[at] if line[at] != "self" else line[1])[5:]) for line in lines], np.int8)
                for which, at in number.items()
            }
            rest = {"action": 3, "start_frame": 4, "stop_frame": 5}
            columns = ids | {which: [line[at] for line in lines] for which, at in rest.items()}
            _parquet(folder / f"{name}_annotation" / one.lab / f"{one.name}.parquet", columns)
        rows.append(
            dict.fromkeys(videos.COLUMNS, "")
            | {"lab_id": one.lab, "video_id": one.name, "frames_per_second": tracks.fps}
            | {"pix_per_cm_approx": tracks.pixels_per_cm}
            | {"video_width_pix": round(tracks.width or 0), "video_height_pix": round(tracks.height or 0)}
            | {
                "body_parts_tracked": json.dumps(tracks.parts),
                "behaviors_labeled": json.dumps(list(map(str, one.labeled))),
            }
        )
    with (folder / f"{name}.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, videos.COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _parquet(path: Path, columns: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def simulated(names: tuple[str, ...], seeds: range) -> list[Recording]:
    return [simulator.simulate(labs.lab(name), seed, 8.0) for name in names for seed in seeds]


def test_from_the_download_to_a_checked_submission(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "download"
    folder.mkdir()
    held_out = simulated(("openfield", "fast"), range(50, 52))
    write(folder, "train", simulated(("openfield", "fast"), range(4)))
    write(folder, "test", held_out)
    where = ("--paths.data", str(tmp_path / "data"), "--paths.runs", str(tmp_path / "runs"))
    assert main(["prepare", "--config", "kaggle", "--data", str(folder), *where]) == 0
    assert "8 recordings of 2 laboratories" in capsys.readouterr().err
    for verb in ("train", "evaluate"):
        assert main([verb, "--config", "kaggle", *where, *SMALL]) == 0
    out = tmp_path / "submission.csv"
    asked = ("--run", str(tmp_path / "runs/mabe-behavior/kaggle"), "--input", str(folder), *where)
    assert main(["predict", *asked, "--out", str(out), "--figures", "1"]) == 0
    assert main(["predict", *asked, "--check", str(out)]) == 0
    assert "valid, every row counts" in capsys.readouterr().out
    said = submission.read(out)
    assert set(said.video.tolist()) <= {one.name for one in held_out}
    truth = joined([one.bouts for one in held_out])
    lab_of, labeled = ({one.name: getattr(one, what) for one in held_out} for what in ("lab", "labeled"))
    score = metric.score(truth, said, lab_of, labeled)
    assert 0.1 < score.value < 1  # eight trees of a few seconds see something
    assert main(["predict", *asked, "--fps", "30"]) == 2
    assert "leave it out" in capsys.readouterr().err


def test_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    (one,) = simulated(("three",), range(1))
    write(tmp_path, "train", [one])
    (found,) = kaggle.read(tmp_path)
    assert np.array_equal(found.tracks.of_parts(one.tracks.parts).xy_TAPX, one.tracks.xy_TAPX, equal_nan=True)
    assert found.bouts.rows == one.bouts.rows and found.labeled == one.labeled
