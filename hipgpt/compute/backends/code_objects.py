"""The code objects of a GPU's kernels: which file and macros each is compiled from, and the key of its cache."""

from pathlib import Path

from hipgpt.base.compiler import CodeObject, with_headers
from hipgpt.base.paths import KERNELS
from hipgpt.compute.backends.driver import Driver
from hipgpt.compute.backends.variant import Variant
from hipgpt.compute.contract import Op
from hipgpt.compute.tensor import DType


def macros_of(driver: Driver, variant: Variant, act: DType) -> dict[str, int]:
    """Return the macros that a row is compiled with: kernels/gpu/select/*.h choose files by them."""
    platform = {f"PLATFORM_{driver.backend.upper()}": 1, "WAVE": driver.wave}
    return platform | {"ACT_BF16": int(act is DType.BF16), **variant.macros}


def compile_source(driver: Driver, variant: Variant, op: Op, act: DType) -> bytes:
    """Return the code object of the .hip file that serves an op on the device, from the cache or compiled now."""
    return code_of(driver, variant, op, act).read()


def code_of(driver: Driver, variant: Variant, op: Op, act: DType) -> CodeObject:
    """Return the code object of the .hip file that serves an op on the device, which need not be compiled yet."""
    source, macros = KERNELS / variant.source_of(op), macros_of(driver, variant, act)
    text, headers = source.read_text(encoding="utf-8"), included(source)
    defined = [f"{name}={value}" for name, value in macros.items()]
    key = [driver.backend, driver.arch, driver.compiler, *defined, text, *headers, *headers.values()]
    return CodeObject(source.stem, key, lambda: driver.compile(source.name, text, headers, macros))


def included(source: Path) -> dict[str, str]:
    """Return the text of every file that a source includes, directly or not, by its name in the includes."""
    return {path.relative_to(KERNELS).as_posix(): path.read_text(encoding="utf-8") for path in with_headers(source)[1:]}
