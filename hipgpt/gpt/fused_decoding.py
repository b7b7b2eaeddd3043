"""A decoder's blocks as one launch, or its tokens with their draws, on a device that has ops for them."""

from collections.abc import Sequence
from dataclasses import dataclass

from hipgpt.compute.device import Device
from hipgpt.compute.fused_ops import ACTIVATIONS, DECODE_BLOCKS, DECODE_TOKENS
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field, Tensor
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.parameters import ParameterTensors


@dataclass(frozen=True)
class Stacked:
    """The tensors of a GPT-2 as these ops take them: cache (L, 2, B, H, T, D); matrices (L, M); vectors (L, W)."""

    model: ModelConfig
    weights: ParameterTensors
    cache: Tensor
    matrices: Tensor
    vectors: Tensor

    @property
    def sizes(self) -> dict[str, int]:
        """The dimensions that a device chooses an op by."""
        L, _, N, H, T, D = self.cache.shape
        M, V = self.matrices.shape[1], self.model.vocab_size
        return {"N": N, "L": L, "H": H, "T": T, "D": D, "C": H * D, "M": M, "V": V}

    @property
    def scalars(self) -> dict[str, float]:
        """The scalars of both ops."""
        return {"epsilon": self.model.norm_epsilon, "activation": ACTIVATIONS.index(self.model.activation)}


@dataclass(frozen=True)
class FusedBlocks:
    """All blocks for one token of each sequence. By exchange (K, 2) i32 the launch's thread blocks share outputs."""

    of: Stacked
    exchange: Tensor

    def __call__(self, plan: Plan, y: Tensor, x: Tensor, positions: Tensor) -> None:
        """Record y = the last norm of x (B, E) after all blocks. positions: (B) i32."""
        of, norm = self.of, self.of.weights.norm("final_norm")
        plan(DECODE_BLOCKS, y, of.cache, self.exchange, x, of.matrices, of.vectors, *norm, positions, **of.scalars)


@dataclass(frozen=True)
class FusedTokens:
    """Draws and whole tokens, several of each sequence."""

    of: Stacked

    def __call__(
        self, plan: Plan, outputs: Sequence[Tensor], logits: Tensor, drawn_from: Sequence[Tensor], steps: int
    ) -> None:
        """Record so many steps, each of which draws a token and computes the logits of the one after it.

        outputs: tokens, positions, windows, drawn, and drawn_from: settings, keys, all as DRAW_TOKEN takes them.
        """
        of, w = self.of, self.of.weights
        embeddings = w["token_embedding.weight"], w["position_embedding.weight"]
        inputs = *drawn_from, *embeddings, of.matrices, of.vectors, *w.norm("final_norm"), *w.output_layer
        plan(DECODE_TOKENS, *outputs, logits, of.cache, *inputs, **of.scalars, steps=steps)


def stacked(model: ModelConfig, weights: ParameterTensors, cache: Arena, sequences: int) -> Stacked | None:
    """Return the tensors of a GPT-2 with a cache of so many sequences.

    None for another architecture, and if the cache has padding between its fields.
    """
    L, H, T, D = model.num_layers, model.num_heads, model.context_length, model.head_channels
    if not model.parts.is_gpt2 or cache.flat.elements != 2 * L * sequences * H * T * D:
        return None
    names = [field.name for field in weights.arena.fields if field.name.startswith("block0.")]
    matrices = _of_all_blocks(weights.arena, [name for name in names if name.endswith(".weight")], L)
    vectors = _of_all_blocks(weights.arena, [name for name in names if not name.endswith(".weight")], L)
    return Stacked(model, weights, cache.flat.view(L, 2, sequences, H, T, D), matrices, vectors)


def fused_blocks(device: Device, of: Stacked | None) -> FusedBlocks | None:
    """Return these blocks as one op, None if the device has none for them."""
    if of is None or not (slots := device.traits.workspace(DECODE_BLOCKS, of.sizes, of.cache.dtype)):
        return None
    return FusedBlocks(of, Arena(device, "exchange", [Field("slots", (slots, 2), DType.I32)])["slots"])


def fused_tokens(device: Device, of: Stacked | None) -> FusedTokens | None:
    """Return draws and tokens as one op, None if the device has none for this model."""
    if of is None or not device.traits.workspace(DECODE_TOKENS, of.sizes, of.cache.dtype):
        return None
    return FusedTokens(of)


def _of_all_blocks(arena: Arena, names: list[str], blocks: int) -> Tensor:
    """Return (blocks, elements) of fields that are neighbours in the first block, padding included."""
    each = sum(arena.padded_elements(name) for name in names)
    first = arena.offsets[names[0]] // arena.flat.dtype.size_bytes
    return arena.flat.rows(first, first + blocks * each).view(blocks, each)
