"""Sources to code objects, compiled on first use and cached by the hash of all that decides the result.

The key covers the source, every header it includes, the macros, the options, the compiler's version and the instruction
set that `-march=native` stands for here, so machines, branches and compilers may share a cache folder. A machine
without a compiler uses the cached objects of the last one (compiler_answers.py).
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from tqdm import tqdm

from hipgpt.base.compiler_answers import ask, host_compiler
from hipgpt.base.errors import UserError
from hipgpt.base.instruction_sets import wanted_options
from hipgpt.base.kernel_cache import cache_folder, cached, is_cached
from hipgpt.base.log import LOG
from hipgpt.base.paths import KERNELS

OPTIONS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math",
           "-fopenmp-simd", "-Wall", "-Wextra", "-Wno-unknown-pragmas")  # fmt: skip
SPIN_COUNT = "10000"
INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*"([^"]+)"', re.MULTILINE)


def with_headers(source: Path) -> list[Path]:
    """Return source and every file it includes with quotes, directly or not, in the order first met.

    Names are relative to kernels/. The branches of an #if all count, because macros are not expanded.
    """
    found, waiting = [], [source]
    while waiting:
        path = waiting.pop(0)
        if path not in found:
            found.append(path)
            waiting += [KERNELS / name.decode() for name in INCLUDE.findall(path.read_bytes())]
    return found


def _accepts(*options: str) -> bool:
    source = "#ifdef NEED_OMP\n#include <omp.h>\n#endif\n"
    return ask(*options, "-x", "c++", "-", "-fsyntax-only", source=source).status == 0


def _native_options() -> tuple[str, ...]:
    return next(((option,) for option in ("-march=native", "-mcpu=native") if _accepts(option)), ())


def _macros(options: Sequence[str]) -> frozenset[str]:
    """Return the macros that the compiler predefines with these options."""
    lines = ask(*options, "-dM", "-E", "-x", "c++", "-").output.splitlines()
    return frozenset(line.split()[1] for line in lines if line.startswith("#define "))


def _native_macros() -> frozenset[str]:
    return _macros(_native_options())


@functools.cache
def host_options() -> tuple[str, ...]:
    """Return OPTIONS, what this compiler has of tuning for this processor and OpenMP threads, and how to link.

    Raises UserError if $HIPGPT_ISA names an instruction set that does not exist or that this processor lacks.
    """
    native = list(wanted_options(_native_macros) or _native_options())
    # compilers prefer 256 bits on processors with 512, for clocks that fell; they no longer do
    native += [option for option in ("-mprefer-vector-width=512",) if _accepts(option)]
    openmp = ["-fopenmp"] if _accepts("-fopenmp", "-DNEED_OMP") else []
    # a library calls its own functions, not those of the same name that the process has: the C library has an `advance`
    own = ["-Wl,-Bsymbolic-functions"] if sys.platform == "linux" else []
    return (*OPTIONS, *native, *openmp, *own)


def host_compiler_version() -> str:
    """Return what the compiler says it is; the first line is for people."""
    return ask("--version").output


@functools.cache
def _compiler_identity() -> bytes:
    """Return the compiler's version and the resolved target flags (what 'native' means on this machine)."""
    dry_run = ask(*host_options(), "-E", "-x", "c++", "-", "-###")
    return (host_compiler_version() + dry_run.messages).encode()


@functools.cache
def host_macros() -> frozenset[str]:
    """Return the macros that the compiler predefines for host_options(): they tell what instructions there are."""
    return _macros(host_options())


def include_options(macros: Mapping[str, int] = MappingProxyType({})) -> list[str]:
    """Return the options by which a source finds the files of kernels/, and these macros."""
    return ["-I", str(KERNELS), *(f"-D{name}={value}" for name, value in macros.items())]


def host_library(source: Path, macros: Mapping[str, int] = MappingProxyType({})) -> Path:
    """Return the shared library of one C++ file, compiled for this machine unless the cache has it.

    macros: defined for the compilation; kernels/cpu/select/*.h choose files by them.
    Call it before loading the library, because it also bounds how long OpenMP's threads spin at a barrier. By default
    they spin for so long that a step takes ten times its time when another job has one of the cores.
    Raises UserError with the compiler's own words if it does not compile, if the cache cannot be written, or if the
    cache lacks the library and there is no compiler.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)

    def compile(library: Path) -> None:
        command = [*host_compiler(), *host_options(), *include_options(macros), str(source)]
        done = subprocess.run([*command, "-o", str(library)], capture_output=True, encoding="utf-8", errors="replace")
        if done.returncode != 0:
            raise UserError(f"{source}: {' '.join(command)} failed with exit status {done.returncode}", done.stderr)

    return cached(_library_name(source, macros), compile)


def _library_name(source: Path, macros: Mapping[str, int]) -> str:
    digest = hashlib.sha256(_compiler_identity() + " ".join(host_options()).encode())
    digest.update(repr(sorted(macros.items())).encode())
    for path in with_headers(source):
        digest.update(b"\0" + path.name.encode() + b"\0" + path.read_bytes())
    return f"{source.stem}-{digest.hexdigest()[:24]}.so"


def compile_libraries(wanted: Sequence[tuple[Path, Mapping[str, int]]], threads: int) -> None:
    """Compile the libraries that the cache lacks, so many at once. The log and a terminal say so.

    wanted: sources and their macros. Raises UserError as host_library does.
    """
    missing = [one for one in wanted if not is_cached(_library_name(*one))]
    if not missing:
        return
    with _announced(len(missing), "this processor") as compiled, ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda one: host_library(*one), missing):
            compiled()


@contextlib.contextmanager
def _announced(count: int, processor: str) -> Iterator[Callable[[], object]]:
    """Say in the log that so many kernels are compiled, and show a bar. Yields a function to call after each."""
    LOG.info("compiling kernels for %s, once (%d to go); they are kept in %s", processor, count, cache_folder())
    with tqdm(total=count, desc="compile kernels", unit="file", disable=None, leave=False) as bar:
        yield bar.update


def load_library(source: Path, macros: Mapping[str, int] = MappingProxyType({})) -> ctypes.CDLL:
    """Return the library of `host_library`, loaded.

    Raises UserError as it does, and if a library that this one needs is not on this machine.
    """
    path = host_library(source, macros)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be loaded ({error}); install the compiler's libraries (libstdc++6, libgomp1)"
        ) from error


@dataclass(frozen=True)
class CodeObject:
    """A GPU code object, which the cache has by the hash of all of `key`, or which compile() returns."""

    name: str
    key: Sequence[str]
    compile: Callable[[], bytes]

    @property
    def file(self) -> str:
        return f"{self.name}-{hashlib.sha256(chr(0).join(self.key).encode()).hexdigest()[:24]}.gpu"

    def read(self) -> bytes:
        return cached(self.file, self._write).read_bytes()

    def _write(self, path: Path) -> None:
        path.write_bytes(self.compile())


def compile_code_objects(wanted: Iterable[CodeObject]) -> None:
    """Compile the code objects that the cache lacks. The log and a terminal say so."""
    missing = list({code.file: code for code in wanted if not is_cached(code.file)}.values())
    if not missing:
        return
    with _announced(len(missing), "this GPU") as compiled:
        for code in missing:
            code.read()
            compiled()
