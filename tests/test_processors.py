"""CPU kernels for processors other than this one: older x86-64 run here, AMX on emulated tiles; aarch64 compiles."""

import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from calls import Memory, cases, draw
from rounding import Rounded
from test_ops import expected

from hipgpt.backends import build, cpu
from hipgpt.backends.variants import CPU_AMX, CPU_PLAIN
from hipgpt.tensor import DType

HERE = Path(__file__).parent
SOURCES = sorted({f"{case.op.family}.cpp" for case in cases(DType.F32)})
AARCH64 = "aarch64-linux-gnu-g++"
# the oldest x86-64 that has 256-bit vectors and fused multiply-add, and one with neither
OLDER = {"haswell": "-march=haswell", "x86-64-v2": "-march=x86-64-v2"}

on_x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="kernels of x86-64 run on x86-64 only")


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


def check(acts: tuple[DType, ...], names: str = "") -> None:
    device = cpu.CpuDevice(2)
    for case in (case for act in acts for case in cases(act) if case.op.name.startswith(names)):
        got = Memory(device, case, draw(case)).run()
        for name, wanted in expected(case).items():
            if isinstance(wanted, Rounded):
                assert (np.abs(got[name].astype(np.float64) - wanted.value) <= wanted.error).all(), f"{case}: {name}"
            else:
                np.testing.assert_array_equal(got[name], wanted, err_msg=f"{case}: {name}")


@on_x86_64
@pytest.mark.parametrize("option", OLDER.values(), ids=OLDER)
def test_every_op_on_an_older_processor(processor, option):
    processor(option)
    check((DType.F32, DType.BF16))


@on_x86_64
@pytest.mark.skipif(
    not build.host_macros() >= cpu.BF16_DOTS, reason="this processor lacks AVX512-BF16, which AMX's code uses too"
)
def test_products_by_amx_on_emulated_tiles(processor, monkeypatch):
    processor(arch="cpu-amx")
    monkeypatch.setitem(CPU_AMX, "tiles.h", str(HERE / "tiles_emulated.h"))
    check((DType.BF16,), "matmul")


def compile_for(command: list[str], source: str, headers: dict[str, str], act: DType, folder: Path) -> str:
    """Return what the compiler says of a source, warnings too."""
    for name, path in (headers | {"act.h": f"act/{act.label}.h"}).items():
        (folder / name).write_text(f'#include "{cpu.CPU / path}"\n')
    options = [option for option in build.OPTIONS if option != "-O3"]
    command = [*command, *options, "-O1", "-I", str(folder), str(cpu.CPU / source), "-o", str(folder / "image")]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr if done.returncode == 0 else f"failed: {done.stderr}"


@on_x86_64
def test_amx_compiles_without_a_warning(tmp_path):
    command = [*build.host_compiler(), "-march=sapphirerapids"]
    assert compile_for(command, "matmul.cpp", CPU_AMX, DType.BF16, tmp_path) == ""


@pytest.mark.skipif(not shutil.which(AARCH64), reason=f"no {AARCH64}, a cross compiler")
@pytest.mark.parametrize("source", SOURCES)
def test_aarch64_compiles_without_a_warning(source, tmp_path):
    for act in (DType.F32, DType.BF16):
        assert compile_for([AARCH64], source, CPU_PLAIN, act, tmp_path) == ""


def test_without_openmp_everything_runs_on_one_thread(processor, monkeypatch):
    options = [option for option in build.host_options() if option != "-fopenmp"]
    monkeypatch.setattr(build, "host_options", lambda: tuple(options))
    processor(arch=cpu.arch())
    check((DType.F32,), "matmul_forward")
