"""NCCL's calls on one GPU, where a group of one rank keeps every value, and the error without the library."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from hipgpt.base.errors import UserError
from hipgpt.compute.backends import nccl
from hipgpt.compute.backends.gpu import GpuDevice
from hipgpt.compute.communicator import BROADCAST, BROADCAST_ROUNDED, REDUCE
from hipgpt.compute.device import DeviceAbsent
from hipgpt.compute.plan import Plan
from hipgpt.compute.process_group import ProcessGroup
from hipgpt.compute.tensor import Arena, DType, Field


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
def test_collectives_of_one_rank_keep_the_values(graphs):
    try:
        from hipgpt.compute.backends.cuda import CudaDriver

        driver = CudaDriver(0)
        nccl._library("cuda")
    except (DeviceAbsent, UserError) as error:  # no GPU, or no library; a communicator that cannot start is a failure
        pytest.skip(str(error))
    device = GpuDevice(driver, graphs, nccl.NcclCommunicator(driver, ProcessGroup()))
    wide, narrow = (Arena(device, "arena", [Field("x", (1000,), dtype)]) for dtype in (DType.F32, DType.BF16))
    plan = Plan(device, "plan", [wide["x"], narrow["x"]], DType.BF16)
    plan(REDUCE, wide["x"], root=0)
    plan(BROADCAST, wide["x"], root=0)
    plan(BROADCAST_ROUNDED, narrow["x"], root=0)
    for seed in (1, 2):
        values = np.random.default_rng(seed).normal(size=1000).astype(np.float32)
        device.write(wide["x"], values)
        device.write(narrow["x"], values.astype(DType.BF16.numpy))
        plan.run()
        np.testing.assert_array_equal(device.read(wide["x"]), values)
        np.testing.assert_array_equal(device.read(narrow["x"]), values.astype(DType.BF16.numpy))


def test_a_rocm_with_missing_packages_is_an_error_with_a_remedy(monkeypatch):
    def get_library_path(name: str) -> bytes:
        raise UnboundLocalError("py_module")

    monkeypatch.setitem(sys.modules, "rocm.bindings.util.paths", SimpleNamespace(get_library_path=get_library_path))
    message = "devices: several GPUs need librccl.so.1: hip-python cannot find it: py_module; install RCCL, which is a"
    with pytest.raises(UserError, match=message):
        nccl._library("hip")
