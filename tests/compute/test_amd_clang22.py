"""Kernels compile with clang 22: for gfx950, which clang 19 does not know, and attention for RDNA without spills."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from support.amd import clang, count, disassembly
from support.amd.builds import Build, builds
from support.amd.chips import CHIPS
from support.amd.main_loop import measure
from support.amd.paths import main_loops, way_to

from hipgpt.compute.backends.code_objects import compile_source
from hipgpt.compute.backends.variants import variants_of
from hipgpt.compute.catalogue import CATALOGUE
from hipgpt.compute.tensor import DType

needs_tools = pytest.mark.skipif(clang.missing("gfx950") is not None, reason=f"{clang.missing('gfx950')}")
pytestmark = [pytest.mark.slow, needs_tools]
WIDE_MFMA = "v_mfma_f32_16x16x32_bf16"
PROCESSES = 2  # of clang in parallel


def compiled(arch: str, build: Build) -> tuple[str, dict[str, dict[str, str]]]:
    """Return the assembly and what clang says of each kernel's resources."""
    driver = clang.AssemblyDriver(arch)
    return compile_source(driver, *build).decode(), driver.usage


def spilled(usage: dict[str, dict[str, str]]) -> list[str]:
    return [name for name, found in usage.items() if {found["ScratchSize"], found["VGPRs Spill"]} != {"0"}]


def all_compiled(arch: str, chosen: Callable[[str], object]) -> dict[str, tuple[str, dict[str, dict[str, str]]]]:
    """Return by build what `compiled` returns."""
    clang.device_libraries()  # before the threads, which share it
    found = {name: build for name, (build, *_) in builds(arch).items() if chosen(name)}
    with clang.fresh_cache(), ThreadPoolExecutor(PROCESSES) as pool:
        return dict(zip(found, pool.map(partial(compiled, arch), found.values()), strict=True))


@pytest.fixture(scope="module")
def on_gfx950() -> dict[str, tuple[str, dict[str, dict[str, str]]]]:
    return all_compiled("gfx950", lambda name: "-bf16" in name)  # in f32 the sources are those of gfx942


def test_no_kernel_spills_registers_on_gfx950(on_gfx950):
    assert {name: spilled(usage) for name, (_, usage) in on_gfx950.items() if spilled(usage)} == {}


def test_matrix_kernels_use_the_wide_mfma_of_gfx950_alone(on_gfx950):
    used = {name: set(re.findall(r"\bv_mfma_\w+", text)) for name, (text, _) in on_gfx950.items()}
    assert {name: names for name, names in used.items() if names} == {
        name: {WIDE_MFMA} for name in used if "_mma" in name or "_amd" in name
    }


def test_bf16_is_packed_by_the_instruction_of_gfx950(on_gfx950):
    packed = [name for name, (text, _) in on_gfx950.items() if "v_cvt_pk_bf16_f32" in text]
    assert {"attention_amd.hip-bf16-64", "attention_backward_amd.hip-bf16-64", "matmul_mma.hip-bf16-256"} <= {*packed}


@pytest.mark.parametrize("arch", ["gfx1100", "gfx1201"])
def test_attention_with_the_widest_heads_spills_nothing_on_rdna(arch):
    found = all_compiled(arch, re.compile(r"attention.*_amd.*-128").match)
    assert {name: spilled(usage) for name, (_, usage) in found.items()} == {
        f"attention{way}_amd.hip-bf16-128": [] for way in ("", "_backward")
    }


def test_assembly_and_code_object_of_a_kernel_are_counted_alike():
    """clang 19 makes both for a chip that it knows."""
    op, chip = CATALOGUE["attention_forward"], CHIPS["gfx942"]
    variant = next(v for v in variants_of(op, "gfx942", DType.BF16) if v.macros.get("HEAD_CHANNELS") == 64)
    driver = clang.OfflineDriver("gfx942")
    driver.options = (*driver.options, "-S")
    with clang.fresh_cache():
        listed, needs = disassembly.of_assembly(compile_source(driver, variant, op, DType.BF16))[op.name]
    (in_code_object,) = count.loops(op.name, "gfx942", 64)
    assert needs == in_code_object.needs
    measured = [measure(path, chip, needs, way_to(listed, path)) for path in main_loops(listed)]
    assert measured == [in_code_object.loop]
