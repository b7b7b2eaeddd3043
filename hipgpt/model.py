"""GPT-2 as flat lists of ops: the forward pass, the backward pass written by hand, and tables of what they write.

Pre-LayerNorm blocks with learned positions. Radford et al. 2019, "Language models are unsupervised multitask learners".
Rows N = B sequences of S positions.
"""

from collections.abc import Iterator

from hipgpt.backends.device import Device
from hipgpt.config import ModelConfig
from hipgpt.gpt2 import LAYERNORM_EPSILON
from hipgpt.ops import (
    ADD_PARTIALS,
    ADD_SUM,
    ATTENTION_BACKWARD,
    ATTENTION_DECODE,
    ATTENTION_DELTA,
    ATTENTION_FORWARD,
    CROSS_ENTROPY_FORWARD,
    CROSS_ENTROPY_TRAINING,
    DROPOUT,
    EMBEDDING_BACKWARD,
    EMBEDDING_FORWARD,
    LAYERNORM_BACKWARD,
    LAYERNORM_FORWARD,
    MATMUL_BACKWARD_INPUT,
    MATMUL_BACKWARD_WEIGHT,
    MATMUL_FORWARD,
    MATMUL_GELU_BACKWARD_INPUT,
    MATMUL_GELU_FORWARD,
    MATMUL_RELU_BACKWARD_INPUT,
    MATMUL_RELU_FORWARD,
    OUTPUT_LAYER_TRAINING,
    ZERO,
)
from hipgpt.parameters import Weights
from hipgpt.plan import Plan
from hipgpt.tensor import Arena, DType, Field, Tensor

CACHED_BYTES = 8 << 20  # of activations on a CPU, to be read again before they leave the caches
NORM_ROWS, NORM_PARTS = 16, 512  # rows of a partial sum in LayerNorm's backward pass, at least; how many sums, at most
STRIP = 32  # rows of a strip of exponentials, and what of the vocabulary is filled up to
EXPONENTIALS = {DType.F32: STRIP + STRIP // 2, DType.BF16: STRIP}  # what a strip takes: an f32 may be three bf16
MLP_IN = {"gelu": MATMUL_GELU_FORWARD, "relu": MATMUL_RELU_FORWARD}
MLP_OUT_BACKWARD = {"gelu": MATMUL_GELU_BACKWARD_INPUT, "relu": MATMUL_RELU_BACKWARD_INPUT}


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


def strips(rows: int) -> int:
    """Return how many strips of exponentials `rows` rows begin."""
    return -(-rows // STRIP)


def activations(
    model: ModelConfig, sequences: int, length: int, act: DType = DType.F32, logit_rows: int | None = None
) -> list[Field]:
    """Return the table of what the forward pass of (B, S) tokens writes; the backward pass reads it again.

    logit_rows: of how many tokens the logits are kept at a time; default: of all.
    """
    N, E, F, V = sequences * length, model.embed_dim, model.mlp_dim, model.vocab_size

    def rows(name: str, width: int) -> Field:
        return Field(name, (N, width), act)

    def norm(name: str) -> list[Field]:
        return [rows(name, E), Field(f"{name}.mean", (N,)), Field(f"{name}.rstd", (N,))]

    fields = [rows("residual0", E), rows("branch", E), rows("dropped", E)]
    for i in range(model.num_layers):
        fields += norm(f"block{i}.attention_norm")
        fields += [rows(f"block{i}.qkv", 3 * E), rows(f"block{i}.attention", E)]
        fields += [Field(f"block{i}.logsumexp", (sequences, model.num_heads, length))]
        fields += [rows(f"block{i}.middle", E)]
        fields += norm(f"block{i}.mlp_norm")
        fields += [rows(f"block{i}.mlp_hidden", F), rows(f"block{i}.mlp_active", F)]
        fields += [rows(f"residual{i + 1}", E)]
    return [*fields, *norm("final_norm"), Field("logits", (logit_rows or N, V), act), Field("losses", (N,))]


def activation_gradients(
    model: ModelConfig, sequences: int, length: int, act: DType = DType.F32, exponential_rows: int | None = None
) -> list[Field]:
    """Return the table of gradients with respect to activations: one block's worth, reused by every block.

    exponential_rows: of how many tokens OUTPUT_LAYER_TRAINING keeps exponentials at a time; None: it is not used.
    """
    N, E, F = sequences * length, model.embed_dim, model.mlp_dim
    widths = {"residual": E, "dropped": E, "norm": E, "hidden": F, "attention": E, "qkv": 3 * E}
    fields = [Field(name, (N, width), act) for name, width in widths.items()]
    parts = min(NORM_PARTS, -(-N // NORM_ROWS))
    if exponential_rows:
        whole = strips(model.vocab_size) * STRIP
        fields.append(Field("exponentials", (strips(exponential_rows), whole, EXPONENTIALS[act]), act))
    return [*fields, Field("norm_partials", (parts, 2, E)), Field("delta", (sequences, model.num_heads, length))]


def kv_cache(model: ModelConfig, sequences: int, act: DType = DType.F32) -> list[Field]:
    """Return the table of cached keys and values, (B, H, T, D) each."""
    shape = (sequences, model.num_heads, model.context_length, model.head_dim)
    return [Field(f"block{i}.{kind}", shape, act) for i in range(model.num_layers) for kind in ("keys", "values")]


def _flat(tensor: Tensor) -> Tensor:
    return tensor.view(tensor.elements)


class Network:
    """The network for one batch shape (B, S); its methods record passes onto plans.

    weights: the parameters; saved: an Arena of `activations`; tokens (B, S) i32; starts (B) i32: the position of each
    sequence's first token. cache: an Arena of `kv_cache`: attention then appends to it and reads it (S = 1).
    drop_probability: dropout of the embedding sum and of both branches of every block; counters (4): i32, see DROPOUT;
    group: how many such batches of the same micro-batch were before, whose masks are others.
    """

    def __init__(
        self,
        model: ModelConfig,
        weights: Weights,
        saved: Arena,
        tokens: Tensor,
        starts: Tensor,
        cache: Arena | None = None,
        drop_probability: float = 0.0,
        counters: Tensor | None = None,
        group: int = 0,
    ):
        self.model, self.w, self.s, self.tokens, self.starts, self.cache = model, weights, saved, tokens, starts, cache
        self.drop_probability, self.counters, self.group = drop_probability, counters, group
        self.B, self.S = tokens.shape
        self.H, self.D = model.num_heads, model.head_dim

    def forward(self, plan: Plan) -> None:
        """Record tokens -> the last LayerNorm's output (N, E)."""
        w, s, L = self.w, self.s, self.model.num_layers
        embedded = s["branch"] if self.drop_probability else s["residual0"]
        tables = w["token_embedding.weight"], w["position_embedding.weight"]
        plan(EMBEDDING_FORWARD, embedded.view(self.B, self.S, self.model.embed_dim), self.tokens, self.starts, *tables)
        if self.drop_probability:
            self._drop(plan, s["residual0"], s["branch"], stream=0)
        self._layernorm(plan, "block0.attention_norm", s["residual0"])
        for i in range(L):
            block, middle = f"block{i}", s[f"block{i}.middle"]
            plan(MATMUL_FORWARD, s[f"{block}.qkv"], s[f"{block}.attention_norm"], *w.linear(f"{block}.qkv"))
            self._attention(plan, block)
            plan(MATMUL_FORWARD, s["branch"], s[f"{block}.attention"], *w.linear(f"{block}.projection"))
            self._add_branch(plan, f"{block}.mlp_norm", middle, s[f"residual{i}"], stream=2 * i + 1)

            hidden = s[f"{block}.mlp_active"], s[f"{block}.mlp_hidden"]
            plan(MLP_IN[self.model.activation], *hidden, s[f"{block}.mlp_norm"], *w.linear(f"{block}.mlp_in"))
            plan(MATMUL_FORWARD, s["branch"], s[f"{block}.mlp_active"], *w.linear(f"{block}.mlp_out"))
            following = f"block{i + 1}.attention_norm" if i + 1 < L else "final_norm"
            self._add_branch(plan, following, s[f"residual{i + 1}"], middle, stream=2 * i + 2)

    def logits(self, plan: Plan) -> None:
        """Record, after `forward`, -> logits (N, V)."""
        plan(MATMUL_FORWARD, self.s["logits"], self.s["final_norm"], self.w.output, self.w.output_bias)

    def losses(self, plan: Plan, targets: Tensor, ranks: Tensor) -> None:
        """Record, after `forward`, -> `losses` in nats and the rank of each target; targets, ranks: (N) i32."""
        for logits, x, block in self._blocks():
            plan(MATMUL_FORWARD, logits, x, self.w.output, self.w.output_bias)
            losses, wanted = self.s["losses"].rows(*block), targets.rows(*block)
            plan(CROSS_ENTROPY_FORWARD, losses, ranks.rows(*block), logits, wanted)

    def training_loss(
        self, plan: Plan, loss: Tensor, targets: Tensor, scale: float, gradients: Weights, scratch: Arena
    ) -> None:
        """Record, after `forward`, loss (1) += scale * sum of losses, and the output layer's backward pass.

        It takes a block of rows from logits to gradients while they are in the caches. scratch: an Arena of
        `activation_gradients`; where that has `exponentials`, one op does it all. targets: (N) i32.
        """
        w, s, g = self.w, self.s, gradients
        for logits, x, block in self._blocks():
            losses, wanted, dx = s["losses"].rows(*block), targets.rows(*block), scratch["norm"].rows(*block)
            if "exponentials" in scratch:
                work = scratch["exponentials"].rows(0, strips(x.shape[0])), scratch["dropped"].rows(*block)
                given = x, w.output, w.output_bias, wanted
                plan(OUTPUT_LAYER_TRAINING, losses, dx, g.output, g.output_bias, *work, *given, scale=scale)
            else:
                plan(MATMUL_FORWARD, logits, x, w.output, w.output_bias)
                plan(CROSS_ENTROPY_TRAINING, losses, logits, wanted, scale=scale)
                plan(MATMUL_BACKWARD_WEIGHT, g.output, g.output_bias, logits, x)
                plan(MATMUL_BACKWARD_INPUT, dx, logits, w.output)
        plan(ADD_SUM, loss, s["losses"], scale=scale)

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor, tuple[int, int]]]:
        """Yield, by the rows whose logits are made at a time: logits, the last LayerNorm's output, (begin, end)."""
        logits, x = self.s["logits"], self.s["final_norm"]
        rows = logits.shape[0]
        for first in range(0, x.shape[0], rows):
            last = min(first + rows, x.shape[0])
            yield logits.rows(0, last - first), x.rows(first, last), (first, last)

    def backward(self, plan: Plan, gradients: Weights, scratch: Arena) -> None:
        """Record the forward pass's lines reversed, after `training_loss`: gradients += d loss / d weights.

        scratch: an Arena of `activation_gradients`.
        """
        w, s, g, d, L = self.w, self.s, gradients, scratch, self.model.num_layers
        dresidual, dnorm, dhidden = d["residual"], d["norm"], d["hidden"]
        plan(ZERO, _flat(dresidual))
        self._layernorm_backward(plan, g, d, "final_norm", s[f"residual{L}"])
        for i in reversed(range(L)):
            block, x, middle = f"block{i}", s[f"residual{i}"], s[f"block{i}.middle"]
            dbranch = self._drop_gradient(plan, d, stream=2 * i + 2)
            plan(MATMUL_BACKWARD_WEIGHT, *g.linear(f"{block}.mlp_out"), dbranch, s[f"{block}.mlp_active"])
            into = w[f"{block}.mlp_out.weight"], s[f"{block}.mlp_hidden"]
            plan(MLP_OUT_BACKWARD[self.model.activation], dhidden, dbranch, *into)
            plan(MATMUL_BACKWARD_WEIGHT, *g.linear(f"{block}.mlp_in"), dhidden, s[f"{block}.mlp_norm"])
            plan(MATMUL_BACKWARD_INPUT, dnorm, dhidden, w[f"{block}.mlp_in.weight"])
            self._layernorm_backward(plan, g, d, f"{block}.mlp_norm", middle)

            dbranch = self._drop_gradient(plan, d, stream=2 * i + 1)
            plan(MATMUL_BACKWARD_WEIGHT, *g.linear(f"{block}.projection"), dbranch, s[f"{block}.attention"])
            plan(MATMUL_BACKWARD_INPUT, d["attention"], dbranch, w[f"{block}.projection.weight"])
            self._attention_backward(plan, block, d)
            plan(MATMUL_BACKWARD_WEIGHT, *g.linear(f"{block}.qkv"), d["qkv"], s[f"{block}.attention_norm"])
            plan(MATMUL_BACKWARD_INPUT, dnorm, d["qkv"], w[f"{block}.qkv.weight"])
            self._layernorm_backward(plan, g, d, f"{block}.attention_norm", x)
        dembedded = self._drop_gradient(plan, d, stream=0).view(self.B, self.S, self.model.embed_dim)
        tables = g["token_embedding.weight"], g["position_embedding.weight"]
        plan(EMBEDDING_BACKWARD, *tables, dembedded, self.tokens)

    def _layernorm(
        self, plan: Plan, name: str, x: Tensor, branch: Tensor | None = None, y: Tensor | None = None
    ) -> None:
        """Record the LayerNorm `name` of x, or of y = x + branch."""
        s, statistics = self.s, (self.s[f"{name}.mean"], self.s[f"{name}.rstd"])
        plan(LAYERNORM_FORWARD, s[name], *statistics, y, x, branch, *self.w.norm(name), epsilon=LAYERNORM_EPSILON)

    def _layernorm_backward(self, plan: Plan, g: Weights, d: Arena, name: str, x: Tensor) -> None:
        """Record d["residual"] += the gradient d["norm"] of a LayerNorm's output through it; x: its input."""
        statistics, partials = (self.s[f"{name}.mean"], self.s[f"{name}.rstd"]), d["norm_partials"]
        plan(LAYERNORM_BACKWARD, d["residual"], partials, d["norm"], x, *statistics, self.w[f"{name}.gamma"])
        plan(ADD_PARTIALS, *g.norm(name), partials)

    def _attention(self, plan: Plan, block: str) -> None:
        y, qkv, logsumexp = (self.s[f"{block}.{name}"] for name in ("attention", "qkv", "logsumexp"))
        B, S, H, D = self.B, self.S, self.H, self.D
        if self.cache is None:
            plan(ATTENTION_FORWARD, y.view(B, S, H, D), logsumexp, qkv.view(B, S, 3, H, D))
        else:
            cached = self.cache[f"{block}.keys"], self.cache[f"{block}.values"]
            plan(ATTENTION_DECODE, y.view(B, H, D), *cached, qkv.view(B, 3, H, D), self.starts)

    def _attention_backward(self, plan: Plan, block: str, d: Arena) -> None:
        y, qkv, logsumexp = (self.s[f"{block}.{name}"] for name in ("attention", "qkv", "logsumexp"))
        heads, triple = (self.B, self.S, self.H, self.D), (self.B, self.S, 3, self.H, self.D)
        dy = d["attention"].view(*heads)
        plan(ATTENTION_DELTA, d["delta"], dy, y.view(*heads))
        plan(ATTENTION_BACKWARD, d["qkv"].view(*triple), dy, d["delta"], logsumexp, qkv.view(*triple))

    def _add_branch(self, plan: Plan, norm: str, y: Tensor, x: Tensor, stream: int) -> None:
        """Record y = x + the branch, under dropout, and the LayerNorm `norm` of y."""
        branch = self.s["branch"]
        if self.drop_probability:
            self._drop(plan, self.s["dropped"], branch, stream)
            branch = self.s["dropped"]
        self._layernorm(plan, norm, x, branch, y)

    def _drop_gradient(self, plan: Plan, d: Arena, stream: int) -> Tensor:
        """Return the residual stream's gradient as a branch sees it: under the mask of its forward pass."""
        if not self.drop_probability:
            return d["residual"]
        self._drop(plan, d["dropped"], d["residual"], stream)
        return d["dropped"]

    def _drop(self, plan: Plan, y: Tensor, x: Tensor, stream: int) -> None:
        first_quad = self.group * -(-x.elements // 4)
        settings = {"drop_probability": self.drop_probability, "stream": stream, "first_quad": first_quad}
        plan(DROPOUT, _flat(y), _flat(x), self.counters, **settings)
