"""`device: hip:1` and HIP_VISIBLE_DEVICES, on a machine with two unlike GPUs.

Run by tests/compute/test_fakehip.py, in a process that loads the stand-in as its HIP, with the chips of CHIPS.
"""

import os
import subprocess
import sys

import numpy as np
import pytest
from support import reference
from support.calls import Case, Memory, draw

from hipgpt.compute.catalogue import CATALOGUE
from hipgpt.compute.device import DeviceAbsent
from hipgpt.compute.open_device import open_device
from hipgpt.compute.tensor import DType

CHIPS = ("gfx1100", "gfx90a:sramecc+:xnack-")  # waves of 32 and of 64 lanes
CASE = Case(CATALOGUE["matmul_forward"], {"N": 33, "C": 40, "O": 24}, act=DType.BF16)

pytestmark = pytest.mark.gpu


def opened(name: str, visible: str | None = None) -> str:
    """Return what a new process says that opens a device: its name, or why there is none."""
    program = f"""from hipgpt.compute.device import DeviceAbsent
from hipgpt.compute.open_device import open_device
try:
    print(open_device({name!r}).name)
except DeviceAbsent as error:
    print(error)"""
    variables = os.environ | ({} if visible is None else {"HIP_VISIBLE_DEVICES": visible})
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize(
    "name, arch, wave", [("hip", "gfx1100", 32), ("hip:0", "gfx1100", 32), ("hip:1", "gfx90a", 64)]
)
def test_a_gpu_is_opened_by_its_number_and_computes(name, arch, wave):
    device = open_device(name)
    assert (device.name, device._driver.wave) == (f"hip stand-in ({arch})", wave)
    values = draw(CASE)
    wanted = reference.evaluate(CASE.op, values, CASE.sizes, {}, CASE.act)["y"]
    got = Memory(device, CASE, values).run()["y"].astype(np.float64)
    assert (np.abs(got - wanted.value) <= wanted.error).all()


def test_a_number_beyond_the_last_is_refused():
    with pytest.raises(DeviceAbsent, match=r"hipSetDevice\(2\): hipErrorInvalidDevice: invalid device ordinal"):
        open_device("hip:2")


@pytest.mark.parametrize("name, visible, words", [
    ("hip", "1", "hip stand-in (gfx90a)"),
    ("hip:1", "1", "hipSetDevice(1): hipErrorInvalidDevice"),
    ("hip:1", "1,0", "hip stand-in (gfx1100)"),
    ("hip", "", "hipInit: hipErrorNoDevice: no ROCm-capable device is detected"),
    ("auto", "1", "hip stand-in (gfx90a)"),
    ("auto", "", "cpu"),
])  # fmt: skip
def test_only_visible_gpus_are_counted(name, visible, words):
    assert words in opened(name, visible)
