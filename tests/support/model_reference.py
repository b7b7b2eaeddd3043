"""A GPT's loss in float64 from its formulas, differentiated by autograd. hipgpt/gpt/model.py must agree with it.

It shares only the names of the weights with the engine. For dropout it uses the masks of reference.py.
"""

from collections.abc import Callable, Mapping

import autograd
import autograd.numpy as np
import numpy
from autograd.extend import defvjp, primitive

from hipgpt.compute.tensor import DType
from hipgpt.config.settings import ModelConfig
from support.recorded_model import COUNTERS
from support.reference import dropout_mask
from support.rounding import TRUNCATING, accumulated

Values = dict[str, numpy.ndarray]


def loss(
    w: Mapping[str, numpy.ndarray],
    model: ModelConfig,
    tokens: numpy.ndarray,
    targets: numpy.ndarray,
    drop_probability: float = 0.0,
    rounded: Callable = lambda x: x,
) -> float:
    """Return the mean loss in nats of tokens and targets (B, S). rounded: function applied to every intermediate."""
    B, S = tokens.shape
    H, K, D = model.num_heads, model.kv_heads, model.head_channels
    w = {name: rounded(values) for name, values in w.items()}

    def drop(x, stream):
        if not drop_probability:
            return x
        mask = dropout_mask(COUNTERS, stream, drop_probability, x.size).reshape(x.shape)
        return rounded(x * mask / (1 - drop_probability))

    def linear(x, name):
        product = np.dot(x, w[f"{name}.weight"].T)
        return rounded(product + w[f"{name}.bias"] if f"{name}.bias" in w else product)

    def rmsnorm(x, name):
        return rounded(x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-5) * w[f"{name}.gamma"])

    def norm(x, name):
        if model.architecture != "gpt2":
            return rmsnorm(x, name)
        centred = x - np.mean(x, axis=-1, keepdims=True)
        deviation = np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-5)
        return rounded(centred / deviation * w[f"{name}.gamma"] + w[f"{name}.beta"])

    def rotated(heads):  # (B, S, heads, D), as complex numbers of the first and the second half
        angles = np.arange(S)[:, None] * model.rope_base ** (-2.0 * np.arange(D // 2) / D)
        cosines, sines = np.cos(angles)[:, None], np.sin(angles)[:, None]
        first, second = heads[..., : D // 2], heads[..., D // 2 :]
        return rounded(np.concatenate([first * cosines - second * sines, first * sines + second * cosines], axis=-1))

    def heads_of(qkv, block):
        """Return queries, keys and values, (B, H, S, D) each."""
        if model.architecture == "gpt2":
            return np.transpose(np.reshape(qkv, (B, S, 3, H, D)), (2, 0, 3, 1, 4))
        packed = np.reshape(qkv, (B, S, H + 2 * K, D))
        query, key, value = packed[:, :, :H], packed[:, :, H : H + K], packed[:, :, H + K :]
        if model.architecture == "qwen3":
            query, key = rmsnorm(query, f"{block}.query_norm"), rmsnorm(key, f"{block}.key_norm")
        heads = rotated(query), np.repeat(rotated(key), H // K, axis=2), np.repeat(value, H // K, axis=2)
        return [np.transpose(one, (0, 2, 1, 3)) for one in heads]

    def attention(qkv, block):
        query, key, value = heads_of(qkv, block)
        scores = np.matmul(query, np.swapaxes(key, -1, -2)) / np.sqrt(D)
        scores = rounded(np.where(np.tri(S, dtype=bool), scores, -1e30))
        p = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
        p = rounded(p / np.sum(p, axis=-1, keepdims=True))
        return rounded(np.reshape(np.transpose(np.matmul(p, value), (0, 2, 1, 3)), (B, S, H * D)))

    def activate(x):
        if model.activation == "relu":
            return np.maximum(x, 0.0)
        if model.activation == "relu2":
            return np.maximum(x, 0.0) ** 2
        return rounded(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))

    def activated(hidden):
        if model.activation != "swiglu":
            return activate(hidden)
        gate, up = hidden[..., : model.mlp_dim], hidden[..., model.mlp_dim :]
        return rounded(gate / (1 + np.exp(-gate)) * up)

    x = w["token_embedding.weight"][tokens]
    x = rounded(x + w["position_embedding.weight"][:S] if model.architecture == "gpt2" else x)
    x = drop(x, stream=0)
    for i in range(model.num_layers):
        attended = attention(linear(norm(x, f"block{i}.attention_norm"), f"block{i}.qkv"), f"block{i}")
        x = rounded(x + drop(linear(attended, f"block{i}.projection"), stream=2 * i + 1))
        hidden = activated(linear(norm(x, f"block{i}.mlp_norm"), f"block{i}.mlp_in"))
        x = rounded(x + drop(linear(hidden, f"block{i}.mlp_out"), stream=2 * i + 2))
    output = w["token_embedding.weight" if model.tie_embeddings else "output.weight"]
    logits = np.dot(norm(x, "final_norm"), output.T)
    logits = rounded(logits + w["output.bias"] if model.output_bias else logits)
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    chosen = shifted[np.arange(B)[:, None], np.arange(S), targets]
    return np.mean(np.log(np.sum(np.exp(shifted), axis=-1)) - chosen)


def gradients(w: Mapping[str, numpy.ndarray], *arguments, **keywords) -> Values:
    """Return `loss`, and its gradient with respect to each weight, by name. The arguments are those of `loss`."""
    value, derivatives = autograd.value_and_grad(loss)(dict(w), *arguments, **keywords)
    return {"loss": value} | derivatives


def tolerances(
    w: Mapping[str, numpy.ndarray],
    model: ModelConfig,
    tokens: numpy.ndarray,
    *arguments,
    act: DType = DType.F32,
    **keywords,
) -> Values:
    """Return how far activations in `act` may move the loss and each gradient, in the 2-norm, by name.

    test_ops.py proves that a kernel is off by at most gamma(terms) of the magnitudes that it sums. So the formulas run
    again with every weight, intermediate and derivative off by gamma(longest sum of the model) of its row's root mean
    square, with random signs; the furthest of several such runs is the tolerance. Real roundings move the result less:
    within a sum they partly cancel, where these all have the largest size. In bf16 each is off by its own rounding too.
    """
    longest = max(model.vocab_size, model.mlp_dim, 3 * model.embed_dim, tokens.size)
    exact = gradients(w, model, tokens, *arguments, **keywords)
    furthest = dict.fromkeys(exact, 0.0)
    size = accumulated(longest) if act is DType.F32 else act.unit_roundoff + accumulated(longest, TRUNCATING)
    for seed in range(5):
        rounded = rounding_of(size, numpy.random.default_rng(seed))
        disturbed = gradients(w, model, tokens, *arguments, **keywords, rounded=rounded)
        for name in exact:
            furthest[name] = max(furthest[name], numpy.linalg.norm(disturbed[name] - exact[name]))
    return furthest


def rounding_of(size: float, random: numpy.random.Generator) -> Callable:
    """Return a function that disturbs its argument, and the derivative that passes it, by `size` of each row's rms."""

    def disturb(x):
        row_rms = numpy.sqrt(numpy.mean(numpy.where(x > -1e29, x, 0.0) ** 2, axis=-1, keepdims=True))
        return x + size * row_rms * random.choice([-1.0, 1.0], x.shape)

    rounded = primitive(disturb)
    defvjp(rounded, lambda result, x: disturb)
    return rounded
