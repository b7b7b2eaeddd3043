"""Every op of the catalogue on a CPU under the address and undefined-behaviour sanitizers.

    python -m support.sanitized_ops ARCH DTYPE        (in tests/, with libasan preloaded: see test_sanitizers.py)

Each tensor is an allocation of exactly its bytes, so that the first byte beyond it is noticed. Prints each case before
it runs; the sanitizers end the process at the first finding.
"""

import ctypes
import sys
import weakref

from hipgpt.base import compiler
from hipgpt.compute.backends import cpu
from hipgpt.compute.tensor import DType
from support.calls import Memory, cases, draw

# without alignment: for a reference to an element of an array, g++ forgets that `Vector` is declared aligned(4)
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize=alignment", "-fno-sanitize-recover=undefined", "-g1",
    "-fno-omit-frame-pointer")  # fmt: skip
MOST_OPERATIONS = 100_000_000  # of a case: larger ones repeat the same code
ALIGNMENT = 64


class Owner:
    """Memory of the C library, freed with its owner."""

    def __init__(self, library: ctypes.CDLL, address: int):
        self.address = address
        weakref.finalize(self, library.free, ctypes.c_void_p(address))


class ExactDevice(cpu.CpuDevice):
    """A CPU whose allocations have no byte to spare."""

    def allocate(self, size_bytes: int) -> tuple[int, Owner]:
        library, place = ctypes.CDLL(None), ctypes.c_void_p()
        assert library.posix_memalign(ctypes.byref(place), ALIGNMENT, ctypes.c_size_t(size_bytes)) == 0
        assert place.value is not None
        ctypes.memset(place.value, 0, size_bytes)
        return place.value, Owner(library, place.value)


def main() -> None:
    arch, act = sys.argv[1], DType[sys.argv[2]]
    # unoptimised code has every access that the source has, and compiles in a quarter of the time
    options = [option if option != "-O3" else "-O0" for option in compiler.OPTIONS]
    compiler.OPTIONS = (*options, *SANITIZERS)
    cpu.arch = lambda: arch
    device, count = ExactDevice(2), 0
    for case in cases(act):
        if case.op.operations(**case.sizes) > MOST_OPERATIONS:
            continue
        print(case, flush=True)
        Memory(device, case, draw(case), guard=0).run()
        count += 1
    print(f"{count} cases passed")


if __name__ == "__main__":
    main()
