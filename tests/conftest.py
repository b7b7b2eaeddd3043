"""What every test of the engine runs on."""

import hypothesis
import pytest

from hipgpt.backends.device import DeviceAbsent, open_device
from hipgpt.tensor import DType

hypothesis.settings.register_profile("shared_machine", deadline=None)  # a test is not slow because others are
hypothesis.settings.load_profile("shared_machine")

# a backend joins the tests of ops, gradients and causality by its name here: the dtypes it has kernels for, and marks
DEVICES = {
    "cpu": ((DType.F32,), ()),
    "hip": ((DType.F32, DType.BF16), pytest.mark.gpu),
    "cuda": ((DType.F32, DType.BF16), pytest.mark.gpu),
}


@pytest.fixture(params=[pytest.param(name, marks=marks) for name, (_, marks) in DEVICES.items()])
def device(request):
    try:
        return open_device(request.param, threads=2)
    except DeviceAbsent as error:
        pytest.skip(str(error))


every_device_in_every_dtype = pytest.mark.parametrize(
    ("device", "act"),
    [
        pytest.param(name, act, marks=marks, id=f"{name}-{act.label}")
        for name, (acts, marks) in DEVICES.items()
        for act in acts
    ],
    indirect=["device"],
)
