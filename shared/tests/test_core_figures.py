"""Figures: whole PNGs that say what they show, drawn without a display and without global state."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from shared_core import figures, files, metrics
from shared_core.errors import UserError

RANDOM = np.random.default_rng(0)


def draw_all(folder):
    """One figure of every kind."""
    p = RANDOM.random(500)
    y = (RANDOM.random(500) < p).astype(int)
    rows = [{"step": step, "train/loss": 1 / step, "val/loss": 2 / step} for step in range(1, 200)]
    pictures = RANDOM.integers(0, 255, (7, 28, 56), dtype=np.uint8)
    return [
        figures.curves(rows, folder / "curves.png", title="Loss"),
        figures.reliability(p, y, folder / "reliability.png"),
        figures.confusion([[5, 1], [2, 7]], ["no", "yes"], folder / "confusion.png"),
        figures.heatmap([[1, 0.9], [0.9, 1]], ["this", "that"], folder / "heatmap.png", limits=(0.8, 1)),
        figures.bars_with_intervals({"a": metrics.wilson(5, 9), "b": metrics.wilson(8, 9)}, folder / "bars.png"),
        figures.image_grid(pictures, [f"picture {i}" for i in range(7)], folder / "grid.png"),
        figures.risk_coverage(p, y, folder / "risk.png"),
    ]


def test_every_figure_is_a_legible_png_with_title_and_caption(tmp_path):
    for path in draw_all(tmp_path / "not" / "there" / "yet"):
        about = figures.describe(path)
        assert 700 <= about.width <= 900 and 200 <= about.height <= 1200
        assert about.title
        assert about.is_chart == (path.stem != "grid")
        assert np.asarray(Image.open(path).convert("L")).std() > 10  # not blank
    assert "Expected calibration error" in figures.describe(tmp_path / "not/there/yet/reliability.png").caption


def test_the_same_numbers_give_the_same_bytes(tmp_path):
    rows = [{"step": 1, "train/loss": 1.0}, {"step": 2, "train/loss": 0.5}]
    one, two = figures.curves(rows, tmp_path / "1.png", title="a"), figures.curves(rows, tmp_path / "2.png", title="a")
    assert one.read_bytes() == two.read_bytes()


def test_nothing_global_is_left_behind(tmp_path):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    draw_all(tmp_path)
    assert dict(mpl.rcParams) == before


def test_importing_figures_does_not_import_matplotlib():
    code = "import sys, shared_core.figures; print('matplotlib' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert result.stdout == "False\n"


def test_curves_survive_what_logs_contain(tmp_path):
    """Missing columns, numbers that are not finite, one point, no rows at all, several runs of different length."""
    rows = [{"step": 1, "train/loss": math.nan}, {"step": 2, "val/loss": 1.0}, {"step": 3, "train/loss": math.inf}]
    figures.curves(rows, tmp_path / "nan.png")
    figures.curves([], tmp_path / "none.png")
    figures.curves({"a": rows, "b": [{"step": 9, "val/loss": 0.5}], "c": []}, tmp_path / "many.png", ["val/loss"])
    figures.curves([{"step": 1, "lr": 0.0}], tmp_path / "log.png", ["lr"], log=True)


def test_smoothing_keeps_constants_and_ends():
    constant = np.full(300, 0.25)
    assert figures._smooth(constant) == pytest.approx(constant)
    ramp = np.arange(300.0)
    assert figures._smooth(ramp) == pytest.approx(ramp)  # symmetric windows, also at the ends


def test_thinning_keeps_the_last_point():
    assert figures._thin(10_000)[-1] == 9_999 and len(figures._thin(10_000)) <= 2_000
    assert figures._thin(3).tolist() == [0, 1, 2] and figures._thin(0).tolist() == []


def test_undefined_estimates_are_written_out(tmp_path):
    undefined = metrics.binary([0.1, 0.2], [0, 0], n_resamples=0)["precision"]
    figures.bars_with_intervals({"a": undefined, "b": metrics.wilson(1, 2)}, tmp_path / "bars.png", reference=0.5)


def cells_of(picture, side):
    """Grey of the top left corner of each cell, where no text is: the darkest row and column of a square bound it."""
    inside = picture < 250
    rows, columns = np.flatnonzero(inside.mean(axis=1) > 0.5), np.flatnonzero(inside.mean(axis=0) > 0.5)
    edges = [np.linspace(x[0], x[-1] + 1, side + 1)[:-1].astype(int) + 5 for x in (rows, columns)]
    return picture[np.ix_(*edges)].astype(int)


def test_heatmap_writes_each_number_on_its_colour(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    written = {}
    text = Axes.text
    monkeypatch.setattr(
        Axes, "text", lambda self, x, y, s, **more: (written.__setitem__((y, x), s), text(self, x, y, s, **more))[1]
    )
    matrix = np.array([[1.0, 0.84, 0.9], [0.9, 0.95, math.nan], [0.85, 0.88, 0.9]])
    path = figures.heatmap(matrix, ["a", "b", "c"], tmp_path / "heatmap.png", limits=(0.7, 1))
    assert [written[i, j] for i in range(3) for j in range(3)] == (
        ["1.00", "0.84", "0.90", "0.90", "0.95", "", "0.85", "0.88", "0.90"]
    )
    picture = np.asarray(Image.open(path).convert("L"))
    grey = cells_of(picture, 3)
    assert grey[0, 0] < grey[1, 1] < grey[0, 2] == grey[1, 0] == grey[2, 2] < grey[2, 1] < grey[2, 0] < grey[0, 1]
    assert grey[1, 2] == 255  # nothing known, nothing drawn
    wider = np.asarray(Image.open(figures.heatmap(matrix, ["a", "b", "c"], path, limits=(0, 1))).convert("L"))
    assert cells_of(wider, 3)[0, 1] < grey[0, 1]


@pytest.mark.parametrize("long", ["resnet_fusion_seed", "fusion_width_1", "model"])
def test_heatmap_of_a_dozen_names_is_legible(tmp_path, monkeypatch, long):
    """Numbers stand for the columns, every cell is wide enough for its text, and names keep off the edge."""
    names = [f"{long}_{i}" for i in range(12)]
    drawn = []
    cells = figures._cells
    monkeypatch.setattr(figures, "_cells", lambda axes, *more: (drawn.append(axes), cells(axes, *more)))
    figures.heatmap(np.eye(12), names, tmp_path / "heatmap.png", title="Agreement")
    (axes,) = drawn
    axes.figure.dpi = figures.DPI  # saving has set it back
    axes.figure.draw_without_rendering()
    assert [label.get_text() for label in axes.get_xticklabels()] == [str(i + 1) for i in range(12)]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        f"{name}  {i + 1}" for i, name in enumerate(names)
    ]
    cell = axes.get_window_extent().width / 12
    assert all(text.get_window_extent().width < 0.95 * cell for text in axes.texts)
    assert axes.get_window_extent().height == pytest.approx(12 * cell, abs=1)
    assert all(label.get_window_extent().x0 > 10 for label in axes.get_yticklabels())


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda path: figures.confusion(np.eye(3), ["a", "b"], path), "does not fit 2 class names"),
        (lambda path: figures.heatmap(np.eye(3), ["a", "b"], path), r"shape \(3, 3\) does not fit 2 names"),
        (lambda path: figures.heatmap([[math.nan]], ["a"], path), "no finite number"),
        (lambda path: figures.heatmap([[1]], ["a"], path, limits=(1, 0)), "limits 1 to 0: give the lower one first"),
        (lambda path: figures.bars_with_intervals({}, path), "no estimates"),
        (lambda path: figures.image_grid([np.zeros((4, 4))], [], path), "1 pictures and 0 titles"),
        (lambda path: figures.reliability([0.5], [3], path), "labels: must be 0 or 1"),
    ],
)
def test_bad_input_is_one_clear_line_and_leaves_no_file(tmp_path, draw, message):
    with pytest.raises(UserError, match=message):
        draw(tmp_path / "figure.png")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_old_figure(tmp_path, monkeypatch):
    path = figures.confusion([[1]], ["a"], tmp_path / "confusion.png")
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        figures.confusion([[2]], ["a"], path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_describe_names_what_is_no_png(tmp_path):
    (tmp_path / "x.png").write_text("hello")
    with pytest.raises(UserError, match=r"x\.png: cannot be read as PNG"):
        figures.describe(tmp_path / "x.png")
    Image.new("L", (10, 20)).save(tmp_path / "from_elsewhere.png")
    about = figures.describe(tmp_path / "from_elsewhere.png")
    assert (about.title, about.caption, about.is_chart, about.height) == ("from elsewhere", "", False, 20)


def test_a_long_title_is_not_cut_off(tmp_path):
    with figures.figure(
        tmp_path / "a.png", "Images nearest to training photographs, " * 3, "", (5.2, 3), "chart"
    ) as drawn:
        drawn.add_subplot()
    assert drawn._suptitle.get_window_extent(drawn.canvas.get_renderer()).x1 <= drawn.bbox.x1
    assert figures.describe(tmp_path / "a.png").title.count("\n") == 0
