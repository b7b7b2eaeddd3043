"""The parameters of GPT-2: their table, their initial values, and their tensors by name.

Weights of linear layers are (out, in). Radford et al. 2019, "Language models are unsupervised multitask learners".
"""

import math

import numpy as np
from numpy.typing import NDArray

from hipgpt.compute.tensor import Arena, Field, Tensor
from hipgpt.config.settings import ModelConfig

INITIAL_STD = 0.02


def parameters(model: ModelConfig) -> list[Field]:
    """Return the table of parameters: first the matrices, which weight decay applies to, then biases and LayerNorms.

    Projections into the residual stream start with std 0.02 / sqrt(2 L), as in GPT-2.
    """
    E, F, V, S = model.embed_dim, model.mlp_dim, model.vocab_size, model.context_length
    residual_std = INITIAL_STD / math.sqrt(2 * model.num_layers)

    def matrix(name: str, out: int, into: int, std: float = INITIAL_STD, matrices: tuple[int, ...] = ()) -> Field:
        return Field(f"{name}.weight", (out, into), decay=True, std=std, matrices=matrices)

    def layernorm(name: str) -> list[Field]:
        return [Field(f"{name}.gamma", (E,), mean=1.0), Field(f"{name}.beta", (E,))]

    decayed, undecayed = [matrix("token_embedding", V, E), matrix("position_embedding", S, E)], []
    for i in range(model.num_layers):
        decayed += [
            matrix(f"block{i}.qkv", 3 * E, E, matrices=(E, E, E)),
            matrix(f"block{i}.projection", E, E, residual_std, matrices=(E,)),
            matrix(f"block{i}.mlp_in", F, E, matrices=(F,)),
            matrix(f"block{i}.mlp_out", E, F, residual_std, matrices=(E,)),
        ]
        undecayed += [
            *layernorm(f"block{i}.attention_norm"),
            Field(f"block{i}.qkv.bias", (3 * E,)),
            Field(f"block{i}.projection.bias", (E,)),
            *layernorm(f"block{i}.mlp_norm"),
            Field(f"block{i}.mlp_in.bias", (F,)),
            Field(f"block{i}.mlp_out.bias", (E,)),
        ]
    undecayed += layernorm("final_norm")
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

    def linear(self, name: str) -> tuple[Tensor, Tensor]:
        """Return weight (out, in) and bias (out) of a linear layer."""
        return self[f"{name}.weight"], self[f"{name}.bias"]

    def norm(self, name: str) -> tuple[Tensor, Tensor]:
        """Return gamma and beta, (E) each, of a LayerNorm."""
        return self[f"{name}.gamma"], self[f"{name}.beta"]
