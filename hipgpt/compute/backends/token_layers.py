"""Where kernels/gpu/token_layers.hip serves a model, and how it is launched."""

from collections.abc import Mapping

from hipgpt.compute.backends.launch_shapes import CONSTANTS, Shape, ShapeOf, Sizes
from hipgpt.compute.backends.persistent_gemm import Boxes
from hipgpt.compute.contract import Op
from hipgpt.compute.tensor import DType

ROWS, CLUSTER = 64, CONSTANTS["TOKEN_LAYERS_CLUSTER"]
CHANNELS, MOST_HIDDEN = (128, 256), CONSTANTS["TOKEN_LAYERS_MOST_HIDDEN"]
SIDE = 64  # of a box
MAPPED = {  # arguments that the copy engine reads, then those that it writes
    "token_layers_forward": (
        "attention", "x", "projection", "mlp_in", "mlp_out", "qkv_weight",
        "middle", "mlp_norm", "active", "slope", "y", "norm", "qkv",
    ),
    "token_layers_backward": (
        "dqkv", "dnorm", "dy_after", "y", "slope", "middle", "qkv_weight", "mlp_out", "mlp_in", "projection",
        "dy", "dhidden", "dmiddle", "dattention",
    ),
}  # fmt: skip


def suits(sizes: Sizes) -> bool:
    """Return whether the kernels serve a model: whole blocks of tokens, and an MLP of whole chunks."""
    N, C, F = (sizes[name] for name in "NCF")
    whole = N % (ROWS * CLUSTER) == F % C == 0
    return whole and C in CHANNELS and F <= MOST_HIDDEN


def _shape(sizes: Sizes, wave: int) -> Shape:
    return (sizes["N"] // ROWS, 1, 1), CONSTANTS["TOKEN_LAYERS_THREADS"]


SHAPES: Mapping[str, ShapeOf] = dict.fromkeys(MAPPED, _shape)


def macros(sizes: Sizes) -> Mapping[str, int]:
    """Return the sizes that the kernels are compiled for."""
    return {"CHANNELS": sizes["C"], "HIDDEN": sizes["F"]}


def boxes_of(op: Op) -> tuple[Boxes, ...]:
    """Return the arguments that the copy engine reads."""
    return tuple(Boxes(name, SIDE, inner=2 if name in ("qkv", "dqkv") else 1) for name in MAPPED[op.name])


def partials(sizes: Sizes, act: DType) -> int:
    """Return the number of partial sums of the backward pass, 0 if the kernels do not serve a model."""
    return sizes["N"] // ROWS if act is DType.BF16 and suits(sizes) else 0
