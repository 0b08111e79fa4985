"""How benchmarks word what they measured."""

import os

import pytest
import torch

from shared_core import measured


def test_spread_is_median_and_extremes() -> None:
    assert measured.spread([3.0, 1.0, 2000.0], ",.1f") == "3.0 (1.0..2,000.0)"
    assert measured.spread([1.0, 2.0], ".2f") == "1.50 (1.00..2.00)"


def test_load_is_that_of_the_last_minute_where_the_system_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (1.26, 7.0, 8.0), raising=False)
    assert measured.load() == "1.3"
    monkeypatch.delattr(os, "getloadavg")
    assert measured.load() == "unknown"


def test_device_says_what_it_is_and_what_else_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "processor", lambda: "Abacus 3")
    monkeypatch.setattr(measured, "load", lambda: "0.5")
    said = measured.device(torch.device("cpu"))
    assert said == f"cpu (Abacus 3), {os.cpu_count()} cores, {torch.get_num_threads()} threads, load 0.5"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device.index}")
    assert measured.device(torch.device("cuda", 1)).startswith("cuda (GPU 1), ")


def test_processor_has_a_name() -> None:
    assert measured.processor().strip()
