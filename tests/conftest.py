"""What every test of the engine runs on."""

import hypothesis
import pytest

from hipgpt.backends.device import open_device

hypothesis.settings.register_profile("shared_machine", deadline=None)  # a test is not slow because others are
hypothesis.settings.load_profile("shared_machine")

DEVICES = ("cpu",)  # a backend joins the tests of ops, gradients and causality by its name here


@pytest.fixture(params=DEVICES)
def device(request):
    return open_device(request.param, threads=2)
