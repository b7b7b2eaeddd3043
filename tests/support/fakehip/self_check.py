"""The check of a kernel at its first use, with right and with wrong kernels.

Run by tests/compute/test_fakehip.py, in a process that loads the stand-in as its HIP.
"""

import numpy as np
import pytest

from hipgpt.base.errors import UserError
from hipgpt.base.kernel_cache import cache_folder
from hipgpt.compute.backends.gpu import GpuDevice
from hipgpt.compute.backends.hip import HipDriver
from hipgpt.compute.backends.self_check import is_by_matrix_units
from hipgpt.compute.backends.variants import variants_of
from hipgpt.compute.catalogue import CATALOGUE
from hipgpt.compute.launch import Launch
from hipgpt.compute.tensor import DType, Tensor

pytestmark = pytest.mark.gpu
OPS = ("matmul_forward", "matmul_backward_input", "matmul_activation_backward_input", "matmul_backward_weight",
       "newton_schulz_gram", "newton_schulz_polynomial", "newton_schulz_first_polynomial", "newton_schulz_step",
       "attention_forward", "attention_backward")  # fmt: skip
# by op, what a compiler of wrong code could do: a header, and words of it with what they become
WRONG = {
    "matmul_forward": ("gpu/gemm/mainloop_amd.h", "sums[r][c], right[c], left[r]", "sums[r][c], left[r], right[c]"),
    "matmul_backward_weight": ("gpu/amd/operand_loader.h", "i % 2 ? high_halves", "i % 2 ? low_halves"),
    "attention_forward": ("gpu/amd/head.h", "distance > 0", "distance > 16"),
    "attention_backward": ("gpu/amd/head.h", "distance < 0", "distance < -1"),
}


class Driver(HipDriver):
    """HipDriver that counts launches, and that may compile other words of a header than those that are there."""

    launches, wrong = 0, ("", "", "")

    def compile(self, name, source, headers, macros):
        header, right, wrong = self.wrong
        if header in headers:
            assert right in headers[header]
            headers = headers | {header: headers[header].replace(right, wrong)}
        return super().compile(name, source, headers, macros)

    def launch(self, *call):
        self.launches += 1
        super().launch(*call)


@pytest.fixture
def driver(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return Driver(0)


def bind(driver, name):
    """Have a new device run a call of an op whose sizes are all 16."""
    device, op = GpuDevice(driver, graphs=False), CATALOGUE[name]
    tensors = []
    for argument in op.arguments:
        shape = tuple(int(size) if size.isdigit() else 16 for size in argument.shape)
        dtype = DType.BF16 if argument.dtype == "act" else DType.F32
        tensors.append(Tensor(argument.name, shape, dtype, *device.allocate(4 * int(np.prod(shape)))))
    device.prepare([Launch(op, tuple(tensors), dict.fromkeys(op.dimensions, 16), {})])()


def marks():
    return sorted(path.name for path in cache_folder().glob("*.checked"))


@pytest.mark.parametrize("name", OPS)
def test_every_row_of_a_kernel_passes(name):
    driver, op = Driver(0), CATALOGUE[name]
    device = GpuDevice(driver)
    for variant in variants_of(op, driver.arch, DType.BF16):
        if is_by_matrix_units(variant, op):
            device.check(variant, op, DType.BF16)
    assert len([mark for mark in marks() if mark.startswith(name)]) >= 3


@pytest.mark.parametrize("name", WRONG)
def test_a_kernel_with_wrong_results_is_refused_and_leaves_no_mark(driver, name):
    driver.wrong = WRONG[name]
    with pytest.raises(UserError, match=f"{name}: the kernel of gpu/.* is wrong on this chip.*training.precision"):
        bind(driver, name)
    assert not marks()


def test_a_kernel_is_checked_once(driver):
    bind(driver, "matmul_forward")
    first = driver.launches
    bind(driver, "matmul_forward")
    assert (first, driver.launches - first, len(marks())) == (3, 1, 1)


def test_another_version_of_a_kernel_is_checked_too(driver):
    bind(driver, "matmul_forward")
    driver.compiler += " of another version"
    driver.wrong = ("gpu/gemm/block_schedule.h", "BAND = 8", "BAND = 4")
    bind(driver, "matmul_forward")
    assert len(marks()) == 2
