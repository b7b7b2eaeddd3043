"""Kernels compile for the GPUs that HipGPT names, with no GPU: clang for AMD's, NVRTC for NVIDIA's."""

import functools
import importlib.util
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from support.amd import clang
from support.amd.builds import Build, builds

from hipgpt.base.errors import UserError
from hipgpt.compute.backends.code_objects import compile_source
from hipgpt.compute.catalogue import ON_GPUS

pytestmark = pytest.mark.slow

# A source knows the width of a wave and its macros, not the chip. So each of these chips compiles NEEDIEST, and what no
# chip before it with waves as wide compiles.
CHIPS = ("gfx942", "gfx1100", "gfx900", "gfx90a", "gfx1030", "gfx1151", "gfx1201", "gfx1200")
HOT = ("matmul", "attention", "layernorm", "cross_entropy")  # families that a step spends its time in
# what needs most registers, because chips differ in these; gfx900 has half as many as the other chips with its waves
NEEDIEST = dict.fromkeys(CHIPS, ("attention.hip", "attention_backward_amd.hip-bf16-128")) | {"gfx900": HOT}
# leaves out most of the optimiser: the front end and the assembler, which refuse wrong code, do the same work
NVRTC_OPTIONS = (b"--Ofast-compile=max",)
PROCESSES = 2  # of clang in parallel
needs_clang = pytest.mark.skipif(clang.missing() is not None, reason=f"cannot compile for AMD: {clang.missing()}")
needs_nvrtc = pytest.mark.skipif(not importlib.util.find_spec("cuda"), reason="no cuda-python, so no NVRTC")
every_amd_gpu = pytest.mark.parametrize("arch", clang.WAVE)


def source_of(build: Build) -> tuple:
    return (str(build), *build.variant.macros.items())


def compiled_for(arch: str) -> dict[str, list[Build]]:
    """Return those of an AMD GPU's compilations that are to be tried on it."""
    before = [chip for chip in CHIPS[: CHIPS.index(arch)] if clang.WAVE[chip] == clang.WAVE[arch]]
    tried = {source_of(build) for chip in before for build, *_ in builds(chip).values()}
    return {
        name: served
        for name, served in builds(arch).items()
        if source_of(served[0]) not in tried or name.startswith(NEEDIEST[arch])
    }


def kernels_of(found: dict[str, list[Build]]) -> set[str]:
    return {build.op.name for served in found.values() for build in served}


@functools.cache
def usage(arch: str) -> dict[str, dict[str, dict[str, str]]]:
    """Return by build and kernel what clang says of its resources."""

    def usage_of(served: list[Build]) -> dict[str, dict[str, str]]:
        driver = clang.OfflineDriver(arch)
        compile_source(driver, *served[0])
        return driver.usage

    clang.device_libraries()  # before the threads, which share it
    with clang.fresh_cache(), ThreadPoolExecutor(PROCESSES) as pool:
        found = compiled_for(arch)
        return dict(zip(found, pool.map(usage_of, found.values()), strict=True))


def test_every_compilation_that_some_chip_needs_is_tried():
    assert set(CHIPS) == set(clang.WAVE)
    tried = {source_of(build) for arch in CHIPS for build, *_ in compiled_for(arch).values()}
    assert tried == {source_of(build) for arch in CHIPS for build, *_ in builds(arch).values()}


@needs_clang
@every_amd_gpu
def test_ops_compile_without_a_warning_for_amd(arch):
    assert {kernel for found in usage(arch).values() for kernel in found} == kernels_of(compiled_for(arch))


@needs_clang
@every_amd_gpu
def test_gemms_and_attention_use_mma_where_there_is_any(arch):
    found = {name for name in builds(arch) if "_mma" in name or "_amd" in name}
    sources = ("matmul_mma", "muon_mma", "attention_amd", "attention_backward_amd")
    expected = {f"{source}.hip-bf16-{size}" for source in sources for size in (32, 64, 128)}
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


@pytest.fixture
def nvidia():
    """Return a function that makes the compiling half of a driver, for an architecture."""
    cuda = pytest.importorskip("hipgpt.compute.backends.cuda", exc_type=Exception)

    def driver(arch: str) -> SimpleNamespace:
        return SimpleNamespace(
            backend="cuda", arch=arch, wave=32, compiler="nvrtc",
            compile=lambda *source: cuda.compile_cuda(*source, arch),
        )  # fmt: skip

    with clang.fresh_cache():
        yield driver


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90a"])
def test_ops_compile_for_nvidia(nvidia, monkeypatch, arch):
    nvrtc = importlib.import_module("cuda.bindings.nvrtc")
    compile_program = nvrtc.nvrtcCompileProgram

    def compile_quickly(program, count, options):
        return compile_program(program, count + len(NVRTC_OPTIONS), [*options, *NVRTC_OPTIONS])

    monkeypatch.setattr(nvrtc, "nvrtcCompileProgram", compile_quickly)
    images = b"".join(compile_source(nvidia(arch), *served[0]) for served in builds(arch).values())
    assert kernels_of(builds(arch)) == ON_GPUS.keys()
    assert [name for name in ON_GPUS if name.encode() not in images] == []


@needs_nvrtc
def test_an_op_compiles_for_nvidia_with_the_options_of_a_training(nvidia):
    build, *_ = builds("sm_90a")["attention_tma.hip-bf16-64"]
    assert b"attention_forward" in compile_source(nvidia("sm_90a"), *build)


@needs_nvrtc
def test_an_nvidia_gpu_older_than_nvrtc_knows_is_told_what_to_install():
    cuda = pytest.importorskip("hipgpt.compute.backends.cuda", exc_type=Exception)
    with pytest.raises(UserError, match=r"k.hip: NVRTC for sm_35:\n.*\n.*knows none before sm_\d+: pip install"):
        cuda.compile_cuda("k.hip", "__global__ void k() {}", {}, {}, "sm_35")
