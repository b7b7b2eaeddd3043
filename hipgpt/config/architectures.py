"""The architectures that `model.architecture` names, each as the parts of its blocks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Architecture:
    """The parts of a block. Tables, passes, decoding and exports follow from it.

    title: its name in texts. rotary: positions by rotating queries and keys, instead of a learned table; keys and
    values may then have fewer heads than queries. rms_norm: RMSNorm instead of LayerNorm. biases: whether linear layers
    have them. gated: the MLP has two halves, silu(gate) * up. head_norm: RMSNorm of each query and key. activations:
    values that `model.activation` may have.
    """

    title: str
    rotary: bool
    rms_norm: bool
    biases: bool
    gated: bool
    head_norm: bool
    activations: tuple[str, ...]

    @property
    def is_gpt2(self) -> bool:
        """Whether a block is one of GPT-2, which is all that ops of several layers compute."""
        return self.biases and not (self.rotary or self.rms_norm or self.gated or self.head_norm)


ARCHITECTURES = {
    "gpt2": Architecture(
        title="GPT-2", rotary=False, rms_norm=False, biases=True, gated=False, head_norm=False,
        activations=("gelu", "relu", "relu2"),
    ),
    "llama": Architecture(
        title="Llama", rotary=True, rms_norm=True, biases=False, gated=True, head_norm=False, activations=("swiglu",)
    ),
    "qwen3": Architecture(
        title="Qwen3", rotary=True, rms_norm=True, biases=False, gated=True, head_norm=True, activations=("swiglu",)
    ),
}  # fmt: skip
