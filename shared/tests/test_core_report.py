"""Reports: the number with its uncertainty and baseline first, in a file that needs nothing else."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from shared_core import config, figures, metrics, records, report
from shared_core.errors import UserError
from shared_core.intervals import Estimate
from shared_core.records import Recorder, RunDir
from shared_core.report import data, single
from shared_core.settings import Logging, RunConfig


def make_run(root, name, right=880, n=1000, lr=1e-3, evaluated=True, notes=()):
    """A finished run with 40 steps, an evaluation with a figure and a table, and a warning."""
    run = RunDir.open(root, "pkg", name, "auto")
    run.write_config(config.to_yaml(RunConfig(name=name, optimizer={"lr": lr})))
    run.write_run({"package": "pkg", "argv": ["/bin/pkg", "train", "--lr", str(lr)], "versions": {"torch": "2.13.0"}})
    recorder = Recorder(run, Logging(tracker="none"))
    for step in range(1, 41):
        recorder.log(step, {"epoch": step / 10, "train/loss": 1 / step, "train/lr": lr, "train/samples_per_s": 500.0})
    recorder.log(40, {"epoch": 4.0, "val/loss": 0.5, "val/accuracy": right / n})
    recorder.message("step-000010: manifest does not verify; skipped", warning=True)
    recorder.close()
    if evaluated:
        figure = figures.confusion(
            [[5, 1], [2, 7]], ["no", "yes"], run.figures / "confusion.png", caption="Who said what."
        )
        evaluation = {
            "checkpoint": "step-000040",
            "n": n,
            "headline": "accuracy",
            "metrics": {
                "accuracy": metrics.wilson(right, n).as_dict(),
                "loss": {"value": 0.5, "low": 0.4, "high": 0.6, "n": n, "method": "bootstrap 95 %"},
            },
            "baselines": {"majority": {"accuracy": metrics.wilson(n // 2, n).as_dict(), "what": "always says no"}},
            "tables": {"By distance": [{"distance": 1, "accuracy": metrics.wilson(9, 10).as_dict(), "share": 0.25}]},
            "figures": [str(figure.relative_to(run.path))],
            "notes": list(notes),
        }
        records.write_evaluation(run, "val", evaluation)
    run.status("finished", step=40)
    run.close()
    return run.path


class Page(HTMLParser):
    """Checks that tags are balanced, and collects what a test wants to see."""

    VOID = frozenset(("meta", "img", "wbr"))

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.headings, self.text = [], set(), [], [], ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] == "h2":
            self.headings.append(text)
        if "style" not in self.open:
            self.text += text + "\n"


def test_a_config_that_is_no_text_is_one_line(tmp_path):
    path = make_run(tmp_path, "a")
    (path / "config.yaml").write_bytes(b"name: caf\xe9\n")  # Latin-1
    with pytest.raises(UserError, match=r"^\S+/a/config\.yaml: not UTF-8 text \(.* at byte 9\)$"):
        report.write([path])


def test_the_report_opens_with_the_number_its_interval_n_and_baseline(tmp_path):
    page = Page(report.write([make_run(tmp_path, "fast")], headline="accuracy").read_text())
    before_sections = page.text[: page.text.index("What was run")]
    for expected in ("accuracy on val", "0.880", "[0.858, 0.899]", "n = 1,000", "Wilson 95 %", "majority", "0.500"):
        assert expected in before_sections
    assert "better than “majority” by 0.380" in before_sections
    assert page.headings == ["What was run", "Training", "Evaluation: val", "Environment", "Warnings"]
    for expected in (
        "pkg train --lr 0.001",
        "optimizer.",
        "2.13.0",
        "always says no",
        "manifest does not verify",
        "By distance",
    ):
        assert expected in page.text


def test_the_html_is_one_file_without_scripts_or_network(tmp_path):
    html = report.write([make_run(tmp_path, "fast")]).read_text()
    page = Page(html)
    assert "script" not in page.tags and "link" not in page.tags and "iframe" not in page.tags
    assert "http" not in re.sub(r"base64,[^\"]*", "", html).replace("http-equiv", "")
    sources = [value for _, name, value in page.attributes if name in ("src", "href")]
    assert sources and all(source.startswith("data:image/png;base64,") for source in sources)
    assert all(any(t == "img" and n == "alt" and v for t, n, v in page.attributes) for _ in sources)
    assert "prefers-color-scheme: dark" in html and "width=device-width" in html


def test_what_a_run_says_cannot_break_out_of_the_page(tmp_path):
    path = make_run(tmp_path, "fast", notes=['<script>alert(1)</script> & "quotes" | a pipe'])
    html = report.write([path]).read_text()
    assert "<script>" not in html and "&lt;script&gt;" in html
    markdown = (path / "report.md").read_text()
    assert "<script>" not in markdown


def test_the_markdown_links_to_figures_that_exist(tmp_path):
    path = make_run(tmp_path, "fast")
    report.write([path])
    markdown = (path / "report.md").read_text()
    links = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", markdown)
    assert len(links) >= 3 and all((path / link).is_file() for link in links)
    assert "**accuracy on val: 0.880** [0.858, 0.899]" in markdown and "*Who said what.*" in markdown
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    assert tables and all(line.endswith("|") for line in tables)


def test_the_json_is_for_programs(tmp_path):
    a, b = make_run(tmp_path, "a"), make_run(tmp_path, "b", right=940)
    report.write([a, b], tmp_path / "out", headline="accuracy")
    content = json.loads((tmp_path / "out" / "report.json").read_text(), parse_constant=pytest.fail)
    assert [run["name"] for run in content["runs"]] == ["a", "b"]
    assert content["runs"][0]["evaluations"]["val"]["metrics"]["accuracy"]["value"] == 0.88
    (accuracy, loss) = content["differences"]
    assert (
        accuracy["metric"] == "accuracy" and accuracy["value"] == pytest.approx(0.06) and accuracy["overlap"] is False
    )
    assert loss["value"] == 0 and loss["overlap"] is True


def test_several_runs_stand_side_by_side_with_their_differences(tmp_path):
    runs = [
        make_run(tmp_path, "base"),
        make_run(tmp_path, "close", right=885),
        make_run(tmp_path, "far", right=940, lr=0.01),
    ]
    path = report.write(runs, headline="accuracy")
    assert path == tmp_path / "pkg" / "compare-base-close-far" / "report.html"
    page = Page(path.read_text())
    assert "close is not significantly different from “base”: +0.005" in page.text
    assert "far is better than “base” by 0.060" in page.text
    assert "intervals overlap" in page.text and "no overlap" in page.text
    rows = (path.parent / "report.md").read_text().splitlines()
    assert "| metric | base | close | far |" in rows
    assert any(line.startswith("| optimizer.lr | 0.001 | 0.001 | 0.01 |") for line in rows)
    assert not any(line.startswith("| seed |") for line in rows)  # the same everywhere


def test_runs_evaluated_on_different_samples_are_pointed_out(tmp_path):
    runs = [make_run(tmp_path, "a"), make_run(tmp_path, "b", right=90, n=100)]
    assert "not evaluated on the same samples" in report.write(runs).read_text()


def test_runs_of_the_same_name_are_told_apart(tmp_path):
    runs = [make_run(tmp_path / "x", "fast"), make_run(tmp_path / "y", "fast")]
    text = report.write(runs, tmp_path / "out").read_text()
    assert "x/pkg/fast" in text and "y/pkg/fast" in text


def test_a_run_that_has_only_begun_has_a_report_too(tmp_path):
    run = RunDir.open(tmp_path, "pkg", "fast", "auto")
    html = report.write([run.path]).read_text()
    assert "Not evaluated yet" in html and "running" in html
    with run.metrics.open("ab") as file:
        file.write(b'{"step": 1, "train/loss": "nan"}\n{"step": 2, "tr')
    report.write([run.path])
    report.write([run.path, make_run(tmp_path, "other")], tmp_path / "out")


def test_bare_values_undefined_ones_and_missing_figures_do_not_stop_a_report(tmp_path):
    path = make_run(tmp_path, "fast", evaluated=False)
    bare = {
        "headline": "auc",
        "metrics": {"auc": {"value": 0.7}, "precision": {"value": None, "method": "undefined: x"}},
    }
    bare |= {"figures": ["figures/gone.png"], "baselines": {"chance": {"auc": {"value": 0.5}}}}
    records.write_evaluation(RunDir(path), "val", bare)
    page = Page(report.write([path], headline="accuracy").read_text())  # the evaluation has no accuracy
    assert "auc on val" in page.text and "+0.2 against “chance” (no interval, so no verdict)" in page.text
    assert "gone.png: cannot be read" in page.text and "undefined" in page.text


def test_the_headline_split_is_a_test_split_and_never_the_training_data(tmp_path):
    path = make_run(tmp_path, "fast")
    evaluation = records.read_evaluations(RunDir(path))["val"]
    records.write_evaluation(RunDir(path), "train", {**evaluation, "split": "train"})
    assert data.load(path).split == "val"
    records.write_evaluation(RunDir(path), "test_public", {**evaluation, "split": "test_public"})
    assert data.load(path).split == "test_public"


@pytest.mark.parametrize(
    ("metric", "a", "b", "tone"),
    [
        ("accuracy", (0.9, 0.88, 0.92), (0.8, 0.78, 0.82), "good"),
        ("accuracy", (0.8, 0.78, 0.82), (0.9, 0.88, 0.92), "bad"),
        ("val/loss", (0.8, 0.78, 0.82), (0.9, 0.88, 0.92), "good"),
        ("rmse", (0.9, 0.88, 0.92), (0.8, 0.78, 0.82), "bad"),
        ("accuracy", (0.9, 0.88, 0.92), (0.89, 0.87, 0.91), "muted"),
    ],
)
def test_verdicts(metric, a, b, tone):
    said = data.verdict(metric, Estimate(*a, 100, ""), Estimate(*b, 100, ""), "baseline")
    assert said.tone == tone
    assert ("not significantly different" in said.text) == (tone == "muted")
    if tone != "muted":
        assert re.search(r"by 0\.1\d* \[0\.", said.text)  # the size has no sign: the word says which way


def test_verdict_is_about_the_paired_difference_where_there_is_one(tmp_path):
    """885 and 880 of 1000 cannot be told apart as two samples, but can on the same samples."""
    path = make_run(tmp_path, "fast", right=885)
    evaluation = records.read_evaluations(RunDir(path))["val"]
    gain = Estimate(0.005, 0.001, 0.009, 1000, "bootstrap 95 %")
    baseline = {"accuracy": metrics.wilson(880, 1000).as_dict()}
    for paired, said in (
        (None, "not significantly different"),
        (gain, "better than “peer” by 0.0050 [0.0010, 0.0090]"),
    ):
        about = baseline if paired is None else {**baseline, "differences": {"accuracy": paired.as_dict()}}
        records.write_evaluation(RunDir(path), "val", {**evaluation, "baselines": {"peer": about}})
        assert said in Page(report.write([path], headline="accuracy").read_text()).text
    mirrored = Estimate(-gain.value, -gain.high, -gain.low, 1000, "")
    said = data.verdict("accuracy", metrics.wilson(880, 1000), metrics.wilson(885, 1000), "peer", mirrored)
    assert said.tone == "bad" and "by 0.0050 [0.0010, 0.0090]" in said.text


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.8931, 0.8869, 0.899, "0.8931 [0.8869, 0.8990]"),
        (0.5, 0.1, 0.9, "0.50 [0.10, 0.90]"),
        (1234.5, 1200, 1270, "1234 [1200, 1270]"),
        (1.0, 1.0, 1.0, "1 [1, 1]"),
        (0.123456, np.nan, np.nan, "0.1235"),
    ],
)
def test_numbers_have_the_digits_that_their_interval_supports(value, low, high, text):
    estimate = Estimate(value, low, high, 10, "")
    assert f"{data.number(estimate)} {data.interval(estimate)}".strip() == text


def test_a_difference_that_rounds_to_zero_has_no_sign():
    assert data.signed(Estimate(-0.00001, -0.01, 0.01, 10, "")) == "0.000 [-0.010, 0.010]"
    assert data.signed(Estimate(0.02, 0.01, 0.03, 10, "")).startswith("+0.020")


def test_bad_input_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="no run to report on"):
        report.write([])
    with pytest.raises(UserError, match="no such folder"):
        report.write([tmp_path / "gone"])
    path = make_run(tmp_path, "fast", evaluated=False)
    with pytest.raises(UserError, match="the same run is given twice"):
        report.write([path, path])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a file is where a folder should be"):
        report.write([path], tmp_path / "file")


def test_metrics_that_differ_in_a_number_share_a_panel(tmp_path):
    """Fourteen charts of one line each, one per length of a prefix, are no report."""
    rows = [{"step": step, "val/f1_3": 0.1, "val/f1_12": 0.2, "val/f1": 0.3, "val/top_5": 0.4} for step in (1, 2)]
    paths = single.curves({"one": rows}, tmp_path)
    assert [path.name for path in paths] == ["curve-f1.png", "curve-top-5.png", "curve-f1-each.png"]
    assert single._families(["f1_12", "f1_3", "f1", "top_5"]) == {"f1": ["f1_3", "f1_12"]}


@pytest.mark.parametrize(
    ("first", "key", "log"),
    [(1.5, "val/loss", True), (0.3, "val/loss", False), (-1.0, "val/loss", False), (1.5, "val/error", False)],
)
def test_a_loss_that_falls_far_is_drawn_so_that_its_end_can_be_seen(tmp_path, monkeypatch, first, key, log):
    drawn = {}
    monkeypatch.setattr(figures, "curves", lambda rows, path, keys, **more: drawn.update({keys[-1]: more["log"]}))
    single.curves({"a": [{"step": 1, key: first}, {"step": 2, key: float("nan")}, {"step": 3, key: 0.02}]}, tmp_path)
    assert drawn[key] is log


def test_what_a_run_does_not_have_is_left_out_of_its_environment(tmp_path):
    run = make_run(tmp_path, "a")
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**info, "hub": {}, "device": "cpu"}))
    found = dict(single.environment(data.load(run)))
    assert found["device"] == "cpu" and "hub" not in found


def test_what_a_run_drew_is_shown_by_step(tmp_path):
    run = make_run(tmp_path, "a")  # of 40 steps
    (run / "samples").mkdir()
    for step in (*range(3, 42, 3), 60):  # that of step 60 is of a training that was taken back
        pixels = np.random.default_rng(step).integers(0, 255, (30, 1_500, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(run / "samples" / f"grid-{step:07d}.png")
    whole = (run / "samples" / "grid-0000039.png").read_bytes()
    (run / "samples" / "grid-0000039.png").write_bytes(whole[: len(whole) // 2])
    (run / "samples" / "notes.png").write_bytes(b"")
    figures_of = run / "figures"
    report.write([run])
    page = Page((run / "report.html").read_text())
    assert "Samples by step" in page.headings and "samples/grid-0000039.png: cannot be read as PNG" in page.text
    assert re.findall(r"Step ([\d,]+)\.", page.text) == ["3", "6", "12", "21"]
    (run / "samples" / "grid-0000039.png").unlink()
    report.write([run])
    page = Page((run / "report.html").read_text())
    assert re.findall(r"Step ([\d,]+)\.", page.text) == ["3", "6", "9", "18", "36"]
    shown = sorted(figures_of.glob("sample-*.png"))
    assert len(shown) == 5  # those of the first report are gone
    assert figures.describe(shown[-1]).width == 1_000 and figures.describe(shown[-1]).title == "Grid at step 36"
