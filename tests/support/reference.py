"""Every op of the catalogue once more, as a formula over float64 that carries its own error bound (rounding.py).

A function takes, by their names in the contract, the op's tensors as they are before the call (floating-point ones as
`Rounded`, i32 as arrays, an absent optional one as None), its dimensions and its scalars; it returns what the op
writes: `Rounded`, to be rounded once more to the dtype it is stored in, or arrays where the result is exact.
"""

import functools
import inspect
from collections.abc import Callable, Mapping

import numpy as np

from hipgpt.compute.contract import Op
from hipgpt.compute.tensor import DType
from hipgpt.config.settings import SamplingConfig
from hipgpt.inference.reference import probabilities
from support.rounding import (
    F32_ROUNDOFF,
    F64_ROUNDOFF,
    TRUNCATING,
    Rounded,
    constant,
    matmul,
    split_matmul,
    stack,
)

Result = dict[str, Rounded | np.ndarray]
Product = Callable[..., Rounded]  # of left, right and the value to which their product is added


def evaluate(
    op: Op,
    tensors: Mapping[str, np.ndarray | None],
    sizes: Mapping[str, int],
    scalars: Mapping[str, float],
    act: DType = DType.F32,
    split: bool = False,
) -> Result:
    """Return what `op` writes, by argument name, as it is stored. Raises KeyError if this file does not define it.

    split: whether GEMMs multiply f32 as three bf16 each. A function takes `product` to compute a GEMM.
    """
    function = globals().get(op.name)
    if not inspect.isfunction(function):
        raise KeyError(f"{op.name}: tests/support/reference.py has no definition of it")
    known = (
        {name: _operand(values) for name, values in tensors.items()}
        | sizes
        | {"act": act, "product": _product(act, split)}
    )
    known |= {
        name: Rounded(np.float32(value)) if isinstance(value, float) else value for name, value in scalars.items()
    }
    result = function(**{name: known[name] for name in inspect.signature(function).parameters})
    stored_as_act = {argument.name for argument in op.arguments if argument.dtype == "act"}
    return {name: _stored(value, act) if name in stored_as_act else value for name, value in result.items()}


def _operand(values: np.ndarray | None) -> Rounded | np.ndarray | None:
    return values if values is None or values.dtype == np.int32 else Rounded(values)


def _stored(computed: Rounded, act: DType) -> Rounded:
    """Return a value computed in f32 as it is once written in `act`."""
    return computed if act is DType.F32 else computed.stored(act.unit_roundoff)


def _roundoff(act: DType) -> float:
    """Return the unit roundoff of sums that a matrix unit may make."""
    return F32_ROUNDOFF if act is DType.F32 else TRUNCATING


def _product(act: DType, split: bool) -> Product:
    return split_matmul if split else functools.partial(matmul, roundoff=_roundoff(act))


def advance(counters) -> Result:
    return {"counters": counters + np.array([0, 0, 0, 1], np.int32)}


def build_batch(corpus, window_starts, counters, S, K, accumulation_steps) -> Result:
    starts = window_starts[(counters[2] * accumulation_steps + counters[3]) % K]
    indices = starts[:, None] + np.arange(S)
    return {"tokens": corpus[indices], "targets": corpus[indices + 1]}


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


def token_embedding_forward(tokens, token_table) -> Result:
    return {"x": token_table[tokens]}


def token_embedding_backward(dtoken_table, dx, tokens, V) -> Result:
    return {"dtoken_table": matmul(Rounded(np.arange(V)[:, None] == tokens), dx, dtoken_table)}


def layernorm_forward(x, branch, gamma, beta, epsilon, act=DType.F32) -> Result:
    total = x
    if branch is not None:  # one addition in f32, rounded to what is stored: every device gets the same
        total = Rounded((x.value.astype(np.float32) + branch.value.astype(np.float32)).astype(act.numpy))
    mean = total.mean(1)
    centred = total - mean[:, None]
    rstd = 1.0 / ((centred * centred).mean(1) + epsilon).sqrt()
    result = {"y": centred * rstd[:, None] * gamma + beta, "mean": mean, "rstd": rstd}
    return result if branch is None else result | {"sum": total}


def layernorm_backward(dresidual, dy, x, mean, rstd, gamma, N, C, K) -> Result:
    normalised, g = (x - mean[:, None]) * rstd[:, None], dy * gamma
    projection = normalised * (g * normalised).mean(1, keepdims=True)
    size = -(-N // K)
    parts = [slice(k * size, (k + 1) * size) for k in range(K)]
    sums = [stack([(dy * normalised)[part].sum(0), dy[part].sum(0)], axis=0) for part in parts]
    dx = rstd[:, None] * (g - g.mean(1, keepdims=True) - projection)
    return {"dx": dx if dresidual is None else dresidual + dx, "partials": stack(sums, axis=0)}


def add_partials(dgamma, dbeta, partials) -> Result:
    return {"dgamma": partials[:, 0].sum(0, start=dgamma), "dbeta": partials[:, 1].sum(0, start=dbeta)}


def rmsnorm_forward(x, branch, gamma, epsilon, act=DType.F32) -> Result:
    total = x
    if branch is not None:  # one addition in f32, rounded to what is stored: every device gets the same
        total = Rounded((x.value.astype(np.float32) + branch.value.astype(np.float32)).astype(act.numpy))
    rstd = 1.0 / ((total * total).mean(1) + epsilon).sqrt()
    result = {"y": total * rstd[:, None] * gamma, "rstd": rstd}
    return result if branch is None else result | {"sum": total}


def rmsnorm_backward(dresidual, dy, x, rstd, gamma, N, K) -> Result:
    normalised, g = x * rstd[:, None], dy * gamma
    size = -(-N // K)
    sums = [(dy * normalised)[k * size : (k + 1) * size].sum(0) for k in range(K)]
    projection = normalised * (g * normalised).mean(1, keepdims=True)
    dx = rstd[:, None] * (g - projection)
    return {"dx": dx if dresidual is None else dresidual + dx, "partials": stack(sums, axis=0)}


def add_rows(total, rows) -> Result:
    return {"total": rows.sum(0, start=total)}


def _joined(parts: list[Rounded], axis: int) -> Rounded:
    return Rounded(*(np.concatenate([getattr(part, name) for part in parts], axis) for name in ("value", "error")))


def _kinds(heads: Rounded, queries: int) -> list[Rounded]:
    """Return the queries, keys and values of (N, G, ...)."""
    keys = (heads.value.shape[1] - queries) // 2
    return [heads[:, :queries], heads[:, queries : queries + keys], heads[:, queries + keys :]]


def head_norm_forward(x, query_gamma, key_gamma, epsilon, queries) -> Result:
    *normalised, values = _kinds(x, queries)
    rstds = [1.0 / ((heads * heads).mean(2) + epsilon).sqrt() for heads in normalised]
    gammas = query_gamma, key_gamma
    parts = [heads * rstd[..., None] * gamma for heads, rstd, gamma in zip(normalised, rstds, gammas, strict=True)]
    ones = Rounded(np.ones(values.value.shape[:2]))
    return {"y": _joined([*parts, values], 1), "rstd": _joined([*rstds, ones], 1)}


def head_norm_backward(dy, x, rstd, query_gamma, key_gamma, N, K, queries) -> Result:
    size, parts, sums = -(-N // K), [], []
    *pairs, last = zip(*(_kinds(tensor, queries) for tensor in (x, dy, rstd)), strict=True)
    for (heads, dheads, r), gamma in zip(pairs, (query_gamma, key_gamma), strict=True):
        normalised, g = heads * r[..., None], dheads * gamma
        parts.append(r[..., None] * (g - normalised * (g * normalised).mean(2, keepdims=True)))
        products = dheads * normalised
        flat = [products[k * size : (k + 1) * size] for k in range(K)]
        D = products.value.shape[2]
        rows = [Rounded(one.value.reshape(-1, D), one.error.reshape(-1, D)) for one in flat]
        sums.append(stack([one.sum(0) for one in rows], axis=0))
    return {"dx": _joined([*parts, last[1]], 1), "partials": stack(sums, axis=1)}


def rotation_table(starts, S, D, base) -> Result:
    frequencies = float(base.value) ** (-2.0 * np.arange(D // 2) / D)
    angles = (starts[:, None] + np.arange(S))[..., None] * frequencies
    # an angle within half a turn is rounded, then its sine by 2 ulp (CUDA C++ programming guide, section 17.1)
    error = F32_ROUNDOFF * (np.pi + 4)
    return {"rotations": Rounded(np.concatenate([np.cos(angles), np.sin(angles)], -1), error)}


def _rotated(heads: Rounded, rotations: Rounded, direction: float) -> Rounded:
    """Return (B, S, heads, D), each rotated by the angles (B, S, D)."""
    half = heads.value.shape[-1] // 2
    first, second = heads[..., :half], heads[..., half:]
    cosines, sines = rotations[:, :, None, :half], rotations[:, :, None, half:] * direction
    return _joined([first * cosines - second * sines, second * cosines + first * sines], -1)


def rotary_forward(packed, rotations, H, G) -> Result:
    keys = (G - H) // 2
    repeated = np.arange(H) // (H // keys)
    query, key = (_rotated(heads, rotations, 1.0) for heads in (packed[:, :, :H], packed[:, :, H : H + keys]))
    return {"qkv": stack([query, key[:, :, repeated], packed[:, :, H + keys :][:, :, repeated]], axis=2)}


def rotary_backward(dqkv, rotations, H, G) -> Result:
    keys, (B, S, _, _, D) = (G - H) // 2, dqkv.value.shape
    grouped = [dqkv[:, :, kind] for kind in (1, 2)]
    shape = B, S, keys, H // keys, D
    dkey, dvalue = (Rounded(one.value.reshape(shape), one.error.reshape(shape)).sum(3) for one in grouped)
    turned = [_rotated(heads, rotations, -1.0) for heads in (dqkv[:, :, 0], dkey)]
    return {"dpacked": _joined([*turned, dvalue], 2)}


def _sigmoid(x: Rounded, act: DType) -> Rounded:
    return x.sigmoid(quick=act is not DType.F32)


def swiglu_forward(hidden, act=DType.F32) -> Result:
    gate, up = hidden[:, 0], hidden[:, 1]
    return {"y": gate * _sigmoid(gate, act) * up}


def swiglu_backward(dy, hidden, act=DType.F32) -> Result:
    gate, up = hidden[:, 0], hidden[:, 1]
    sigmoid = _sigmoid(gate, act)
    derivative = sigmoid * (gate * (1.0 - sigmoid) + 1.0)
    return {"dhidden": stack([dy * up * derivative, dy * gate * sigmoid], axis=1)}


def matmul_forward(x, weight, bias, product=matmul) -> Result:
    return {"y": product(x, weight.transpose(1, 0), 0.0 if bias is None else bias)}


GELU_LINEAR, GELU_CUBIC = constant(2 * np.sqrt(2 / np.pi)), constant(2 * np.sqrt(2 / np.pi) * 0.044715)


def _gelu_gate(x: Rounded, act: DType) -> Rounded:
    """Return (1 + tanh(u)) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3), as formulas.h computes it: sigmoid(2u)."""
    return _sigmoid(x * (GELU_LINEAR + GELU_CUBIC * x * x), act)


def matmul_gelu_forward(x, weight, bias, act=DType.F32, product=matmul) -> Result:
    hidden = matmul_forward(x, weight, bias, product)["y"]
    gate = _gelu_gate(hidden, act)
    inner = GELU_LINEAR + Rounded(3.0) * GELU_CUBIC * hidden * hidden  # twice the derivative of u
    return {"y": hidden * gate, "slope": gate + hidden * (gate - gate * gate) * inner}


def matmul_relu_forward(x, weight, bias, product=matmul) -> Result:
    hidden = matmul_forward(x, weight, bias, product)["y"]
    jump = np.abs(hidden.value) <= hidden.error  # rounding decides the sign, and the slope is 0 or 1
    slope = Rounded((hidden.value > 0).astype(float), jump.astype(float))
    return {"y": Rounded(np.maximum(hidden.value, 0.0), hidden.error), "slope": slope}


def matmul_relu2_forward(x, weight, bias, product=matmul) -> Result:
    hidden = matmul_forward(x, weight, bias, product)["y"]
    positive = Rounded(np.maximum(hidden.value, 0.0), hidden.error)
    return {"y": positive * positive, "slope": positive * 2.0}


def matmul_backward_input(dy, weight, product=matmul) -> Result:
    return {"dx": product(dy, weight)}


def matmul_activation_backward_input(dy, weight, slope, product=matmul) -> Result:
    return {"dhidden": product(dy, weight) * slope}


def matmul_backward_weight(dweight, dbias, dy, x, act=DType.F32, product=matmul) -> Result:
    result = {"dweight": product(dy.transpose(1, 0), x, dweight)}
    if dbias is None:
        return result
    ones = Rounded(np.ones((dy.value.shape[0], 1)))  # sums of rows may be made by a matrix unit too
    return result | {"dbias": matmul(dy.transpose(1, 0), ones, dbias[:, None], _roundoff(act))[:, 0]}


def _heads(qkv: Rounded) -> tuple[Rounded, Rounded, Rounded]:
    """Return queries, keys, values (B, H, S, D) of qkv (B, S, 3, H, D)."""
    query, key, value = (qkv[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
    return query, key, value


def _scores(query: Rounded, key: Rounded, product: Product) -> tuple[Rounded, Rounded]:
    """Return the scaled scores (B, H, S, S) and the scale."""
    scale = 1.0 / Rounded(query.value.shape[-1]).sqrt()
    return product(query, key.transpose(0, 1, 3, 2)) * scale, scale


def _softmax(scores: Rounded, seen: np.ndarray, act: DType) -> tuple[Rounded, Rounded]:
    """Return the softmax over the last axis where `seen`, and the logsumexp."""
    maximum = Rounded(np.where(seen, scores.value, -np.inf), scores.error).maximum_of_rows()
    exponentials = (scores - maximum).where(seen).exp(quick=act is not DType.F32).where(seen)
    total = exponentials.sum(-1, keepdims=True)
    return exponentials / total, (maximum + total.log())[..., 0]


def attention(
    qkv: Rounded, seen: np.ndarray, act: DType = DType.F32, product: Product = matmul
) -> tuple[Rounded, Rounded]:
    """Return y (B, S, H, D) and logsumexp of qkv (B, S, 3, H, D); seen (S, S): which keys a query sees."""
    query, key, value = _heads(qkv)
    p, logsumexp = _softmax(_scores(query, key, product)[0], seen, act)
    return product(_stored(p, act), value).transpose(0, 2, 1, 3), logsumexp


def attention_forward(qkv, S, act=DType.F32, product=matmul) -> Result:
    y, logsumexp = attention(qkv, np.tri(S, dtype=bool), act, product)
    return {"y": y, "logsumexp": logsumexp}


def attention_delta(dy, y) -> Result:
    return {"delta": matmul(dy[..., None, :], y[..., :, None])[..., 0, 0].transpose(0, 2, 1)}


def attention_backward(dy, delta, logsumexp, qkv, S, act=DType.F32, product=matmul) -> Result:
    query, key, value = _heads(qkv)
    scores, scale = _scores(query, key, product)
    seen = np.tri(S, dtype=bool)
    p = (scores - logsumexp[..., None]).where(seen).exp(quick=act is not DType.F32).where(seen)
    dout = dy.transpose(0, 2, 1, 3)
    dp = product(dout, value.transpose(0, 1, 3, 2))
    ds = _stored(p * (dp - delta[..., None]) * scale, act)
    p = _stored(p, act)
    reverse = (0, 1, 3, 2)
    pairs = (ds, key), (ds.transpose(*reverse), query), (p.transpose(*reverse), dout)
    parts = [product(left, right) for left, right in pairs]
    return {"dqkv": stack([part.transpose(0, 2, 1, 3) for part in parts], axis=2)}


def attention_short_backward(dy, y, logsumexp, qkv, S, act=DType.F32, product=matmul) -> Result:
    return attention_backward(dy, attention_delta(dy, y)["delta"], logsumexp, qkv, S, act, product)


def attention_decode(keys, values, qkv, positions, B, T, act=DType.F32, product=matmul) -> Result:
    query, new_key, new_value = qkv[:, 0], qkv[:, 1], qkv[:, 2]
    cached_keys, cached_values = keys.value.copy(), values.value.copy()
    for b in range(B):
        row = positions[b] % T
        cached_keys[b, :, row], cached_values[b, :, row] = new_key.value[b], new_value.value[b]
    seen = (np.arange(T) <= positions[:, None])[:, None, None, :]
    p, _ = _softmax(_scores(query[:, :, None], Rounded(cached_keys), product)[0], seen, act)
    return {
        "y": product(p, Rounded(cached_values))[:, :, 0],
        "keys": Rounded(cached_keys),
        "values": Rounded(cached_values),
    }


def fill_cache(keys, values, qkv, slots, B, S, act=DType.F32) -> Result:
    filled = {"keys": keys.value.copy(), "values": values.value.copy()}
    for k, slot in enumerate(slots):
        if 0 <= slot < B:
            for at, cache in enumerate(filled.values(), start=1):
                cache[slot, :, :S] = qkv.value[k, :, at].transpose(1, 0, 2)
    return {name: Rounded(cache) for name, cache in filled.items()}


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


def dropout_mask(counters: np.ndarray, stream: int, drop_probability: float, N: int, first_quad: int = 0) -> np.ndarray:
    """Return (N,) bool: which elements dropout keeps."""
    seed_low, seed_high, step, micro_step = counters.view(np.uint32)
    quads = first_quad + np.arange(-(-N // 4))
    rest = (np.full(quads.shape, word) for word in (stream, step, micro_step))
    words = philox(np.stack([quads, *rest]), np.array([[seed_low], [seed_high]]))
    return words.T.ravel()[:N] >= int(float(np.float32(drop_probability)) * 2**32)


def dropout(x, counters, drop_probability, stream, first_quad, N) -> Result:
    mask = dropout_mask(counters, stream, float(drop_probability.value), N, first_quad)
    return {"y": (x * (1.0 / (1.0 - drop_probability))).where(mask)}


def cross_entropy_forward(logits, targets, N, V, act=DType.F32) -> Result:
    target_logits = logits.value[np.arange(N), targets][:, None]
    before = (logits.value > target_logits) | ((logits.value == target_logits) & (np.arange(V) < targets[:, None]))
    return {"losses": _losses(logits, targets, act)[0], "ranks": before.sum(1)}


def _losses(logits: Rounded, targets: np.ndarray, act: DType) -> tuple[Rounded, Rounded]:
    """Return the losses (N,) and the softmax (N, V)."""
    maximum = logits.maximum_of_rows()
    exponentials = (logits - maximum).exp(quick=act is not DType.F32)
    total = exponentials.sum(1, keepdims=True)
    target_logits = logits[np.arange(len(targets)), targets]
    return total.log()[:, 0] + (maximum[:, 0] - target_logits), exponentials / total


def cross_entropy_training(logits, targets, scale, V, act=DType.F32) -> Result:
    losses, p = _losses(logits, targets, act)
    one_hot = targets[:, None] == np.arange(V)
    scaled = p * scale
    at_target = scaled - scale
    gradient = Rounded(
        np.where(one_hot, at_target.value, scaled.value), np.where(one_hot, at_target.error, scaled.error)
    )
    return {"losses": losses, "logits": gradient}


def draw_token(positions, windows, drawn, logits, settings, keys, B, T) -> Result:
    """Draw as hipgpt.inference.reference says. A draw that lies on a border between tokens has no reference."""
    tokens, windows = np.empty(B, np.int32), windows.copy()
    for b, position in enumerate(positions + 1):
        temperature, top_k, top_p, penalty = settings.value[b].tolist()
        sampling = SamplingConfig(1, temperature, int(top_k) or None, top_p, penalty)
        given = probabilities(logits.value[b].astype(np.float32), windows[b, : min(position, T)], sampling)
        key = keys[b].view(np.uint32).astype(np.uint64)
        stream = np.random.Generator(np.random.Philox(key=key[::2] + (key[1::2] << np.uint64(32))))
        uniform = stream.random(int(drawn[b]) + 1)[-1]
        tokens[b] = np.searchsorted(np.cumsum(given), uniform, side="right")
        windows[b, position % T] = tokens[b]
    return {"tokens": tokens, "positions": positions + np.int32(1), "windows": windows, "drawn": drawn + np.int32(1)}


def output_layer_training(dweight, dbias, x, weight, bias, targets, scale, V, act=DType.F32, product=matmul) -> Result:
    def packed(exponentials: Rounded) -> Rounded:  # rounded, and once more if the reference is raised
        return exponentials if act is DType.F32 else _stored(_stored(exponentials, act), act)

    logits = matmul_forward(x, weight, bias, product)["y"]
    maximum, target_logits = logits.maximum_of_rows(), logits[np.arange(len(targets)), targets][:, None]
    exponentials = (logits - maximum).exp()
    total = exponentials.sum(1, keepdims=True)
    one_hot, factor = targets[:, None] == np.arange(V), scale / total
    at_target = exponentials - total
    value = np.where(one_hot, at_target.value, exponentials.value)
    gradient = packed(Rounded(value, np.where(one_hot, at_target.error, exponentials.error)))
    others = packed(exponentials.where(~one_hot))
    of_target = at_target[np.arange(len(targets)), targets][:, None]
    result = {
        "losses": (total.log() + (maximum - target_logits))[:, 0],
        "dx": (product(others, weight) + of_target * weight[targets]) * factor,
        "dweight": product(gradient.transpose(1, 0), _stored(x * factor, act), dweight),
    }
    if dbias is None:
        return result
    return result | {"dbias": matmul(gradient.transpose(1, 0), factor, dbias[:, None])[:, 0]}


LOG2_E, LN_2 = constant(1 / np.log(2)), constant(np.log(2))


def output_layer_loss(x, weight, bias, targets, scale, V, act=DType.F32, product=matmul) -> Result:
    """Maxima, and so losses and logsumexp, are computed in powers of 2."""
    logits = matmul_forward(x, weight, bias, product)["y"]
    maximum, target_logits = logits.maximum_of_rows(), logits[np.arange(len(targets)), targets][:, None]
    exponentials = (logits - maximum).exp(quick=True)
    total, not_target = exponentials.sum(1, keepdims=True), targets[:, None] != np.arange(V)
    others, log_total = exponentials.where(not_target).sum(1, keepdims=True), total.log()
    shares = product(_stored(exponentials.where(not_target), act), weight) - others * weight[targets]
    return {
        "losses": (log_total + (maximum * LOG2_E - target_logits * LOG2_E) * LN_2)[:, 0],
        "logsumexp": (log_total + maximum * LOG2_E * LN_2)[:, 0],
        "not_target": (others / total)[:, 0],
        "dx": shares * (scale / total),
    }


def output_layer_weight(
    dweight, dbias, logsumexp, not_target, x, weight, bias, targets, scale, V, act=DType.F32, product=matmul
) -> Result:
    logits = matmul_forward(x, weight, bias, product)["y"]
    p = (logits - (logsumexp * LOG2_E * LN_2)[:, None]).exp(quick=True)
    one_hot, of_target = targets[:, None] == np.arange(V), -not_target[:, None]
    gradient = Rounded(np.where(one_hot, of_target.value, p.value), np.where(one_hot, of_target.error, p.error))
    result = {"dweight": product(_stored(gradient, act).transpose(1, 0), x) * scale + dweight}
    return result if dbias is None else result | {"dbias": gradient.sum(0) * scale + dbias}


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
    weights, first_moment, second_moment, gradients, copy, norm, schedule, counters, K,
    beta1, beta2, epsilon, weight_decay, clip_norm, decayed,
) -> Result:  # fmt: skip
    gradient = gradients * (clip_norm / norm).minimum(1.0)
    first = beta1 * first_moment + (1.0 - beta1) * gradient
    second = beta2 * second_moment + (1.0 - beta2) * gradient * gradient
    learning_rate, first_correction, second_correction = (schedule[counters[2] % K, i] for i in range(3))
    direction = first * first_correction / ((second * second_correction).sqrt() + epsilon)
    decays = (weight_decay * weights).where(np.arange(weights.value.size) < decayed)
    updated = weights - learning_rate * (direction + decays)
    result = {"weights": updated, "first_moment": first, "second_moment": second}
    result |= {"gradients": Rounded(np.zeros(gradient.value.shape))}
    return result if copy is None else result | {"copy": updated}


def muon_direction(momentum, gradients, norm, O, C, clip_norm) -> Result:  # noqa: E741
    gradient, decay = gradients * (clip_norm / norm).minimum(1.0), constant(0.95)
    moved = momentum * decay + gradient * (1.0 - decay)
    direction = moved * decay + gradient * (1.0 - decay)
    direction = direction.transpose(0, 2, 1) if O > C else direction
    return {"direction": direction, "momentum": moved, "gradients": Rounded(np.zeros(gradients.value.shape))}


def newton_schulz_gram(x, product=matmul) -> Result:
    return {"gram": product(x, x.transpose(0, 2, 1))}


def _polynomial(gram: Rounded, product: Product) -> Rounded:
    """Return a I + b gram + c gram gram; a, b, c are those of kernels/muon.h."""
    a, b, c = (constant(number) for number in (3.4445, -4.7750, 2.0315))
    return a * np.eye(gram.value.shape[-1]) + b * gram + c * product(gram, gram)


def newton_schulz_polynomial(gram, product=matmul) -> Result:
    return {"polynomial": _polynomial(gram, product)}


def newton_schulz_first_polynomial(gram, R, product=matmul) -> Result:
    factor = gram[:, np.arange(R), np.arange(R)].sum(1).sqrt() + constant(1e-7)
    inverse = 1.0 / factor[:, None, None]
    a, b, c = (constant(number) for number in (3.4445, -4.7750, 2.0315))
    square = inverse * inverse
    terms = a * np.eye(R) + b * square * gram + c * square * square * product(gram, gram)
    return {"polynomial": terms * inverse}


def newton_schulz_step(polynomial, x, product=matmul) -> Result:
    return {"y": product(polynomial, x)}


def muon_update(weights, copy, direction, schedule, counters, O, C, K, scale, weight_decay) -> Result:  # noqa: E741
    moved = direction.transpose(0, 2, 1) if O > C else direction
    updated = weights - schedule[counters[2] % K, 0] * (scale * moved + weight_decay * weights)
    return {"weights": updated} | ({} if copy is None else {"copy": updated})


def round_weights(weights) -> Result:
    return {"copy": weights}


def widen_gradients(rounded) -> Result:
    return {"gradients": rounded}


def record_step(history, loss, norm, counters, K) -> Result:
    rows = history.value.copy()
    rows[counters[2] % K] = loss.value[0], norm.value[0]
    after = np.array([*counters[:2], counters[2] + 1, 0], np.int32)
    return {"history": Rounded(rows), "loss": Rounded(np.zeros(1)), "counters": after}
