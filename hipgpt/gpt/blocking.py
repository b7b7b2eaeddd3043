"""How much of a batch the passes take at once on a device."""

from dataclasses import dataclass

from hipgpt.compute.catalogue import OUTPUT_LAYER_TRAINING
from hipgpt.compute.device import Device
from hipgpt.compute.tensor import DType
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.activations import activations


@dataclass(frozen=True)
class Blocking:
    """How a device takes a batch.

    sequences: how many the passes take at once, a divisor of the batch; logit_rows: of how many tokens the logits, or
    their exponentials, are stored at once; output_layer_workspace: elements that OUTPUT_LAYER_TRAINING works in for so
    many tokens, or None where the device has no such op.
    """

    sequences: int
    logit_rows: int
    output_layer_workspace: int | None


def blocking(model: ModelConfig, sequences: int, length: int, act: DType, device: Device) -> Blocking:
    """Return how a device should take a batch of (sequences, length) tokens."""
    at_once = sequences_at_once(model, sequences, length, act, device.traits.cache_bytes)
    rows = logit_rows(model, at_once * length, device.traits.cache_bytes)
    workspace = device.traits.workspaces.get(OUTPUT_LAYER_TRAINING)
    return Blocking(at_once, rows, workspace and workspace({"N": rows, "V": model.vocab_size}, act))


def logit_rows(model: ModelConfig, rows: int, cache_bytes: int | None) -> int:
    """Return for how many of a pass's rows to make logits at once: all of them without caches to fit, otherwise 4E.

    A block of R rows stays in the caches, but reads and writes the output layer's gradient, V*E, once more than one
    block of all rows does. At R = 4E the R*V logits are many times that.
    """
    return rows if cache_bytes is None else min(rows, 4 * model.embed_dim)


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
