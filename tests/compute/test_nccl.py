"""NCCL's calls on one GPU: a group of one rank keeps every value, launch by launch and in a captured graph."""

import numpy as np
import pytest

from hipgpt.base.errors import UserError
from hipgpt.compute.backends.gpu import GpuDevice
from hipgpt.compute.communicator import BROADCAST, BROADCAST_ROUNDED, REDUCE
from hipgpt.compute.device import DeviceAbsent
from hipgpt.compute.plan import Plan
from hipgpt.compute.process_group import ProcessGroup
from hipgpt.compute.tensor import Arena, DType, Field

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("graphs", [False, True])
def test_collectives_of_one_rank_keep_the_values(graphs):
    try:
        from hipgpt.compute.backends import nccl
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
