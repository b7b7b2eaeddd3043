"""The gradients of a block's linear layers: one launch where the device has an op for all, otherwise one for each."""

from itertools import chain

from hipgpt.compute.catalogue import MATMUL_BACKWARD_WEIGHT
from hipgpt.compute.fused_ops import BLOCK_WEIGHTS
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Tensor
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.activations import hidden_width, packed_width
from hipgpt.gpt.parameters import ParameterTensors

LAYERS = ("mlp_out", "mlp_in", "projection", "qkv")  # as in the op


class WeightGradients:
    """Adds to the gradients g of the linear layers, for so many rows.

    one_by_one: whether each layer is recorded at once, because its dy is overwritten before the block's last layer.
    """

    def __init__(self, plan: Plan, g: ParameterTensors, model: ModelConfig, rows: int, one_by_one: bool = False):
        self._sizes = {"C": model.embed_dim, "F": model.mlp_dim, "G": hidden_width(model), "N": rows}
        self._sizes |= {"A": model.num_heads * model.head_channels, "Q": packed_width(model)}
        self._plan, self._g = plan, g
        self._keeps = not one_by_one and plan.serves(BLOCK_WEIGHTS, self._sizes)
        self._kept: dict[str, tuple[Tensor | None, ...]] = {}

    def add(self, block: str, layer: str, dy: Tensor, x: Tensor) -> None:
        """Record, now or at `finish_block`, a layer of LAYERS. dy: gradients of its outputs; x: its inputs."""
        tensors = *self._g.linear(f"{block}.{layer}"), dy, x
        if self._keeps:
            self._kept[layer] = tensors
        else:
            self._plan(MATMUL_BACKWARD_WEIGHT, *tensors)

    def finish_block(self) -> None:
        """Record what has been kept. The layer qkv may be missing."""
        sizes = self._sizes if "qkv" in self._kept else self._sizes | {"Q": 0}
        if self._kept and self._plan.serves(BLOCK_WEIGHTS, sizes):
            layers = [self._kept.get(layer, (None,) * 4) for layer in LAYERS]
            self._plan(BLOCK_WEIGHTS, *chain(*(each[:2] for each in layers)), *chain(*(each[2:] for each in layers)))
        else:
            for tensors in self._kept.values():
                self._plan(MATMUL_BACKWARD_WEIGHT, *tensors)
        self._kept.clear()
