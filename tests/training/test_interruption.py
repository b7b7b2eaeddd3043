"""Signals that ask a run to stop: two at once are one request, a later one ends the process."""

import signal

import pytest

from hipgpt.training import interruption
from hipgpt.training.interruption import stop_requests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_two_signals_at_once_are_one_request(number):
    with stop_requests() as requested:
        assert not requested()
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert requested()


def test_a_later_signal_acts_as_without_the_run(monkeypatch):
    with stop_requests() as requested, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        assert requested()
        monkeypatch.setattr(interruption, "SECONDS_OF_ONE_REQUEST", -1)
        signal.raise_signal(signal.SIGINT)


def test_the_handlers_of_before_are_restored():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stop_requests():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
