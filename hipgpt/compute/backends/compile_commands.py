"""Writes compile_commands.json, by which clangd and other tools read the kernels with the macros that choose files.

python -m hipgpt.compute.backends.compile_commands
"""

import json
from pathlib import Path

from hipgpt.base.compiler import host_options, include_options
from hipgpt.base.compiler_answers import host_compiler
from hipgpt.base.paths import KERNELS, ROOT
from hipgpt.compute.backends import cpu
from hipgpt.compute.backends.variants import find_variant
from hipgpt.compute.catalogue import MATMUL_FORWARD

FILE = ROOT / "compile_commands.json"
CLANG = "clang++-19"
HIPRTC = ROOT / "tests" / "support" / "amd" / "hiprtc.h"  # stands for the header that HIPRTC includes by itself
GPU_ARCH, GPU_MACROS = "gfx1100", {"WAVE": 32, "ACT_BF16": 1, "MMA_WMMA_GFX11": 1}
Command = dict[str, str | list[str]]


def compile_commands() -> list[Command]:
    """Return an entry for each source, in the form of Clang's "JSON Compilation Database Format Specification"."""
    return [*host_commands(), *gpu_commands()]


def host_commands() -> list[Command]:
    """Return the entries of kernels/cpu and kernels/bpe, for the row of the table of variants that serves this machine.

    Without OpenMP, because clang does not find GCC's omp.h, and without what is for linking.
    """
    act = cpu.act_dtypes()[0]
    macros = cpu.macros_of(find_variant(MATMUL_FORWARD, cpu.arch(), act, {}), act)
    options = [one for one in host_options() if one not in ("-fopenmp", "-shared") and not one.startswith("-Wl,")]
    sources = sorted(path for folder in ("cpu", "bpe") for path in (KERNELS / folder).rglob("*.cpp"))
    return [_entry(source, [*host_compiler(), *options, *include_options(macros)]) for source in sources]


def gpu_commands() -> list[Command]:
    """Return the entries of kernels/gpu, compiled as HIP for one AMD chip: clang needs no ROCm for that."""
    options = ["-x", "hip", "--cuda-device-only", f"--offload-arch={GPU_ARCH}", "-nogpuinc", "-nogpulib"]
    options += ["-std=c++17", "-D__HIPCC_RTC__", "-include", str(HIPRTC), *include_options(GPU_MACROS)]
    return [_entry(source, [CLANG, *options]) for source in sorted((KERNELS / "gpu").glob("*.hip"))]


def _entry(source: Path, command: list[str]) -> Command:
    return {"directory": str(ROOT), "file": str(source), "arguments": [*command, "-c", str(source)]}


if __name__ == "__main__":
    FILE.write_text(json.dumps(compile_commands(), indent=1) + "\n", encoding="utf-8")
