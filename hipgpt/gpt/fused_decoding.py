"""All blocks of a decoder as one launch, on a device that has an op for it: one token of few sequences at a time."""

from dataclasses import dataclass

from hipgpt.compute.device import Device
from hipgpt.compute.fused_ops import DECODE_BLOCKS
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field, Tensor
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.parameters import ParameterTensors

ACTIVATIONS = ("gelu", "relu", "relu2")  # by the op's numbers


@dataclass(frozen=True)
class FusedBlocks:
    """The tensors of a model as DECODE_BLOCKS takes them.

    cache (L, 2, B, H, T, D); matrices (L, M); vectors (L, W); exchange (K, 2) i32, which blocks of the launch hand each
    other their outputs by.
    """

    model: ModelConfig
    weights: ParameterTensors
    cache: Tensor
    matrices: Tensor
    vectors: Tensor
    exchange: Tensor

    def __call__(self, plan: Plan, y: Tensor, x: Tensor, positions: Tensor) -> None:
        """Record y = the last norm of x (B, E) after all blocks. positions: (B) i32."""
        inputs = x, self.matrices, self.vectors, *self.weights.norm("final_norm"), positions
        scalars = {"epsilon": self.model.norm_epsilon, "activation": ACTIVATIONS.index(self.model.activation)}
        plan(DECODE_BLOCKS, y, self.cache, self.exchange, *inputs, **scalars)


def fused_blocks(
    device: Device, model: ModelConfig, weights: ParameterTensors, cache: Arena, sequences: int
) -> FusedBlocks | None:
    """Return the blocks of a model with a cache of so many sequences, or None if the device has no op for them."""
    workspace, parts, L = device.traits.workspaces.get(DECODE_BLOCKS), model.parts, model.num_layers
    if workspace is None or parts.rms_norm or parts.rotary or parts.gated or not parts.biases:
        return None
    names = [field.name for field in weights.arena.fields if field.name.startswith("block0.")]
    matrices = _of_all_blocks(weights.arena, [name for name in names if name.endswith(".weight")], L)
    vectors = _of_all_blocks(weights.arena, [name for name in names if not name.endswith(".weight")], L)
    H, T, D = model.num_heads, model.context_length, model.head_channels
    sizes = {"N": sequences, "C": model.embed_dim, "D": D, "M": matrices.shape[1]}
    slots = workspace(sizes, weights.arena.flat.dtype)
    if not slots:
        return None
    exchange = Arena(device, "exchange", [Field("slots", (slots, 2), DType.I32)])["slots"]
    keys_and_values = cache.flat.view(L, 2, sequences, H, T, D)
    return FusedBlocks(model, weights, keys_and_values, matrices, vectors, exchange)


def _of_all_blocks(arena: Arena, names: list[str], blocks: int) -> Tensor:
    """Return (blocks, elements) of fields that are neighbours in the first block, padding included."""
    each = sum(arena.padded_elements(name) for name in names)
    first = arena.offsets[names[0]] // arena.flat.dtype.size_bytes
    return arena.flat.rows(first, first + blocks * each).view(blocks, each)
