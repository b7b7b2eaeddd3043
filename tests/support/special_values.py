"""Special values of arguments, for ops that are undefined, or poorly tested, with other values.

All other arguments are drawn by their dtype alone: `plain`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[Any]
Draw = Callable[[np.random.Generator, tuple[int, ...], Mapping[str, int]], Values]  # of a shape, at the op's sizes
INTEGERS = 100


def plain(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Values:
    """Return values for an argument that SPECIAL does not list: 0 to 99 in i32, otherwise standard normal."""
    if dtype == "i32":
        return random.integers(INTEGERS, size=shape, dtype=np.int32)
    return random.normal(size=shape)


def below(limit: Callable[[Mapping[str, int]], int]) -> Draw:
    """Return a function that draws integers from 0 to limit(sizes) - 1."""
    return lambda random, shape, sizes: random.integers(limit(sizes), size=shape, dtype=np.int32)


def _counters(random: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Values:
    return np.array([-7, 11, 1234, 2], np.int32)


def _positive(random: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Values:
    return np.abs(random.normal(size=shape)) + 0.25


def _logits(random: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Values:
    """Return quarters, so that some are equal. One is so far above the others of its row that exp_f32 clamps."""
    values = np.round(random.normal(size=shape) * 12) / 4
    values[0, -1] = 300
    return values


def _settings(random: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Values:
    """Return ways of sampling, one after another: temperature, top_k, top_p and repetition penalty."""
    ways = [(0, 0, 1, 1), (1.5, 0, 1, 1), (4, 50, 1, 1), (2, 0, 0.75, 1), (3, 7, 0.5, 1.25), (0, 0, 1, 4), (1, 1, 1, 1)]
    return np.array([ways[b % len(ways)] for b in range(shape[0])])


def _keys(random: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Values:
    return random.integers(-(2**31), 2**31, size=shape, dtype=np.int32)


def _weight(random: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Values:
    """Return values so scaled that products stay in the range where an activation is nonlinear."""
    return random.normal(size=shape) / math.sqrt(sizes["C"])


def _output_weight(random: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Values:
    values = _weight(random, shape, sizes)
    if sizes["C"] <= 40:  # with more terms the bound would not hold for such large logits
        values[100::97] *= 60
    return values


def _hidden(random: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Values:
    """Return values wide enough to saturate an activation, with both zeros."""
    values = random.normal(size=shape) * 4
    values.ravel()[:4] = [30, -30, 0.0, -0.0][: values.size]
    return values


def _growing_keys(random: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Values:
    """Return queries, keys and values: later scores are far above those that an online softmax met before."""
    values = random.normal(size=shape).reshape(sizes["B"], sizes["S"], 3, -1)
    values[:, sizes["S"] // 2 :, 1] *= 5
    return values.reshape(shape)


def _rotations(random: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Values:
    angles = random.normal(size=(*shape[:-1], shape[-1] // 2)) * 4
    return np.concatenate([np.cos(angles), np.sin(angles)], -1)


def _slots(random: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Values:
    """Return different slots, some of them outside of the cache if there are more than it has."""
    return random.permutation(max(sizes["B"], sizes["K"]))[: sizes["K"]] - (sizes["K"] > sizes["B"])


def _matrix(random: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Values:
    """Return matrices with a Frobenius norm of about 1, as Newton-Schulz takes them."""
    return random.normal(size=shape) / math.sqrt(sizes["R"] * sizes["L"])


def _gram(random: np.random.Generator, shape: tuple[int, ...], sizes: Mapping[str, int]) -> Values:
    """Return x x^T of such matrices: symmetric, with a trace of about 1."""
    x = random.normal(size=shape) / sizes["R"]
    return x @ x.transpose(0, 2, 1)


_token, _position = below(lambda sizes: sizes["V"]), below(lambda sizes: sizes["T"])

SPECIAL: dict[tuple[str, str], Draw] = {  # by op and argument
    ("advance", "counters"): _counters,
    ("build_batch", "corpus"): _position,
    ("build_batch", "window_starts"): below(lambda sizes: sizes["T"] - sizes["S"]),
    ("build_batch", "counters"): _counters,
    ("embedding_forward", "tokens"): _token,
    ("embedding_forward", "starts"): below(lambda sizes: sizes["T"] - sizes["S"] + 1),
    ("embedding_backward", "tokens"): _token,
    ("token_embedding_forward", "tokens"): _token,
    ("token_embedding_backward", "tokens"): _token,
    ("layernorm_backward", "rstd"): _positive,
    ("rmsnorm_backward", "rstd"): _positive,
    ("head_norm_backward", "rstd"): _positive,
    ("rotation_table", "starts"): below(lambda sizes: 5000),
    ("rotary_forward", "rotations"): _rotations,
    ("rotary_backward", "rotations"): _rotations,
    ("swiglu_forward", "hidden"): _hidden,
    ("swiglu_backward", "hidden"): _hidden,
    ("add_partials", "partials"): _positive,
    ("matmul_forward", "weight"): _weight,
    ("matmul_gelu_forward", "weight"): _weight,
    ("matmul_gelu_forward", "bias"): _hidden,
    ("matmul_relu_forward", "weight"): _weight,
    ("matmul_relu_forward", "bias"): _hidden,
    ("matmul_relu2_forward", "weight"): _weight,
    ("matmul_relu2_forward", "bias"): _hidden,
    ("matmul_backward_input", "weight"): _weight,
    ("matmul_activation_backward_input", "weight"): _weight,
    ("attention_forward", "qkv"): _growing_keys,
    ("attention_decode", "positions"): below(lambda sizes: 2 * sizes["T"]),
    ("fill_cache", "slots"): _slots,
    ("dropout", "counters"): _counters,
    ("cross_entropy_forward", "logits"): _logits,
    ("cross_entropy_forward", "targets"): _token,
    ("cross_entropy_training", "logits"): _logits,
    ("cross_entropy_training", "targets"): _token,
    ("output_layer_training", "weight"): _output_weight,
    ("output_layer_training", "targets"): _token,
    ("draw_token", "logits"): _logits,
    ("draw_token", "positions"): below(lambda sizes: 2 * sizes["T"]),
    ("draw_token", "windows"): _token,
    ("draw_token", "settings"): _settings,
    ("draw_token", "keys"): _keys,
    ("gradient_norm", "partials"): _positive,
    ("adamw", "second_moment"): _positive,
    ("adamw", "norm"): _positive,
    ("adamw", "schedule"): _positive,
    ("adamw", "counters"): _counters,
    ("muon_direction", "norm"): _positive,
    ("muon_update", "schedule"): _positive,
    ("muon_update", "counters"): _counters,
    ("newton_schulz_gram", "x"): _matrix,
    ("newton_schulz_polynomial", "gram"): _gram,
    ("newton_schulz_first_polynomial", "gram"): _gram,
    ("newton_schulz_step", "polynomial"): _gram,
    ("record_step", "counters"): _counters,
    ("record_step", "norm"): _positive,
}
