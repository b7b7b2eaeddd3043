"""Kernels compile for the GPUs that HipGPT names, with no GPU: clang for AMD's, NVRTC for NVIDIA's."""

import functools
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from support.amd import clang

from hipgpt.base.errors import UserError
from hipgpt.compute.backends.gpu import compile_source
from hipgpt.compute.backends.variants import Variant, variants_of
from hipgpt.compute.catalogue import ON_GPUS
from hipgpt.compute.contract import Op
from hipgpt.compute.tensor import DType

pytestmark = pytest.mark.slow

# one chip for each width of a wave, and NVIDIA's; on the others only what chips differ in is compiled
WHOLE = ("gfx90a", "gfx1100", "sm_80")
DIFFERING = ("matmul", "muon", "attention")  # families with variants by chip
# chips with the instructions and registers of gfx1100 and gfx1201: the family that needs most registers is enough
SIBLINGS, NEEDIEST = ("gfx1151", "gfx1200"), ("attention",)
HOT = ("matmul", "attention", "layernorm", "cross_entropy")  # families that a step spends its time in
PROCESSES = 2  # of clang in parallel
OPS = ON_GPUS.values()
needs_clang = pytest.mark.skipif(clang.missing() is not None, reason=f"cannot compile for AMD: {clang.missing()}")
needs_nvrtc = pytest.mark.skipif(not importlib.util.find_spec("cuda"), reason="no cuda-python, so no NVRTC")
every_amd_gpu = pytest.mark.parametrize("arch", clang.WAVE)


class Build(NamedTuple):
    """A compilation that some op of the catalogue needs: a variant's source for a dtype of activations."""

    variant: Variant
    op: Op
    act: DType

    def __str__(self) -> str:
        sizes = [str(value) for name, value in self.variant.macros.items() if name in ("BLOCK_TILE", "HEAD_CHANNELS")]
        return "-".join([Path(self.variant.source_of(self.op)).name, self.act.label, *sizes])


def is_compiled(op: Op, arch: str) -> bool:
    return arch in WHOLE or op.family in (NEEDIEST if arch in SIBLINGS else DIFFERING)


def builds(arch: str) -> dict[str, Build]:
    """Return the compilations that an architecture needs, by their text."""
    acts = {True: (DType.F32, DType.BF16), False: (DType.F32,)}
    every = [(op, act) for op in OPS for act in acts[any(argument.dtype == "act" for argument in op.arguments)]]
    found = [Build(variant, op, act) for op, act in every for variant in variants_of(op, arch, act)]
    return {str(build): build for build in found if is_compiled(build.op, arch)}


def kernels_of(arch: str) -> set[str]:
    """Return the ops whose kernels are compiled for an architecture."""
    return {name for name, op in ON_GPUS.items() if is_compiled(op, arch)}


def compile_all(driver) -> dict[str, bytes]:
    """Return the code objects of all builds."""
    with clang.fresh_cache():
        return {name: compile_source(driver, *build) for name, build in builds(driver.arch).items()}


@functools.cache
def usage(arch: str) -> dict[str, dict[str, dict[str, str]]]:
    """Return by build and kernel what clang says of its resources."""

    def usage_of(build: Build) -> dict[str, dict[str, str]]:
        driver = clang.OfflineDriver(arch)
        compile_source(driver, *build)
        return driver.usage

    clang.device_libraries()  # before the threads, which share it
    with clang.fresh_cache(), ThreadPoolExecutor(PROCESSES) as pool:
        found = builds(arch)
        return dict(zip(found, pool.map(usage_of, found.values()), strict=True))


@needs_clang
@every_amd_gpu
def test_ops_compile_without_a_warning_for_amd(arch):
    assert {kernel for found in usage(arch).values() for kernel in found} == kernels_of(arch)


@needs_clang
@every_amd_gpu
def test_gemms_and_attention_use_mma_where_there_is_any(arch):
    found = {name for name in builds(arch) if "mma" in name}
    families = NEEDIEST if arch in SIBLINGS else DIFFERING
    expected = {f"{family}_mma.hip-bf16-{side}" for family in families for side in (32, 64, 128)}
    widest = {"matmul_mma.hip-bf16-256"} if arch in ("gfx90a", "gfx942") else set()
    assert found == (set() if arch in ("gfx900", "gfx1030") else expected | widest)


@needs_clang
@every_amd_gpu
def test_hot_kernels_keep_their_values_in_registers_on_amd(arch):
    # an SGPR that is spilled without scratch goes to a lane of a VGPR
    spilled = {
        (build, kernel): found
        for build, kernels in usage(arch).items()
        for kernel, found in kernels.items()
        if build.startswith(HOT) and any(found[what] != "0" for what in ("ScratchSize", "VGPRs Spill"))
    }
    assert not spilled


@needs_clang
@every_amd_gpu
def test_shared_memory_fits_amds_64_kib(arch):
    kernels = [found for kernels in usage(arch).values() for found in kernels.values()]
    assert all(int(found["LDS Size"]) <= 64 << 10 for found in kernels)


@needs_clang
@pytest.mark.parametrize("source", ["__global__ void k() { int unused; }", "nonsense"])
def test_a_warning_or_an_error_would_be_seen(source):
    with pytest.raises(AssertionError, match="k.hip for gfx1100"):
        clang.OfflineDriver("gfx1100").compile("k.hip", source, {}, {"WAVE": 32})


@needs_clang
def test_a_spill_would_be_seen():
    source = """extern "C" __global__ void k(float* y, int i) {
        volatile float kept[64]; kept[i] = y[i]; y[0] = kept[i / 2]; }"""
    driver = clang.OfflineDriver("gfx1100")
    driver.compile("k.hip", source, {}, {"WAVE": 32})
    assert int(driver.usage["k"]["ScratchSize"]) >= 256


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90a"])
def test_ops_compile_for_nvidia(arch):
    cuda = pytest.importorskip("hipgpt.compute.backends.cuda", exc_type=Exception)
    driver = SimpleNamespace(backend="cuda", arch=arch, wave=32, compiler="nvrtc")
    driver.compile = lambda *source: cuda.compile_cuda(*source, arch)
    images = b"".join(compile_all(driver).values())
    assert [name for name in kernels_of(arch) if name.encode() not in images] == []


@needs_nvrtc
def test_an_nvidia_gpu_older_than_nvrtc_knows_is_told_what_to_install():
    cuda = pytest.importorskip("hipgpt.compute.backends.cuda", exc_type=Exception)
    with pytest.raises(UserError, match=r"k.hip: NVRTC for sm_35:\n.*\n.*knows none before sm_\d+: pip install"):
        cuda.compile_cuda("k.hip", "__global__ void k() {}", {}, {}, "sm_35")
