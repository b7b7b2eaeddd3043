"""Every kernel compiles for the GPUs that HipGPT names, with no GPU: clang for AMD's, NVRTC for NVIDIA's."""

import functools
import importlib.util
import tempfile
from types import SimpleNamespace
from unittest import mock

import pytest
from amd import clang

from hipgpt.backends.gpu import compile_source
from hipgpt.backends.variants import find_source
from hipgpt.ops import CATALOGUE
from hipgpt.tensor import DType

HOT = ("matmul", "attention", "layernorm", "cross_entropy")  # families that a step spends its time in
OPS = CATALOGUE.values()
needs_clang = pytest.mark.skipif(clang.missing() is not None, reason=f"cannot compile for AMD: {clang.missing()}")
needs_nvrtc = pytest.mark.skipif(not importlib.util.find_spec("cuda"), reason="no cuda-python, so no NVRTC")
every_amd_gpu = pytest.mark.parametrize("arch", clang.WAVE)


def compile_all(driver) -> list[bytes]:
    """Return the code objects of all ops' sources, compiled now: the cache would hide a warning."""
    sources = dict.fromkeys(find_source(op, driver.arch, DType.F32) for op in OPS)
    with tempfile.TemporaryDirectory() as cache, mock.patch.dict("os.environ", XDG_CACHE_HOME=cache):
        return [compile_source(driver, source) for source in sources]


@functools.cache
def usage(arch: str) -> dict[str, dict[str, str]]:
    driver = clang.OfflineDriver(arch)
    compile_all(driver)
    return driver.usage


@needs_clang
@every_amd_gpu
def test_every_op_compiles_without_a_warning_for_amd(arch):
    assert set(usage(arch)) == set(CATALOGUE)


@needs_clang
@every_amd_gpu
@pytest.mark.parametrize("name", [op.name for op in OPS if op.family in HOT])
def test_hot_kernels_keep_their_values_in_registers_on_amd(arch, name):
    found = usage(arch)[name]
    assert {what: found[what] for what in ("ScratchSize", "VGPRs Spill", "SGPRs Spill")} == {
        "ScratchSize": "0", "VGPRs Spill": "0", "SGPRs Spill": "0"
    }  # fmt: skip


@needs_clang
@every_amd_gpu
def test_shared_memory_fits_amds_64_kib(arch):
    assert all(int(found["LDS Size"]) <= 64 << 10 for found in usage(arch).values())


@needs_clang
@pytest.mark.parametrize("source", ["__global__ void k() { int unused; }", "nonsense"])
def test_a_warning_or_an_error_would_be_seen(source):
    with pytest.raises(AssertionError, match="k.hip for gfx1100"):
        clang.OfflineDriver("gfx1100").compile("k.hip", source, {})


@needs_clang
def test_a_spill_would_be_seen():
    source = """extern "C" __global__ void k(float* y, int i) {
        volatile float kept[64]; kept[i] = y[i]; y[0] = kept[i / 2]; }"""
    driver = clang.OfflineDriver("gfx1100")
    driver.compile("k.hip", source, {})
    assert int(driver.usage["k"]["ScratchSize"]) >= 256


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_every_op_compiles_for_nvidia(arch):
    cuda = pytest.importorskip("hipgpt.backends.cuda", exc_type=Exception)
    driver = SimpleNamespace(backend="cuda", arch=arch, wave=32, compiler="nvrtc")
    driver.compile = lambda name, source, headers: cuda.compile_cuda(name, source, headers, arch, driver.wave)
    images = b"".join(compile_all(driver))
    assert [name for name in CATALOGUE if name.encode() not in images] == []
