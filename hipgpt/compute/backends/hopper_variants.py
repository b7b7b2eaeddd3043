"""The rows of the table of variants that only a Hopper has: their kernels use its copy engine or its large memory."""

from hipgpt.compute.backends import decode_blocks, decode_tokens, output_layer, stacked_gemm, token_layers
from hipgpt.compute.backends.launch_shapes import (
    ATTENTION_TMA,
    CONSTANTS,
    WIDTH,
    Sizes,
    cross_entropy_large,
)
from hipgpt.compute.backends.persistent_gemm import ENOUGH_ITEMS, STAGE_K, Boxes, PersistentGemm, boxes_of
from hipgpt.compute.backends.variant import Variant, compiled_for
from hipgpt.compute.contract import Op

HOPPER = r"sm_90a"
LARGE_VOCABULARY = 16384
HALF_OF_SHARED = 112 << 10  # bytes of a multiprocessor, for each of two blocks; they also take some themselves


def _persistent_gemm() -> Variant:
    """The row for large GEMMs on Hopper, which take tiles by the copy engine."""
    schedule = PersistentGemm()
    return Variant(
        r"matmul_.*", HOPPER, "bf16", "gpu/matmul_tma.hip",
        suits=schedule.suits, shared_bytes=CONSTANTS["TMA_SHARED_BYTES"], schedule=schedule, boxes=boxes_of,
    )  # fmt: skip


def _stacked_newton_schulz() -> Variant:
    """The row for Muon's GEMMs of large matrices on Hopper, which take tiles by the copy engine."""

    def suits(op: Op, sizes: Sizes) -> bool:
        return stacked_gemm.tiles(op, sizes) >= ENOUGH_ITEMS

    return Variant(
        r"newton_schulz_(gram|polynomial|step)", HOPPER, "bf16", "gpu/muon_tma.hip",
        suits=suits, shapes=stacked_gemm.SHAPES, shared_bytes=CONSTANTS["TMA_SHARED_BYTES"],
        boxes=stacked_gemm.boxes_of,
    )  # fmt: skip


def _decode_blocks() -> Variant:
    """The row for a decoder's blocks in one launch."""
    return Variant(
        "decode_blocks", HOPPER, "bf16", "gpu/decode_blocks.hip", shapes={"decode_blocks": decode_blocks.shape},
        suits=lambda op, sizes: decode_blocks.suits(sizes), together=True,
        for_sizes=compiled_for(decode_blocks.macros, decode_blocks.shared_bytes),
    )  # fmt: skip


def _decode_tokens() -> Variant:
    """The row for whole tokens of a narrow model, many in one launch."""
    return Variant(
        "decode_tokens", HOPPER, "bf16", "gpu/decode_tokens.hip", shapes={"decode_tokens": decode_tokens.shape},
        suits=lambda op, sizes: decode_tokens.suits(sizes),
        for_sizes=compiled_for(decode_tokens.macros, decode_tokens.shared_bytes),
    )  # fmt: skip


def _token_layers() -> Variant:
    """The row for a narrow model's layers between two attentions."""
    return Variant(
        r"token_layers_(forward|backward)", HOPPER, "bf16", "gpu/token_layers.hip", shapes=token_layers.SHAPES,
        suits=lambda op, sizes: token_layers.suits(sizes), for_sizes=compiled_for(token_layers.macros),
        boxes=token_layers.boxes_of, shared_bytes=CONSTANTS["TOKEN_LAYERS_SHARED_BYTES"],
    )  # fmt: skip


def _block_weights() -> Variant:
    """The row for the gradients of a block's weights, all in one launch."""
    schedule = PersistentGemm()

    def suits(op: Op, sizes: Sizes) -> bool:
        """Return whether this is faster than a launch for each weight.

        Between token layers other launches run at the same time. Elsewhere the next launch waits, because it overwrites
        a gradient that this one reads, so this one must fill the chip. S3 has three slices of 108 tiles: a step takes
        56.3 ms with one launch, 56.1 with four (H200).
        """
        if any(size % WIDTH for size in sizes.values()):
            return False
        if token_layers.suits(sizes) and sizes["G"] == sizes["F"]:
            return schedule.runs_at_once(op, sizes)
        return schedule.fills_all_clusters(op, sizes)

    def boxes(op: Op) -> tuple[Boxes, ...]:
        return tuple(Boxes(each.name, STAGE_K) for each in op.arguments if each.access == "in")

    return Variant(
        "block_weights", HOPPER, "bf16", "gpu/block_weights.hip",
        suits=suits, shared_bytes=CONSTANTS["TMA_SHARED_BYTES"], schedule=schedule, boxes=boxes,
    )  # fmt: skip


def _output_layer(op: str) -> Variant:
    """A row for the two passes over a narrow model's output layer that store no logits."""
    return Variant(
        op, HOPPER, "bf16", f"gpu/{op}.hip", shapes=output_layer.SHAPES,
        suits=lambda op, sizes: output_layer.suits(sizes), for_sizes=compiled_for(output_layer.DIVISIONS[op].macros),
        boxes=output_layer.boxes_of, shared_bytes=CONSTANTS["OUTPUT_LAYER_SHARED_BYTES"],
    )  # fmt: skip


def _persistent_attention(channels: int) -> Variant:
    """The row for attention on Hopper with heads of exactly so many channels, whose tiles come by the copy engine."""

    def fits(op: Op, sizes: Sizes) -> bool:
        return sizes["D"] == channels and sizes["S"] >= CONSTANTS["TMA_QUERIES"]

    queries_and_outputs = 4 * CONSTANTS["TMA_QUERIES"] * channels  # bytes
    return Variant(
        "attention_forward", HOPPER, "bf16", "gpu/attention_tma.hip",
        macros={"HEAD_CHANNELS": channels}, shapes=ATTENTION_TMA, suits=fits,
        boxes=lambda op: (Boxes("qkv", CONSTANTS["TMA_KEYS"], inner=3),),
        shared_bytes=CONSTANTS["TMA_KEY_VALUE_BYTES"] + queries_and_outputs,
    )  # fmt: skip


def _persistent_attention_backward() -> Variant:
    """The row for the backward pass with heads of 64 channels; its statistics are copied by 16 bytes."""
    return Variant(
        "attention_backward", HOPPER, "bf16", "gpu/attention_backward_tma.hip", shapes=ATTENTION_TMA,
        suits=lambda op, s: s["D"] == 64 and s["S"] >= CONSTANTS["TMA_QUERIES"] and s["S"] % 4 == 0,
        boxes=lambda op: (Boxes("qkv", 64, inner=3), Boxes("dy", 64, inner=2)),
        shared_bytes=CONSTANTS["TMA_BACKWARD_BYTES"],
    )  # fmt: skip


def _cross_entropy() -> Variant:
    """The row for a large vocabulary whose row of logits fits into half of the shared memory."""

    def suits(op: Op, sizes: Sizes) -> bool:
        return sizes["V"] >= LARGE_VOCABULARY and sizes["V"] % WIDTH == 0 and 2 * sizes["V"] <= HALF_OF_SHARED

    return Variant(
        "cross_entropy_training", HOPPER, "bf16", "gpu/cross_entropy_tma.hip",
        shapes=cross_entropy_large(CONSTANTS["TMA_ROW_THREADS"]), suits=suits,
        for_sizes=compiled_for(shared_bytes=lambda sizes: 2 * sizes["V"]),
    )  # fmt: skip


HOPPER_VARIANTS = (
    _cross_entropy(),
    _persistent_gemm(),
    _stacked_newton_schulz(),
    _decode_blocks(),
    _decode_tokens(),
    _token_layers(),
    _block_weights(),
    *(_output_layer(op) for op in output_layer.DIVISIONS),
    *(_persistent_attention(channels) for channels in (64, 128)),
    _persistent_attention_backward(),
)
