"""CPU kernels for processors other than this one: older x86-64 run here, AMX on emulated tiles, aarch64 by qemu."""

import contextlib
import math
import platform
import shutil
from collections.abc import Callable

import numpy as np
import pytest
from support import aarch64
from support.calls import Memory, cases
from support.devices import splits_f32
from support.rounding import Rounded
from test_ops import drawn, expected

from hipgpt.base import compiler as build
from hipgpt.compute.backends import cpu
from hipgpt.compute.backends.variants import CPU_AMX
from hipgpt.compute.catalogue import CATALOGUE, OUTPUT_LAYER_TRAINING
from hipgpt.compute.contract import Op
from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field

pytestmark = pytest.mark.slow

FAMILIES = sorted({op.family for op in CATALOGUE.values()})
ACTS = (DType.F32, DType.BF16)
# the oldest x86-64 that has 256-bit vectors and fused multiply-add, and one with neither
OLDER = {"haswell": "-march=haswell", "x86-64-v2": "-march=x86-64-v2"}

EMULATED = 5_000_000  # an emulator takes a minute for what is larger

on_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="kernels of x86-64 run on x86-64 only")

needs_bf16_dots = pytest.mark.skipif(
    not build.host_macros() >= cpu.BF16_DOTS, reason="this processor lacks AVX512-BF16, which AMX's code uses too"
)


@pytest.fixture
def processor(monkeypatch):
    """Return a function that has kernels made for another processor, by an option of the compiler, or by its name."""

    def become(option: str | None = None, arch: str = "cpu") -> None:
        if option:
            others = [one for one in build.host_options() if not one.startswith(("-march", "-mcpu"))]
            monkeypatch.setattr(build, "host_options", lambda: (*others, option))
        monkeypatch.setattr(cpu, "arch", lambda: arch)

    build._compiler_identity.cache_clear()
    cpu._library.cache_clear()
    yield become
    build._compiler_identity.cache_clear()
    cpu._library.cache_clear()


def has_products(op: Op) -> bool:
    return op.family in ("matmul", "attention", "output_layer", "muon")


def check(
    device: Device,
    acts: tuple[DType, ...],
    of: Callable[[Op], bool] = lambda op: True,
    most_elements: float = math.inf,
) -> None:
    """Compare the cases of the ops chosen by `of` with the reference; most_elements: the product of a case's sizes."""
    chosen = (case for act in acts for case in cases(act) if of(case.op) and not case.is_for_hopper)
    for case in (case for case in chosen if math.prod(case.sizes.values()) <= most_elements):
        got = Memory(device, case, drawn(case)).run()
        for name, wanted in expected(case, splits_f32(device, case)).items():
            if isinstance(wanted, Rounded):
                assert (np.abs(got[name].astype(np.float64) - wanted.value) <= wanted.error).all(), f"{case}: {name}"
            else:
                np.testing.assert_array_equal(got[name], wanted, err_msg=f"{case}: {name}")


@on_x86_64
@pytest.mark.parametrize("option", OLDER.values(), ids=OLDER)
def test_every_op_on_an_older_processor(processor, option):
    if option == OLDER["haswell"] and "__AVX512F__" not in build.host_macros():
        pytest.skip("this processor has haswell's vectors, so test_ops.py runs the same code")
    processor(option)
    check(cpu.CpuDevice(2), ACTS)


@on_x86_64
def test_exponentials_that_no_cache_holds(processor, monkeypatch):
    processor(OLDER["haswell"])
    options = build.host_options()
    monkeypatch.setattr(build, "host_options", lambda: (*options, "-DLAST_CACHE_BYTES=1"))
    check(cpu.CpuDevice(2), (DType.F32,), lambda op: op is OUTPUT_LAYER_TRAINING)


@on_x86_64
@needs_bf16_dots
def test_products_by_amx_on_emulated_tiles(processor, monkeypatch):
    processor(arch="cpu-amx")
    monkeypatch.setitem(CPU_AMX, "CPU_AMX_EMULATED", 1)
    check(cpu.CpuDevice(2), ACTS, has_products)


@on_x86_64
@needs_bf16_dots
@pytest.mark.parametrize("arch", ["cpu", "cpu-avx512bf16"])
def test_products_without_what_this_processor_may_have_beyond(processor, arch):
    processor(arch=arch)
    check(cpu.CpuDevice(2), ACTS, has_products)


def error_of_product(device: Device, rows: int, columns: int, terms: int) -> float:
    """Return the greatest error of matmul_forward in f32, in units of 2^-24 of the sum of magnitudes."""
    random = np.random.default_rng(0)
    x, weight = random.standard_normal((rows, terms), np.float32), random.standard_normal((columns, terms), np.float32)
    arena = Arena(device, "product", [Field("x", x.shape), Field("weight", weight.shape), Field("y", (rows, columns))])
    device.write(arena["x"], x)
    device.write(arena["weight"], weight)
    plan = Plan(device, "product", [arena["x"], arena["weight"]])
    plan(CATALOGUE["matmul_forward"], arena["y"], arena["x"], arena["weight"], None)
    plan.run()
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    return float((np.abs(device.read(arena["y"]) - x @ weight.T) / (np.abs(x) @ np.abs(weight).T)).max() * 2.0**24)


@on_x86_64
@needs_bf16_dots
def test_f32_products_by_amx_are_as_exact_as_f32(processor, monkeypatch):
    processor(arch="cpu-amx")
    monkeypatch.setitem(CPU_AMX, "CPU_AMX_EMULATED", 1)
    # a chain of additions in f32 is off by 4, two parts instead of three by 16
    assert error_of_product(cpu.CpuDevice(2), rows=64, columns=64, terms=768) < 3


@on_x86_64
@pytest.mark.parametrize("option", OLDER.values(), ids=OLDER)
def test_sums_in_turns_and_blocks_of_rows_on_an_older_processor(processor, option):
    processor(option)
    assert error_of_product(cpu.CpuDevice(2), rows=2048, columns=40, terms=1030) < 16


needs_cross_compiler = pytest.mark.skipif(
    not shutil.which(aarch64.COMPILER), reason=f"no {aarch64.COMPILER}, a cross compiler (g++-aarch64-linux-gnu)"
)


@needs_cross_compiler
@pytest.mark.skipif(not shutil.which(aarch64.EMULATOR), reason=f"no {aarch64.EMULATOR} (qemu-user)")
@pytest.mark.parametrize("family", FAMILIES)
def test_every_op_on_an_emulated_aarch64(tmp_path, family):
    with contextlib.closing(aarch64.EmulatedDevice(tmp_path)) as device:
        check(device, ACTS, lambda op: op.family == family, most_elements=EMULATED)


def test_without_openmp_everything_runs_on_one_thread(processor, monkeypatch):
    options = [option for option in build.host_options() if option != "-fopenmp"]
    monkeypatch.setattr(build, "host_options", lambda: tuple(options))
    processor(arch=cpu.arch())
    check(cpu.CpuDevice(2), (DType.F32,), lambda op: op.name == "matmul_forward")
