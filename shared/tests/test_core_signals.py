"""The first signal asks, the second one ends; afterwards signals mean what they meant before."""

import os
import signal
import subprocess
import sys

import pytest

from shared_core.signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_asks(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert not signals.requested
        os.kill(os.getpid(), number)
        assert signals.requested
    assert signal.getsignal(number) is before


def test_one_inside_another_shares_the_request() -> None:
    with StopSignals() as outer:
        with StopSignals() as first:
            assert not first.requested
            os.kill(os.getpid(), signal.SIGTERM)
            assert first.requested
        assert outer.requested
        with StopSignals() as second:
            assert second.requested


def test_second_signal_ends_the_process_at_once() -> None:
    code = (
        "import os, signal\nfrom shared_core.signals import StopSignals\n"
        "with StopSignals():\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    print('asked', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    print('still here', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "asked\n"
    assert done.returncode == -signal.SIGTERM
