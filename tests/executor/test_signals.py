"""What must not be torn apart is done before an interrupt is heard."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from executor.signals import undisturbed
from specsim.cli.process import hear_signals
from specsim.errors import Terminated


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    hear_signals()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_a_signal_waits_until_the_work_is_done(number: signal.Signals, error: type[BaseException]) -> None:
    done: list[int] = []

    def work() -> None:
        with undisturbed():
            signal.raise_signal(number)
            done.append(1)

    with pytest.raises(error):
        work()
    assert done == [1]


def test_without_a_signal_nothing_changes() -> None:
    before = signal.getsignal(signal.SIGINT)
    with undisturbed():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_within_is_told_where_no_signal_came() -> None:
    with pytest.raises(ValueError, match="full"), undisturbed():
        raise ValueError("full")


def test_other_threads_hear_no_signals_anyway() -> None:
    ran: list[int] = []

    def work() -> None:
        with undisturbed():
            ran.append(1)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert ran == [1]


@pytest.mark.parametrize("where", ["with undisturbed():\n    ", "try:\n    "], ids=["undisturbed", "else"])
def test_a_second_signal_ends_the_process_at_once(where: str) -> None:
    story = (
        "import signal\nfrom executor.signals import undisturbed\nfrom specsim.cli.process import hear_signals\n"
        f"hear_signals()\n{where}signal.raise_signal(2)\n"
    )
    story += "    signal.raise_signal(2)\n" if where.startswith("with") else "finally:\n    signal.raise_signal(2)\n"
    done = subprocess.run([sys.executable, "-c", f"{story}    print('never')"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "")


def test_what_the_process_was_told_to_ignore_it_ignores() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hear_signals()
    signal.raise_signal(signal.SIGINT)
    with undisturbed():
        signal.raise_signal(signal.SIGINT)
