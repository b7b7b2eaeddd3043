"""The parameters of a model: their table, their initial values, and their tensors by name.

Weights of linear layers are (out, in). Radford et al. 2019, "Language models are unsupervised multitask learners".
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hipgpt.compute.tensor import Arena, Field, Tensor
from hipgpt.config.settings import ModelConfig

INITIAL_STD = 0.02


@dataclass(frozen=True)
class Linear:
    """A linear layer of a block. matrices: rows of each matrix of its weight, one below the other; into: its columns.

    into_residual: whether its output is added to the residual stream.
    """

    name: str
    matrices: tuple[int, ...]
    into: int
    into_residual: bool = False


def linears(model: ModelConfig) -> list[Linear]:
    """Return the linear layers of a block. Of a gated MLP, mlp_in is the gate and then the other half."""
    E, F, D = model.embed_dim, model.mlp_dim, model.head_channels
    queries, keys = model.num_heads * D, model.kv_heads * D
    return [
        Linear("qkv", (queries, keys, keys), E),
        Linear("projection", (E,), queries, into_residual=True),
        Linear("mlp_in", (F, F) if model.parts.gated else (F,), E),
        Linear("mlp_out", (E,), F, into_residual=True),
    ]


def parameters(model: ModelConfig) -> list[Field]:
    """Return the table of parameters: first the matrices, which weight decay applies to, then biases and norms.

    Projections into the residual stream start with std 0.02 / sqrt(2 L), as in GPT-2.
    """
    E, V, S, parts = model.embed_dim, model.vocab_size, model.context_length, model.parts
    residual_std = INITIAL_STD / math.sqrt(2 * model.num_layers)

    def matrix(name: str, out: int, into: int, std: float = INITIAL_STD, matrices: tuple[int, ...] = ()) -> Field:
        return Field(f"{name}.weight", (out, into), decay=True, std=std, matrices=matrices)

    def norm(name: str, width: int = E) -> list[Field]:
        gamma = Field(f"{name}.gamma", (width,), mean=1.0)
        return [gamma] if parts.rms_norm else [gamma, Field(f"{name}.beta", (width,))]

    def linear_bias(name: str, out: int) -> list[Field]:
        return [Field(f"{name}.bias", (out,))] if parts.biases else []

    decayed, undecayed = [matrix("token_embedding", V, E)], []
    if not parts.rotary:
        decayed.append(matrix("position_embedding", S, E))
    for i in range(model.num_layers):
        block, layers = f"block{i}", linears(model)
        for layer in layers:
            std = residual_std if layer.into_residual else INITIAL_STD
            shape = sum(layer.matrices), layer.into
            decayed.append(matrix(f"{block}.{layer.name}", *shape, std, layer.matrices))
        biases = {layer.name: linear_bias(f"{block}.{layer.name}", sum(layer.matrices)) for layer in layers}
        undecayed += [*norm(f"{block}.attention_norm"), *biases["qkv"]]
        if parts.head_norm:
            D = model.head_channels
            undecayed += [*norm(f"{block}.query_norm", D), *norm(f"{block}.key_norm", D)]
        undecayed += [*biases["projection"], *norm(f"{block}.mlp_norm"), *biases["mlp_in"], *biases["mlp_out"]]
    undecayed += norm("final_norm")
    if not model.tie_embeddings:
        decayed.append(matrix("output", V, E))
    if model.output_bias:
        undecayed.append(Field("output.bias", (V,)))
    return decayed + undecayed


def parameter_count(model: ModelConfig) -> int:
    """Return the number of trained parameters."""
    return sum(field.elements for field in parameters(model))


def initial_values(field: Field, seed: int) -> NDArray[np.float32]:
    """Return a field's initial values, f32. Normal draws depend on the seed and the field's name alone."""
    if field.std == 0:
        return np.full(field.shape, field.mean, np.float32)
    name = int.from_bytes(field.name.encode()[:64], "little")
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, name])))
    return generator.normal(field.mean, field.std, field.shape).astype(np.float32)


class ParameterTensors:
    """The tensors of a parameter table by name: the weights, or their gradients."""

    def __init__(self, arena: Arena, model: ModelConfig):
        self.arena = arena
        self._tensors = {field.name: arena[field.name] for field in arena.fields}
        output = "token_embedding.weight" if model.tie_embeddings else "output.weight"
        self.output_layer = self._tensors[output], self._tensors.get("output.bias")  # weight (V, E), bias (V) or None

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def linear(self, name: str) -> tuple[Tensor, Tensor | None]:
        """Return weight (out, in) and bias (out), or None, of a linear layer."""
        return self[f"{name}.weight"], self._tensors.get(f"{name}.bias")

    def norm(self, name: str) -> tuple[Tensor, Tensor]:
        """Return gamma and beta, (E) each, of a LayerNorm."""
        return self[f"{name}.gamma"], self[f"{name}.beta"]
