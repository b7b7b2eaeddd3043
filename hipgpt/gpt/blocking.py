"""Blocking: how many sequences of a batch, and how many rows of logits, a device computes at once."""

from dataclasses import dataclass

from hipgpt.compute.catalogue import OUTPUT_LAYER_TRAINING
from hipgpt.compute.device import Device
from hipgpt.compute.fused_ops import OUTPUT_LAYER_LOSS
from hipgpt.compute.tensor import DType, Field
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.activations import activations

LEAST_LOGIT_ROWS = 1024


@dataclass(frozen=True)
class Blocking:
    """The block sizes for a batch on a device.

    sequences: the number of sequences that a pass takes, a divisor of the batch. logit_rows: the number of tokens whose
    logits, or their exponentials, are stored at once. of_output_layer: see `fused_output_layer`, for that many tokens.
    """

    sequences: int
    logit_rows: int
    of_output_layer: list[Field]


def blocking(model: ModelConfig, sequences: int, length: int, act: DType, device: Device) -> Blocking:
    """Return the block sizes for a batch of (sequences, length) tokens on a device."""
    at_once = sequences_at_once(model, sequences, length, act, device.traits.cache_bytes)
    rows = logit_rows(model, at_once * length, device.traits.cache_bytes)
    return Blocking(at_once, rows, fused_output_layer(model, rows, act, device))


def fused_output_layer(model: ModelConfig, rows: int, act: DType, device: Device) -> list[Field]:
    """Return the fields that the output layer's ops share, or use as a workspace, for so many tokens.

    The ops are OUTPUT_LAYER_TRAINING, or OUTPUT_LAYER_LOSS and OUTPUT_LAYER_WEIGHT. There are no fields if the device
    has neither for the model.
    """
    sizes = {"N": rows, "C": model.embed_dim, "V": model.vocab_size}
    if elements := device.traits.workspace(OUTPUT_LAYER_TRAINING, sizes, act):
        shapes = {"exponentials": (elements,), "scaled": (rows, model.embed_dim)}
        return [Field(f"output_layer.{name}", shape, act) for name, shape in shapes.items()]
    if device.traits.workspace(OUTPUT_LAYER_LOSS, sizes, act):
        return [Field(f"output_layer.{name}", (rows,)) for name in ("logsumexp", "not_target")]
    return []


def logit_rows(model: ModelConfig, rows: int, cache_bytes: int | None) -> int:
    """Return how many of a pass's rows to compute logits for at once: all of them, or a part if it should fit a cache.

    The R*V logits of a block of R rows stay in the caches. But each further block reads and writes the gradient of the
    output layer's weight, V*E elements, once more. At R = 4E a block has four times as many logits as that. With fewer
    than LEAST_LOGIT_ROWS, many threads would have too few rows each.
    """
    return rows if cache_bytes is None else min(rows, max(LEAST_LOGIT_ROWS, 4 * model.embed_dim))


def sequences_at_once(model: ModelConfig, sequences: int, length: int, act: DType, cache_bytes: int | None) -> int:
    """Return how many sequences to take at once: the largest divisor of `sequences` whose activations fit the caches.

    Such a group must have at least 4E rows, because every group packs the weights and adds to their gradients again. If
    a group that fits would be smaller, the whole batch is one group: its activations leave the caches anyway.
    """
    if cache_bytes is None:
        return sequences
    fields = [field for field in activations(model, 1, length, act) if field.name != "logits"]
    sequence_bytes = sum(field.elements * field.dtype.size_bytes for field in fields)
    least, most = -(-4 * model.embed_dim // length), cache_bytes // sequence_bytes
    suitable = (count for count in range(least, min(most, sequences) + 1) if sequences % count == 0)
    return max(suitable, default=sequences)
