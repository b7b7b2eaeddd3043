"""Every op of the catalogue once more, as a formula over float64 that carries its own error bound (rounding.py).

A function takes, by their names in the contract, the op's tensors as they are before the call (f32 as `Rounded`, i32 as
arrays, an absent optional one as None), its dimensions and its scalars; it returns what the op writes: `Rounded`, or
arrays where the result is exact.
"""

import inspect
from collections.abc import Mapping

import numpy as np
from rounding import F64_ROUNDOFF, Rounded, constant, matmul, stack

from hipgpt.op import Op

Result = dict[str, Rounded | np.ndarray]


def evaluate(
    op: Op, tensors: Mapping[str, np.ndarray | None], sizes: Mapping[str, int], scalars: Mapping[str, float]
) -> Result:
    """Return what `op` writes, by argument name. Raises KeyError if this file does not define it."""
    function = globals().get(op.name)
    if not inspect.isfunction(function):
        raise KeyError(f"{op.name}: tests/reference.py has no definition of it")
    known = {name: _operand(values) for name, values in tensors.items()} | sizes
    known |= {
        name: Rounded(np.float32(value)) if isinstance(value, float) else value for name, value in scalars.items()
    }
    return function(**{name: known[name] for name in inspect.signature(function).parameters})


def _operand(values: np.ndarray | None) -> Rounded | np.ndarray | None:
    return values if values is None or values.dtype == np.int32 else Rounded(values)


def embedding_forward(tokens, starts, token_table, position_table, S) -> Result:
    return {"x": token_table[tokens] + position_table[starts[:, None] + np.arange(S)]}


def embedding_backward(dtoken_table, dposition_table, dx, tokens, V, T, B, S, C) -> Result:
    rows = Rounded(dx.value.reshape(B * S, C))
    by_token = Rounded(np.arange(V)[:, None] == tokens.ravel())
    by_position = Rounded(np.arange(T)[:, None] == np.tile(np.arange(S), B))
    return {
        "dtoken_table": matmul(by_token, rows, dtoken_table),
        "dposition_table": matmul(by_position, rows, dposition_table),
    }


def layernorm_forward(x, gamma, beta, epsilon) -> Result:
    mean = x.mean(1)
    centred = x - mean[:, None]
    rstd = 1.0 / ((centred * centred).mean(1) + epsilon).sqrt()
    return {"y": centred * rstd[:, None] * gamma + beta, "mean": mean, "rstd": rstd}


def layernorm_backward(dx, dgamma, dbeta, dy, x, mean, rstd, gamma) -> Result:
    normalised, g = (x - mean[:, None]) * rstd[:, None], dy * gamma
    projection = normalised * (g * normalised).mean(1, keepdims=True)
    return {
        "dx": dx + rstd[:, None] * (g - g.mean(1, keepdims=True) - projection),
        "dgamma": (dy * normalised).sum(0, start=dgamma),
        "dbeta": dy.sum(0, start=dbeta),
    }


def matmul_forward(x, weight, bias) -> Result:
    return {"y": matmul(x, weight.transpose(1, 0), 0.0 if bias is None else bias)}


def matmul_backward_input(dy, weight) -> Result:
    return {"dx": matmul(dy, weight)}


def matmul_backward_weight(dweight, dbias, dy, x) -> Result:
    result = {"dweight": matmul(dy.transpose(1, 0), x, dweight)}
    return result if dbias is None else result | {"dbias": dy.sum(0, start=dbias)}


def _heads(qkv: Rounded) -> tuple[Rounded, Rounded, Rounded]:
    """Return queries, keys, values (B, H, S, D) of qkv (B, S, 3, H, D)."""
    query, key, value = (qkv[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    return query, key, value


def _scores(query: Rounded, key: Rounded) -> tuple[Rounded, Rounded]:
    """Return the scaled scores (B, H, S, S) and the scale."""
    scale = 1.0 / Rounded(query.value.shape[-1]).sqrt()
    return query @ key.transpose(0, 1, 3, 2) * scale, scale


def _softmax(scores: Rounded, seen: np.ndarray) -> tuple[Rounded, Rounded]:
    """Return the softmax over the last axis where `seen`, and the logsumexp."""
    maximum = Rounded(np.where(seen, scores.value, -np.inf), scores.error).maximum_of_rows()
    exponentials = (scores - maximum).where(seen).exp().where(seen)
    total = exponentials.sum(-1, keepdims=True)
    return exponentials / total, (maximum + total.log())[..., 0]


def attention_forward(qkv, S) -> Result:
    query, key, value = _heads(qkv)
    p, logsumexp = _softmax(_scores(query, key)[0], np.tri(S, dtype=bool))
    return {"y": (p @ value).transpose(0, 2, 1, 3), "logsumexp": logsumexp}


def attention_backward(dy, y, logsumexp, qkv, S) -> Result:
    query, key, value = _heads(qkv)
    scores, scale = _scores(query, key)
    seen = np.tri(S, dtype=bool)
    p = (scores - logsumexp[..., None]).where(seen).exp().where(seen)
    dout, out = dy.transpose(0, 2, 1, 3), y.transpose(0, 2, 1, 3)
    dp = dout @ value.transpose(0, 1, 3, 2)
    delta = matmul(dout[..., None, :], out[..., :, None])[..., 0]
    ds = p * (dp - delta) * scale
    reverse = (0, 1, 3, 2)
    parts = ds @ key, ds.transpose(*reverse) @ query, p.transpose(*reverse) @ dout
    return {"dqkv": stack([part.transpose(0, 2, 1, 3) for part in parts], axis=2)}


def attention_decode(keys, values, qkv, positions, B, T) -> Result:
    query, new_key, new_value = qkv[:, 0], qkv[:, 1], qkv[:, 2]
    cached_keys, cached_values = keys.value.copy(), values.value.copy()
    for b in range(B):
        cached_keys[b, :, positions[b]], cached_values[b, :, positions[b]] = new_key.value[b], new_value.value[b]
    seen = (np.arange(T) <= positions[:, None])[:, None, None, :]
    p, _ = _softmax(_scores(query[:, :, None], Rounded(cached_keys))[0], seen)
    return {"y": (p @ Rounded(cached_values))[:, :, 0], "keys": Rounded(cached_keys), "values": Rounded(cached_values)}


def _gelu_tanh(x: Rounded) -> Rounded:
    return (constant(np.sqrt(2 / np.pi)) * (x + constant(0.044715) * x * x * x)).tanh()


def gelu_forward(x) -> Result:
    return {"y": x * 0.5 * (_gelu_tanh(x) + 1.0)}


def gelu_backward(gradient, x) -> Result:
    t = _gelu_tanh(x)
    inner = constant(np.sqrt(2 / np.pi)) * (Rounded(3.0) * constant(0.044715) * x * x + 1.0)
    return {"gradient": gradient * ((t + 1.0) * 0.5 + x * 0.5 * (1.0 - t * t) * inner)}


def relu_forward(x) -> Result:
    return {"y": x.where(x.value > 0)}


def relu_backward(gradient, x) -> Result:
    return {"gradient": gradient.where(x.value > 0)}


def residual_add(x, branch) -> Result:
    return {"y": x + branch}


def zero(N) -> Result:
    return {"x": Rounded(np.zeros(N))}


def philox(counters: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return philox4x32-10 of counters (4, ...) under keys (2, ...): (4, ...), all uint64 holding 32 bits.

    Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
    """
    low = np.uint64(0xFFFFFFFF)
    c, k = counters.astype(np.uint64), keys.astype(np.uint64)
    for _ in range(10):
        first, second = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = np.stack([second >> 32 ^ c[1] ^ k[0], second & low, first >> 32 ^ c[3] ^ k[1], first & low])
        k = (k + np.array([0x9E3779B9, 0xBB67AE85], np.uint64).reshape(2, *[1] * (k.ndim - 1))) & low
    return c


def dropout_mask(counters: np.ndarray, stream: int, drop_probability: float, N: int) -> np.ndarray:
    """Return (N,) bool: which elements dropout keeps."""
    seed_low, seed_high, step, micro_step = counters.view(np.uint32)
    quads = np.arange(-(-N // 4))
    rest = (np.full(quads.shape, word) for word in (stream, step, micro_step))
    words = philox(np.stack([quads, *rest]), np.array([[seed_low], [seed_high]]))
    return words.T.ravel()[:N] >= int(float(np.float32(drop_probability)) * 2**32)


def dropout(x, counters, drop_probability, stream, N) -> Result:
    kept = dropout_mask(counters, stream, float(drop_probability.value), N)
    return {"y": (x * (1.0 / (1.0 - drop_probability))).where(kept)}


def cross_entropy_forward(logits, targets, N, V) -> Result:
    wanted = logits.value[np.arange(N), targets][:, None]
    before = (logits.value > wanted) | ((logits.value == wanted) & (np.arange(V) < targets[:, None]))
    return {"losses": _losses(logits, targets)[0], "ranks": before.sum(1)}


def _losses(logits: Rounded, targets: np.ndarray) -> tuple[Rounded, Rounded]:
    """Return the losses (N,) and the softmax (N, V)."""
    maximum = logits.maximum_of_rows()
    exponentials = (logits - maximum).exp()
    total = exponentials.sum(1, keepdims=True)
    wanted = logits[np.arange(len(targets)), targets]
    return total.log()[:, 0] + (maximum[:, 0] - wanted), exponentials / total


def cross_entropy_training(logits, targets, scale, V) -> Result:
    losses, p = _losses(logits, targets)
    one_hot = targets[:, None] == np.arange(V)
    scaled = p * scale
    at_target = scaled - scale
    gradient = Rounded(
        np.where(one_hot, at_target.value, scaled.value), np.where(one_hot, at_target.error, scaled.error)
    )
    return {"losses": losses, "logits": gradient}


def add_sum(total, values, scale) -> Result:
    return {"total": total + values.sum(0, keepdims=True, roundoff=F64_ROUNDOFF) * scale}


def sum_of_squares(gradients, K, P) -> Result:
    size = -(-P // K)
    squares = np.zeros(K * size)
    squares[:P] = gradients.value**2  # the square of an f32 is exact in f64
    partials = Rounded(squares.reshape(K, size)).sum(1, roundoff=F64_ROUNDOFF).stored()
    return {"partials": partials}


def gradient_norm(partials) -> Result:
    return {"norm": partials.sum(0, keepdims=True, roundoff=F64_ROUNDOFF).sqrt()}


def adamw(
    weights, first_moment, second_moment, gradients, norm, schedule, beta1, beta2, epsilon, weight_decay, clip_norm
) -> Result:
    gradient = gradients * (clip_norm / norm).minimum(1.0)
    first = beta1 * first_moment + (1.0 - beta1) * gradient
    second = beta2 * second_moment + (1.0 - beta2) * gradient * gradient
    learning_rate, first_correction, second_correction = schedule[0], schedule[1], schedule[2]
    direction = first * first_correction / ((second * second_correction).sqrt() + epsilon)
    updated = weights - learning_rate * (direction + weight_decay * weights)
    return {"weights": updated, "first_moment": first, "second_moment": second}


def record_step(history, loss, norm, counters, K) -> Result:
    rows = history.value.copy()
    rows[counters[2] % K] = loss.value[0], norm.value[0]
    return {"history": Rounded(rows)}
