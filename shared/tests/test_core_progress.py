"""The progress bar: a redrawn line on a terminal, plain lines elsewhere."""

import io
import math
import os
import re

import pytest

from shared_core import progress
from shared_core.progress import Bar


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves by hand."""
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def run(stream, clock, steps, seconds, **options):
    bar = Bar(steps, True, "train", stream=stream, **options)
    for step in range(options.get("start", 0) + 1, steps + 1):
        clock[0] += seconds
        bar.update(step, **{"train/loss": 1.0 / step})
    return bar


def test_a_log_file_gets_a_plain_line_about_every_ten_seconds(clock):
    stream = io.StringIO()
    run(stream, clock, steps=100, seconds=1.0).close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11  # the first step, every tenth second, the last step
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()
    assert lines[0].split() == ["train", "1%", "1/100", "loss", "1", "1", "steps/s", "ETA", "1:39"]
    assert lines[-1].split() == ["train", "100%", "100/100", "loss", "0.01", "1", "steps/s", "took", "1:40"]


def test_a_terminal_gets_one_line_that_is_redrawn(clock):
    stream = Terminal()
    run(stream, clock, steps=50, seconds=0.2).close()
    assert stream.getvalue().count("\n") == 1 and stream.getvalue().endswith("\n")
    assert stream.getvalue().count("\r") >= 50
    assert "━" * 20 in stream.getvalue()


def test_a_fast_loop_is_not_slowed_by_drawing(clock):
    stream = Terminal()
    run(stream, clock, steps=1000, seconds=0.001)
    assert stream.getvalue().count("\r") <= 12  # one second of work, ten drawings a second


def test_a_resumed_run_does_not_count_the_steps_before_it_as_its_own_speed(clock):
    stream = io.StringIO()
    run(stream, clock, steps=1000, seconds=10.0, start=990)
    assert "10 s/step" in stream.getvalue().splitlines()[0]
    assert "ETA 1:30" in stream.getvalue().splitlines()[0]


def test_eta_follows_a_change_of_speed(clock):
    stream = io.StringIO()
    bar = Bar(1000, True, stream=stream)
    for step in range(1, 101):
        clock[0] += 1.0 if step <= 50 else 4.0
        bar.update(step)
    last = stream.getvalue().splitlines()[-1]
    assert float(re.search(r"([\d.]+) s/step", last)[1]) == pytest.approx(4.0, rel=0.01)
    assert re.search(r"ETA 59:[3-5]\d", last)


def test_an_early_first_update_spoils_neither_rate_nor_eta(clock):
    """As `prepare` does it: the first pair is slow, a thousand a second follow."""
    stream = io.StringIO()
    bar = Bar(82_000, True, "prepare", unit="pairs", stream=stream)
    clock[0] += 0.05
    bar.update(1)
    for pairs in range(11, 82_002, 10):
        clock[0] += 0.01
        bar.update(min(pairs, 82_000))
    bar.close()
    lines = stream.getvalue().splitlines()
    assert "pairs/s" not in lines[0] and "ETA" not in lines[0]  # nobody can know yet
    for line in lines[1:]:
        assert float(re.search(r"([\d,.]+) pairs/s", line)[1].replace(",", "")) == pytest.approx(1000, rel=0.01)
    assert "ETA 1:12" in lines[1]


def test_the_last_line_has_the_speed_of_the_whole_time(clock):
    stream = io.StringIO()
    bar = Bar(400, True, stream=stream, start=100)
    for step in range(101, 401):
        clock[0] += 0.1 if step <= 300 else 1.0
        bar.update(step)
    bar.close()
    assert stream.getvalue().splitlines()[-1].split() == ["100%", "400/400", "2.5", "steps/s", "took", "2:00"]


def test_a_message_stands_on_its_own_line_above_the_bar(clock):
    stream = Terminal()
    bar = run(stream, clock, steps=10, seconds=1.0)
    progress.message("checkpoint written")  # through the module: the caller need not know the bar
    assert "\r\x1b[Kcheckpoint written\n\r" in stream.getvalue()
    bar.close()
    bar.close()  # closing twice leaves one line
    assert stream.getvalue().endswith("\n") and not stream.getvalue().endswith("\n\n")


def test_messages_go_to_standard_error_when_no_bar_is_there(capsys):
    progress.message("hello")
    assert capsys.readouterr().err == "hello\n"


def test_a_disabled_bar_is_silent_but_its_messages_are_not(clock):
    stream = io.StringIO()
    bar = Bar(10, False, "train", stream=stream)
    bar.update(5, loss=1.0)
    bar.message("kept")
    bar.close()
    assert stream.getvalue() == "kept\n"


def test_a_narrow_terminal_is_never_overrun(clock, monkeypatch):
    monkeypatch.setattr(progress.shutil, "get_terminal_size", lambda: os.terminal_size((40, 20)))
    stream = Terminal()
    run(stream, clock, steps=20, seconds=1.0)
    for drawing in stream.getvalue().split("\r")[1:]:
        assert len(drawing.removesuffix("\x1b[K")) < 40


def test_a_terminal_without_unicode_gets_ascii(clock):
    stream = Terminal()
    stream.encoding = "ascii"
    run(stream, clock, steps=10, seconds=1.0).close()
    assert stream.getvalue().isascii() and "#" * 20 in stream.getvalue()


def test_an_unknown_total_shows_a_count_and_no_eta(clock):
    stream = io.StringIO()
    bar = Bar(None, True, "prepare", unit="pairs", stream=stream)
    clock[0] += 2
    bar.update(1500)
    assert stream.getvalue().split() == ["prepare", "1,500", "750", "pairs/s", "0:02"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (75.2, "1:15"), (3675, "1:01:15"), (59.9, "1:00"), (4 * 86400 + 3600, "4d 01h"), (-1, "0:00")],
)
def test_durations(seconds, text):
    assert progress.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (3, "3"), (0.31234, "0.3123"), (5321.4, "5,321"), (1e-5, "1.00e-05"), (math.nan, "nan"), ("a", "a")],
)
def test_numbers(value, text):
    assert progress.number(value) == text
