"""The architectures that `model.architecture` names, each as the parts of its blocks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """The parts of a block. Tables, passes, decoding and exports follow from it.

    rotary: positions by rotating queries and keys, instead of a learned table; key-value heads may then be fewer than
    query heads. rms_norm: RMSNorm instead of LayerNorm. biases: whether linear layers have them. gated: the MLP has two
    halves, silu(gate) * up. head_norm: RMSNorm of each query and key. activations: values of `model.activation`.
    """

    rotary: bool
    rms_norm: bool
    biases: bool
    gated: bool
    head_norm: bool
    activations: tuple[str, ...]


GPT2 = Architecture(
    rotary=False, rms_norm=False, biases=True, gated=False, head_norm=False, activations=("gelu", "relu")
)
LLAMA = Architecture(rotary=True, rms_norm=True, biases=False, gated=True, head_norm=False, activations=("swiglu",))
QWEN3 = Architecture(rotary=True, rms_norm=True, biases=False, gated=True, head_norm=True, activations=("swiglu",))
ARCHITECTURES = {"gpt2": GPT2, "llama": LLAMA, "qwen3": QWEN3}
