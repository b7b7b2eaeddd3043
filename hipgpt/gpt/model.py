"""GPT-2 as flat lists of ops: the forward pass, the backward pass written by hand, and tables of what they write.

Pre-LayerNorm blocks with learned positions. Radford et al. 2019, "Language models are unsupervised multitask learners".
Rows N = B sequences of S positions.
"""

from collections.abc import Iterator

from hipgpt.compute.catalogue import (
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
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, Tensor
from hipgpt.config.settings import LAYERNORM_EPSILON, ModelConfig
from hipgpt.gpt.activations import strips
from hipgpt.gpt.parameters import Weights

MLP_IN = {"gelu": MATMUL_GELU_FORWARD, "relu": MATMUL_RELU_FORWARD}
MLP_OUT_BACKWARD = {"gelu": MATMUL_GELU_BACKWARD_INPUT, "relu": MATMUL_RELU_BACKWARD_INPUT}


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
