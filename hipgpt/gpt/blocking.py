"""How many rows and sequences the passes take at once on a device."""

from hipgpt.compute.device import Device
from hipgpt.compute.tensor import DType
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.activations import activations

CACHED_BYTES = 8 << 20  # of activations on a CPU, to be read again before they leave the caches


def rows_of_logits(model: ModelConfig, rows: int, device: Device) -> int:
    """Return for how many rows to make logits, or keep their exponentials, at a time: all on a GPU, 4E on a CPU.

    A block of R rows stays in the caches, but reads and writes the output layer's gradient, V*E, once more than all
    rows at once would: at R = 4E the R*V numbers kept are many times that.
    """
    return min(rows, 4 * model.embed_dim) if device.backend == "cpu" else rows


def sequences_at_a_time(model: ModelConfig, sequences: int, length: int, act: DType, device: Device) -> int:
    """Return for how many of a batch's sequences to compute a step's passes at a time, a divisor of their number.

    All on a GPU. On a CPU the most whose activations take CACHED_BYTES or less, if those are 4E rows or more, as every
    group packs the weights and adds to their gradients anew; else all, whose activations leave the caches anyway.
    """
    if device.backend != "cpu":
        return sequences
    fields = [field for field in activations(model, 1, length, act) if field.name != "logits"]
    sequence_bytes = sum(field.elements * field.dtype.size_bytes for field in fields)
    least, most = -(-4 * model.embed_dim // length), CACHED_BYTES // sequence_bytes
    suitable = (count for count in range(least, min(most, sequences) + 1) if sequences % count == 0)
    return max(suitable, default=sequences)


def has_output_layer(device: Device) -> bool:
    """Return whether the device has the output layer's passes as one op, OUTPUT_LAYER_TRAINING."""
    return device.backend == "cpu"
