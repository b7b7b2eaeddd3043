"""Counts the instructions of the main loops of GEMMs and attention in bf16, and estimates their speed.

PYTHONPATH=tests python -m support.amd.count [--arch gfx942] [--markdown] [words ...]

Needs what tests/support/amd/clang.py names and llvm-19. main_loop.py has the model and its error.
"""

import argparse
import functools
import shutil
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from support.amd import clang, disassembly
from support.amd.chips import CHIPS, waves_of_a_simd
from support.amd.main_loop import Loop, measure
from support.amd.paths import main_loops, way_to

from hipgpt.compute.backends.code_objects import compile_source
from hipgpt.compute.backends.launch_shapes import Sizes
from hipgpt.compute.backends.variant import Variant
from hipgpt.compute.backends.variants import find_variant, variants_of
from hipgpt.compute.catalogue import CATALOGUE
from hipgpt.compute.contract import Op
from hipgpt.compute.tensor import DType

KERNELS = ("matmul_forward", "matmul_backward_input", "matmul_backward_weight", "attention_forward",
           "attention_backward")  # fmt: skip
COLUMNS = ("kernel", "chip", "VALU per matrix instruction", "matrix", "LDS", "LDS cycles", "bank conflicts (unknown)",
           "loads", "waits (serial)", "registers", "LDS KiB", "waves", "spilled", "estimate, TFLOP/s",
           "bound")  # fmt: skip


class Counted(NamedTuple):
    """A main loop of a kernel on a chip. size: block tile of a GEMM, channels of a head."""

    kernel: str
    size: int
    arch: str
    loop: Loop
    needs: disassembly.Resources

    def row(self) -> tuple[str, ...]:
        chip, loop = CHIPS[self.arch], self.loop
        waves = waves_of_a_simd(chip, self.needs.registers, self.needs.lds_bytes, self.needs.threads)
        return (
            f"{self.kernel} {self.size}", self.arch, f"{loop.valu_per_matrix:.1f}", f"{loop.matrix}", f"{loop.lds}",
            f"{loop.lds_share:.2f}", f"{loop.banks.conflicts:g} ({loop.banks.unknown})", f"{loop.loads}",
            f"{loop.waits.get('global', 0)} ({loop.serial_waits})",
            f"{self.needs.registers}", f"{self.needs.lds_bytes / 1024:.0f}", f"{waves:g}", f"{self.needs.spilled}",
            f"{loop.tflops:.0f} of {chip.peak_tflops:.0f}", loop.bound,
        )  # fmt: skip


def missing(arch: str = "gfx942") -> str | None:
    """Return what is not installed here that counting on a chip needs, or None."""
    absent = next((tool for tool in (disassembly.OBJDUMP, disassembly.READELF) if not shutil.which(tool)), None)
    return f"no {absent}" if absent else clang.missing(arch)


def counted(name: str, arch: str) -> list[Counted]:
    """Return every main loop of the kernels of an op on a chip, widest first."""
    sizes = {_size_of(variant) for variant in variants_of(CATALOGUE[name], arch, DType.BF16)} - {None}
    return [one for size in sorted(sizes, reverse=True) for one in loops(name, arch, size)]


@functools.cache
def loops(name: str, arch: str, size: int) -> list[Counted]:
    """Return the main loops of the kernel of one size, that with the most matrix instructions first."""
    listed, needs = _kernels(name, arch, size)[name]
    measured = [measure(path, CHIPS[arch], needs, way_to(listed, path)) for path in main_loops(listed)]
    return [Counted(name, size, arch, loop, needs) for loop in sorted(measured, key=lambda loop: -loop.matrix)]


def estimate(op: Op, arch: str, sizes: Sizes) -> float | None:
    """Return the TFLOP/s that main_loop.py's model lets a GEMM or attention in bf16 reach; None for all other ops.

    It counts 5 products for attention's backward pass, as the op does. The kernel's two main loops make 4 and 3.
    """
    size = _size_of(find_variant(op, arch, DType.BF16, sizes))
    if size is None or arch not in CHIPS or missing(arch):
        return None
    rates = [one.loop.tflops for one in loops(op.name, arch, size)]
    return rates[0] if len(rates) == 1 else 5 / (4 / rates[0] + 3 / rates[1])


def _size_of(variant: Variant) -> int | None:
    """Return the block tile of a row of GEMMs, the channels of a row of attention, None of others."""
    return variant.macros.get("BLOCK_TILE") or variant.macros.get("HEAD_CHANNELS")


def _variant(name: str, arch: str, size: int) -> Variant:
    return next(v for v in variants_of(CATALOGUE[name], arch, DType.BF16) if _size_of(v) == size)


def _kernels(name: str, arch: str, size: int) -> dict:
    source = _variant(name, arch, size).source_of(CATALOGUE[name])
    return _compiled(source, arch, size, name if "attention" in name else "matmul_forward")


@functools.cache
def _compiled(source: str, arch: str, size: int, name: str) -> dict:
    """Return instructions and resources of a source's kernels; all GEMMs of a block tile are compiled together."""
    driver, variant = clang.driver(arch), _variant(name, arch, size)
    read = disassembly.of_assembly if isinstance(driver, clang.AssemblyDriver) else disassembly.of_image
    with clang.fresh_cache():
        return read(compile_source(driver, variant, CATALOGUE[name], DType.BF16))


def table(rows: Iterable[tuple[str, ...]], markdown: bool) -> Iterator[str]:
    """Yield the lines of a table, for a terminal or for a page."""
    listed = [COLUMNS, *rows]
    if markdown:
        listed.insert(1, ("---",) * len(COLUMNS))
        yield from ("| " + " | ".join(row) + " |" for row in listed)
        return
    widths = [max(len(row[i]) for row in listed) for i in range(len(COLUMNS))]
    yield from ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in listed)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m support.amd.count", description=__doc__.splitlines()[0])
    parser.add_argument("--arch", action="append", choices=CHIPS, help="by default gfx942")
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("words", nargs="*", help="count the kernels whose names hold one of these")
    arguments = parser.parse_args()
    archs = arguments.arch or ["gfx942"]
    if problem := next(filter(None, map(missing, archs)), None):
        parser.exit(1, f"cannot count: {problem}; apt-get install clang-19 lld-19 llvm-19 rocm-device-libs\n")
    names = [name for name in KERNELS if not arguments.words or any(word in name for word in arguments.words)]
    rows = [one.row() for arch in archs for name in names for one in counted(name, arch)]
    print("\n".join(table(rows, arguments.markdown)))


if __name__ == "__main__":
    main()
