"""What every test of the engine runs on."""

import pytest

from hipgpt.backends.device import open_device

DEVICES = ("cpu",)  # a backend joins the tests of ops, gradients and causality by its name here


@pytest.fixture(params=DEVICES)
def device(request):
    return open_device(request.param, threads=2)
