"""What every test of the engine runs on."""

import hypothesis
import pytest

from hipgpt.backends.device import DeviceAbsent, open_device

hypothesis.settings.register_profile("shared_machine", deadline=None)  # a test is not slow because others are
hypothesis.settings.load_profile("shared_machine")

# a backend joins the tests of ops, gradients and causality by its name here
DEVICES = ("cpu", pytest.param("hip", marks=pytest.mark.gpu), pytest.param("cuda", marks=pytest.mark.gpu))


@pytest.fixture(params=DEVICES)
def device(request):
    try:
        return open_device(request.param, threads=2)
    except DeviceAbsent as error:
        pytest.skip(str(error))
