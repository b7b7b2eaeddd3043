"""A kernel's check at its first use on a chip: by the matrix units, against plain arithmetic on the same chip.

Libraries and compilers for AMD's chips have shipped wrong numbers without an error, and none of this project's kernels
was tried on every chip. A check takes milliseconds, and is passed once for a chip and a version of a kernel: its mark
is stored with the compiled kernels.
"""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hipgpt.base.errors import UserError
from hipgpt.base.kernel_cache import cached
from hipgpt.compute.backends.variant import Variant
from hipgpt.compute.backends.variants import VARIANTS
from hipgpt.compute.contract import Op
from hipgpt.compute.launch import Launch
from hipgpt.compute.tensor import DType, Tensor

PLAIN = VARIANTS[-1]  # serves every op, chip and size without matrix units
GEMM_SIDE = 192  # at least; more than one stage of K, and block tiles at an edge
ROWS_BEYOND_A_BLOCK, HEADS, MATRICES = 24, 2, 2
ROUNDINGS = 8  # in bf16, between one kernel's result and the other's; wrong numbers differ by about their own size


class Runner(Protocol):
    """What a check needs of a device."""

    name: str

    def allocate(self, size_bytes: int) -> tuple[int, Any]: ...
    def write(self, tensor: Tensor, values: np.ndarray) -> None: ...
    def read(self, tensor: Tensor) -> np.ndarray: ...
    def run(self, variant: Variant, launch: Launch) -> None: ...


def is_by_matrix_units(variant: Variant, op: Op) -> bool:
    """Return whether a row's macros choose a matrix instruction: those of the plain kernels' files choose tiles."""
    return bool(variant.macros) and variant.source_of(op) != PLAIN.source_of(op)


def check_once(device: Runner, variant: Variant, op: Op, act: DType, image: bytes) -> None:
    """Run a row's kernel of an op on random values unless this image passed on this device before.

    Raises UserError if a result is far from that of plain arithmetic.
    """
    key = hashlib.sha256("\0".join((device.name, op.name)).encode() + image).hexdigest()[:24]

    def check(mark: Path) -> None:
        difference, allowed = _difference(device, variant, op, act), ROUNDINGS * act.unit_roundoff
        if not difference <= allowed:
            kernel = f"the kernel of {variant.source_of(op)} with {dict(variant.macros)}"
            raise UserError(
                f"{device.name}: {op.name}: {kernel} is wrong on this chip: it differs from plain arithmetic by "
                f"{difference:.2g} of the largest value, and rounding explains {allowed:.2g}. Set training.precision: "
                "float32, which needs no matrix units, or device: cpu; please report the chip and the version of ROCm "
                "to the project"
            )
        mark.write_text(f"{difference:.3g}\n", encoding="ascii")

    cached(f"{op.name}-{key}.checked", check)


def _sizes(op: Op, variant: Variant) -> Mapping[str, int]:
    side = max(variant.macros.get("BLOCK_TILE", 0), GEMM_SIDE)
    sizes = dict.fromkeys(op.dimensions, side) | {"B": 1, "H": HEADS, "M": MATRICES}
    if "HEAD_CHANNELS" in variant.macros:
        sizes |= {"D": variant.macros["HEAD_CHANNELS"], "S": variant.macros["ATTENTION_ROWS"] + ROWS_BEYOND_A_BLOCK}
    return {name: sizes[name] for name in op.dimensions}


def _difference(device: Runner, variant: Variant, op: Op, act: DType) -> float:
    """Return the largest difference of the two kernels' results, divided by the result's largest value."""
    sizes, rng = _sizes(op, variant), np.random.default_rng(0)
    tensors, before = [], []
    for argument in op.arguments:
        shape = tuple(int(size) if size.isdigit() else sizes[size] for size in argument.shape)
        dtype = act if argument.dtype == "act" else next(each for each in DType if each.label == argument.dtype)
        address, owner = device.allocate(math.prod(shape) * dtype.size_bytes)
        tensors.append(Tensor(argument.name, shape, dtype, address, owner))
        values = rng.standard_normal(shape) if argument.reads else np.full(shape, np.nan)
        if argument.shape[-2:-1] == argument.shape[-1:]:  # x x^T of Newton-Schulz, whose kernels know that it is one
            values = values @ values.swapaxes(-2, -1) / shape[-1]
        before.append(values.astype(dtype.numpy))
    launch = Launch(op, tuple(tensors), sizes, {name: 1.0 for name, _ in op.scalars})

    def results(row: Variant) -> list[np.ndarray]:
        for tensor, values in zip(tensors, before, strict=True):
            device.write(tensor, values)
        device.run(row, launch)
        pairs = zip(op.arguments, tensors, strict=True)
        return [device.read(tensor).astype(np.float64) for argument, tensor in pairs if argument.leaves_values]

    pairs = zip(results(variant), results(PLAIN), strict=True)
    return max(float(np.max(np.abs(ours - plain)) / np.max(np.abs(plain))) for ours, plain in pairs)
