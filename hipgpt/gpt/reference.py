"""A GPT-2 in plain NumPy: the loss of a batch and its gradient with respect to every weight. Read this first.

`python -m hipgpt.gpt.reference` trains one in a few seconds. The names of the weights are those of parameters.py, and
the order of the lines is that of model.py, whose ops are the kernels. A test compares the two. Letters: B sequences of
S tokens, width E, H heads of D channels, MLP width F, vocabulary V.

Each function returns its result and a function `back`, which turns the gradient of the result into the gradient of the
input, and adds the gradients of weights to a dict. So the backward pass is the list of `back` functions, reversed.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Weights = dict[str, Array]
Back = Callable[[Array], Array]
EPSILON = 1e-5


def linear(x: Array, w: Weights, g: Weights, name: str) -> tuple[Array, Back]:
    """y = x W^T + b. W (out, in)."""
    weight, rows = w[f"{name}.weight"], x.reshape(-1, x.shape[-1])

    def back(dy: Array) -> Array:
        dy_rows = dy.reshape(-1, dy.shape[-1])
        g[f"{name}.weight"] = dy_rows.T @ rows
        g[f"{name}.bias"] = dy_rows.sum(axis=0)
        return dy @ weight

    return x @ weight.T + w[f"{name}.bias"], back


def layernorm(x: Array, w: Weights, g: Weights, name: str) -> tuple[Array, Back]:
    """y = n gamma + beta, where n is x with mean 0 and variance 1 over the last axis."""
    gamma = w[f"{name}.gamma"]
    centred = x - x.mean(axis=-1, keepdims=True)
    rstd = 1 / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
    n = centred * rstd

    def back(dy: Array) -> Array:
        g[f"{name}.gamma"], g[f"{name}.beta"] = (dy * n).sum(axis=(0, 1)), dy.sum(axis=(0, 1))
        dn = dy * gamma
        # mean and variance depend on x too: their share is what dn has in common with 1 and with n
        dx: Array = rstd * (dn - dn.mean(axis=-1, keepdims=True) - n * (dn * n).mean(axis=-1, keepdims=True))
        return dx

    return n * gamma + w[f"{name}.beta"], back


def attention(qkv: Array, heads: int) -> tuple[Array, Back]:
    """y = softmax(Q K^T / sqrt(D)) V of each head, where no token sees a later one. qkv (B, S, 3E), y (B, S, E)."""
    B, S, width = qkv.shape
    D = width // 3 // heads
    q, k, v = qkv.reshape(B, S, 3, heads, D).transpose(2, 0, 3, 1, 4)  # (B, H, S, D) each
    scores = np.where(np.tri(S, dtype=bool), q @ k.swapaxes(-1, -2) / math.sqrt(D), -np.inf)
    p = softmax(scores)

    def back(dy: Array) -> Array:
        dy = dy.reshape(B, S, heads, D).swapaxes(1, 2)
        dp = dy @ v.swapaxes(-1, -2)
        dscores = p * (dp - (dp * p).sum(axis=-1, keepdims=True)) / math.sqrt(D)
        dq, dk, dv = dscores @ k, dscores.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ dy
        return np.stack([dq, dk, dv]).transpose(1, 3, 0, 2, 4).reshape(B, S, width)

    return (p @ v).swapaxes(1, 2).reshape(B, S, width // 3), back


def gelu(x: Array) -> tuple[Array, Back]:
    """y = x/2 (1 + tanh(c (x + 0.044715 x^3))), c = sqrt(2 / pi). Hendrycks & Gimpel 2016, arXiv:1606.08415."""
    c = math.sqrt(2 / math.pi)
    t = np.tanh(c * (x + 0.044715 * x**3))

    def back(dy: Array) -> Array:
        dx: Array = dy * (0.5 * (1 + t) + 0.5 * x * (1 - t**2) * c * (1 + 3 * 0.044715 * x**2))
        return dx

    return 0.5 * x * (1 + t), back


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))  # the largest becomes 1, so that nothing overflows
    p: Array = e / e.sum(axis=-1, keepdims=True)
    return p


def loss_and_gradients(w: Weights, tokens: Array, targets: Array, heads: int) -> tuple[float, Weights]:
    """Return the mean loss in nats and its gradient by name. tokens, targets: (B, S). The head is not tied."""
    g: Weights = {}
    B, S = tokens.shape
    x = w["token_embedding.weight"][tokens] + w["position_embedding.weight"][:S]  # (B, S, E): the residual stream
    backs = []
    for block in [name.removesuffix(".qkv.weight") for name in w if name.endswith(".qkv.weight")]:
        norm, norm_back = layernorm(x, w, g, f"{block}.attention_norm")
        qkv, qkv_back = linear(norm, w, g, f"{block}.qkv")
        attended, attention_back = attention(qkv, heads)
        branch, projection_back = linear(attended, w, g, f"{block}.projection")
        x = x + branch
        backs.append((projection_back, attention_back, qkv_back, norm_back))

        norm, norm_back = layernorm(x, w, g, f"{block}.mlp_norm")
        hidden, in_back = linear(norm, w, g, f"{block}.mlp_in")
        active, gelu_back = gelu(hidden)
        branch, out_back = linear(active, w, g, f"{block}.mlp_out")
        x = x + branch
        backs.append((out_back, gelu_back, in_back, norm_back))
    norm, norm_back = layernorm(x, w, g, "final_norm")
    logits, output_back = linear(norm, w, g, "output")
    p = softmax(logits)
    at_target = np.arange(B)[:, None], np.arange(S), targets
    loss = float(-np.log(p[at_target]).mean())

    dlogits = p.copy()
    dlogits[at_target] -= 1  # d loss / d logits = p - 1 at the target, p elsewhere
    dx = norm_back(output_back(dlogits / targets.size))
    for branch_backs in reversed(backs):
        dbranch = dx
        for back in branch_backs:
            dbranch = back(dbranch)
        dx = dx + dbranch  # x went into the branch and past it
    for name in ("token_embedding.weight", "position_embedding.weight"):
        g[name] = np.zeros_like(w[name])
    np.add.at(g["token_embedding.weight"], tokens, dx)
    g["position_embedding.weight"][:S] = dx.sum(axis=0)
    return loss, g


def initial_weights(V: int, E: int, L: int, F: int, S: int, seed: int = 0) -> Weights:
    """Return weights to start from: matrices of normal draws, gammas of 1, other vectors of 0."""
    random = np.random.default_rng(seed)
    w: Weights = {"token_embedding.weight": random.normal(0, 0.02, (V, E))}
    w["position_embedding.weight"] = random.normal(0, 0.02, (S, E))
    shapes = {f"block{i}.{name}": shape for i in range(L) for name, shape in
              {"qkv": (3 * E, E), "projection": (E, E), "mlp_in": (F, E), "mlp_out": (E, F)}.items()}  # fmt: skip
    for name, (out, into) in {**shapes, "output": (V, E)}.items():
        w[f"{name}.weight"], w[f"{name}.bias"] = random.normal(0, 0.02, (out, into)), np.zeros(out)
    for name in [f"block{i}.{part}_norm" for i in range(L) for part in ("attention", "mlp")] + ["final_norm"]:
        w[f"{name}.gamma"], w[f"{name}.beta"] = np.ones(E), np.zeros(E)
    return w


if __name__ == "__main__":
    text = np.frombuffer(b"to be, or not to be: that is the question. " * 20, np.uint8).astype(int)
    weights, random = initial_weights(V=128, E=32, L=2, F=64, S=16), np.random.default_rng(0)
    losses: list[float] = []
    for step in range(1, 151):
        starts = random.integers(len(text) - 17, size=(8, 1)) + np.arange(17)
        loss, gradients = loss_and_gradients(weights, text[starts[:, :-1]], text[starts[:, 1:]], heads=4)
        for name in weights:
            weights[name] -= 0.2 * gradients[name]
        losses.append(loss)
        if step % 15 == 0:
            print(f"step {step}: loss {np.mean(losses[-15:]):.3f} nats per byte, the mean of 15 steps")
