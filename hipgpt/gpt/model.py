"""A GPT as flat lists of ops: the forward pass, and the backward pass, which is written by hand.

x (N, E) is the residual stream of N = B*S rows: B sequences of S positions. A block computes

    x = x + projection(attention(qkv(attention_norm(x))))
    x = x + mlp_out(activation(mlp_in(mlp_norm(x))))

Each of these sums is computed by the same op as the norm that reads it. hipgpt/gpt/parts.py has norm, attention and MLP
of each architecture. Radford et al. 2019, "Language models are unsupervised multitask learners" (gpt2); Touvron et al.
2023, arXiv:2302.13971 (llama); Yang et al. 2025, arXiv:2505.09388 (qwen3).
"""

from collections.abc import Iterator

from hipgpt.compute.catalogue import (
    ADD_SUM,
    CROSS_ENTROPY_FORWARD,
    CROSS_ENTROPY_TRAINING,
    DROPOUT,
    EMBEDDING_BACKWARD,
    EMBEDDING_FORWARD,
    MATMUL_BACKWARD_INPUT,
    MATMUL_BACKWARD_WEIGHT,
    MATMUL_FORWARD,
    OUTPUT_LAYER_TRAINING,
    TOKEN_EMBEDDING_BACKWARD,
    TOKEN_EMBEDDING_FORWARD,
)
from hipgpt.compute.fused_ops import OUTPUT_LAYER_LOSS, OUTPUT_LAYER_WEIGHT
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, Tensor
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.fused_decoding import FusedBlocks
from hipgpt.gpt.parameters import ParameterTensors
from hipgpt.gpt.parts import Attention, Mlp, Norm
from hipgpt.gpt.token_layers import TokenLayers, Turn
from hipgpt.gpt.weight_gradients import WeightGradients


class Network:
    """The model for one batch shape (B, S). Its methods record passes: they add launches to a plan.

    weights: the parameters. saved: an Arena of `activations`. tokens (B, S) i32. starts (B) i32: the position of the
    first token of each sequence. cache: an Arena of `kv_cache`; with it, S is 1, and attention appends the new keys and
    values to it and reads the earlier ones. slots (B) i32: with it, the keys and values of these S tokens become the
    beginning of the cache's sequence slots[b]; a slot that the cache does not have is left out. fused: with a cache,
    takes the place of all blocks. token_layers: without dropout, take the place of the layers between two attentions.
    drop_probability: of the dropout after the embedding and after both branches of each block. counters (4) i32: seed
    low and high, step, micro step, from which the dropout masks are drawn. group: index of these sequences among the
    groups of a micro-batch; each group draws other masks.
    """

    def __init__(
        self,
        model: ModelConfig,
        weights: ParameterTensors,
        saved: Arena,
        tokens: Tensor,
        starts: Tensor,
        cache: Arena | None = None,
        slots: Tensor | None = None,
        fused: FusedBlocks | None = None,
        token_layers: TokenLayers | None = None,
        drop_probability: float = 0.0,
        counters: Tensor | None = None,
        group: int = 0,
    ):
        self.model, self.weights, self.saved = model, weights, saved
        self.tokens, self.starts, self.fused, self.token_layers = tokens, starts, fused, token_layers
        self.drop_probability, self.counters, self.group = drop_probability, counters, group
        self.B, self.S = tokens.shape
        shared = model, weights, saved
        self.norm, self.mlp = Norm(*shared), Mlp(*shared)
        self.attention = Attention(*shared, starts=starts, shape=(self.B, self.S), cache=cache, slots=slots)

    def forward(self, plan: Plan) -> None:
        """Record the pass from the tokens to saved["final_norm"] (N, E), the output of the last norm."""
        a, w, L = self.saved, self.weights, self.model.num_layers
        self._embed(plan, a["residual0"])
        if self.fused:
            self.fused(plan, a["final_norm"], a["residual0"], self.starts)
            return
        self.attention.begin(plan)
        self.norm.forward(plan, "block0.attention_norm", a["residual0"])
        if self.token_layers:
            self.attention.project(plan, "block0")
            for i in range(L):
                self.attention.attend(plan, f"block{i}")
                self.token_layers.forward(plan, i)
            return
        for i in range(L):
            block, x, middle = f"block{i}", a[f"residual{i}"], a[f"block{i}.middle"]
            self.attention.forward(plan, block)
            plan(MATMUL_FORWARD, a["branch"], a[f"{block}.attention"], *w.linear(f"{block}.projection"))
            self._add_and_norm(plan, middle, x, f"{block}.mlp_norm", stream=2 * i + 1)

            self.mlp.forward(plan, block)
            plan(MATMUL_FORWARD, a["branch"], a[f"{block}.mlp_active"], *w.linear(f"{block}.mlp_out"))
            next_norm = f"block{i + 1}.attention_norm" if i + 1 < L else "final_norm"
            self._add_and_norm(plan, a[f"residual{i + 1}"], middle, next_norm, stream=2 * i + 2)

    def backward(self, plan: Plan, gradients: ParameterTensors, activation_gradients: Arena) -> None:
        """Record, after `training_loss`, gradients += d loss / d weights.

        The lines are those of `forward` in reverse order. activation_gradients: an Arena of the table of that name. A
        name that begins with d is a gradient of the loss: dbranch is d loss / d branch.
        """
        a, w, g, d = self.saved, self.weights, gradients, activation_gradients
        if self.token_layers:
            self._backward_by_token_layers(plan, self.token_layers, g, d)
            return
        weight_gradients = WeightGradients(plan, g, self.model, self.B * self.S, one_by_one=self.drop_probability > 0)
        L, out, middle = self.model.num_layers, d["residual"], d["middle"]  # of a block: gradients of its residual sums
        self.norm.backward(plan, g, d, "final_norm", a[f"residual{L}"], out, dresidual=None)
        for i in reversed(range(L)):
            block = f"block{i}"
            dbranch = self._branch_gradient(plan, d, out, stream=2 * i + 2)
            weight_gradients.add(block, "mlp_out", dbranch, a[f"{block}.mlp_active"])
            self.mlp.backward(plan, weight_gradients, d, block, dbranch)
            self.norm.backward(plan, g, d, f"{block}.mlp_norm", a[f"{block}.middle"], middle, dresidual=out)

            dbranch = self._branch_gradient(plan, d, middle, stream=2 * i + 1)
            weight_gradients.add(block, "projection", dbranch, a[f"{block}.attention"])
            plan(MATMUL_BACKWARD_INPUT, d["attention"], dbranch, w[f"{block}.projection.weight"])
            self.attention.backward(plan, g, weight_gradients, d, block)
            weight_gradients.finish_block()
            self.norm.backward(plan, g, d, f"{block}.attention_norm", a[f"residual{i}"], out, dresidual=middle)
        self._embed_backward(plan, g, self._branch_gradient(plan, d, out, stream=0))

    def _backward_by_token_layers(self, plan: Plan, layers: TokenLayers, g: ParameterTensors, d: Arena) -> None:
        a, first = self.saved, Turn(d, 0)
        weight_gradients = WeightGradients(plan, g, self.model, self.B * self.S)
        for i in reversed(range(self.model.num_layers)):
            layers.backward(plan, g, weight_gradients, d, i)
            self.attention.attend_backward(plan, d, f"block{i}", Turn(d, i)["dqkv"])
        plan(MATMUL_BACKWARD_WEIGHT, *g.linear("block0.qkv"), first["dqkv"], a["block0.attention_norm"])
        plan(MATMUL_BACKWARD_INPUT, d["norm"], first["dqkv"], self.weights["block0.qkv.weight"])
        dx = Turn(d, 1)["dmiddle"]  # which no launch reads any more
        self.norm.backward(plan, g, d, "block0.attention_norm", a["residual0"], dx, dresidual=first["dmiddle"])
        self._embed_backward(plan, g, dx)

    def logits(self, plan: Plan) -> None:
        """Record, after `forward`, the pass to saved["logits"] (N, V)."""
        plan(MATMUL_FORWARD, self.saved["logits"], self.saved["final_norm"], *self.weights.output_layer)

    def losses(self, plan: Plan, targets: Tensor, ranks: Tensor) -> None:
        """Record, after `forward`, the pass to saved["losses"] (N) in nats and to the ranks of the targets.

        targets, ranks: (N) i32; a rank is the number of tokens that the model prefers to the target.
        """
        for logits, x, block in self._logit_blocks():
            plan(MATMUL_FORWARD, logits, x, *self.weights.output_layer)
            losses, ranks_of_block = self.saved["losses"].rows(*block), ranks.rows(*block)
            plan(CROSS_ENTROPY_FORWARD, losses, ranks_of_block, logits, targets.rows(*block))

    def training_loss(
        self,
        plan: Plan,
        loss: Tensor,
        targets: Tensor,
        scale: float,
        gradients: ParameterTensors,
        activation_gradients: Arena,
    ) -> None:
        """Record, after `forward`, loss (1) += scale * sum of losses, and the backward pass of the output layer.

        targets: (N) i32. Each block of rows is taken from logits to gradients before the next one, so that its logits
        are still in the caches. If `activation_gradients` has the fields for it, one op or two do all of this.
        """
        d, weight, bias = activation_gradients, *self.weights.output_layer
        dweight, dbias = gradients.output_layer
        for logits, x, block in self._logit_blocks():
            losses, dx, y = self.saved["losses"].rows(*block), d["norm"].rows(*block), targets.rows(*block)
            outputs, inputs = (losses, dx, dweight, dbias), (x, weight, bias, y)
            if "output_layer.exponentials" in d:
                workspace = d["output_layer.exponentials"], d["output_layer.scaled"].rows(0, x.shape[0])
                plan(OUTPUT_LAYER_TRAINING, *outputs, *workspace, *inputs, scale=scale)
            elif "output_layer.logsumexp" in d:
                names = "output_layer.logsumexp", "output_layer.not_target"
                statistics = [d[name].rows(0, x.shape[0]) for name in names]
                plan(OUTPUT_LAYER_LOSS, losses, *statistics, dx, *inputs, scale=scale)
                plan(OUTPUT_LAYER_WEIGHT, dweight, dbias, *statistics, *inputs, scale=scale)
            else:
                plan(MATMUL_FORWARD, logits, x, weight, bias)
                plan(CROSS_ENTROPY_TRAINING, losses, logits, y, scale=scale)
                plan(MATMUL_BACKWARD_WEIGHT, dweight, dbias, logits, x)
                plan(MATMUL_BACKWARD_INPUT, dx, logits, weight)
        plan(ADD_SUM, loss, self.saved["losses"], scale=scale)

    def _logit_blocks(self) -> Iterator[tuple[Tensor, Tensor, tuple[int, int]]]:
        """Yield (logits, x, (first, stop)) for each block of rows whose logits are stored at once."""
        logits, x = self.saved["logits"], self.saved["final_norm"]
        rows = logits.shape[0]
        for first in range(0, x.shape[0], rows):
            last = min(first + rows, x.shape[0])
            yield logits.rows(0, last - first), x.rows(first, last), (first, last)

    def _embed(self, plan: Plan, x: Tensor) -> None:
        """Record x = dropout(token embedding + position embedding). Rotary positions need no embedding."""
        embedded, table = self.saved["branch"] if self.drop_probability else x, self.weights["token_embedding.weight"]
        if self.model.parts.rotary:
            plan(TOKEN_EMBEDDING_FORWARD, embedded, self.tokens.flat, table)
        else:
            tables, rows = (table, self.weights["position_embedding.weight"]), (self.B, self.S, self.model.embed_dim)
            plan(EMBEDDING_FORWARD, embedded.view(*rows), self.tokens, self.starts, *tables)
        if self.drop_probability:
            self._drop(plan, x, embedded, stream=0)

    def _embed_backward(self, plan: Plan, g: ParameterTensors, dembedded: Tensor) -> None:
        table = g["token_embedding.weight"]
        if self.model.parts.rotary:
            plan(TOKEN_EMBEDDING_BACKWARD, table, dembedded, self.tokens.flat)
        else:
            rows = dembedded.view(self.B, self.S, self.model.embed_dim)
            plan(EMBEDDING_BACKWARD, table, g["position_embedding.weight"], rows, self.tokens)

    def _add_and_norm(self, plan: Plan, y: Tensor, x: Tensor, norm: str, stream: int) -> None:
        """Record y = x + dropout(saved["branch"]), and the norm called `norm` of y."""
        branch = self.saved["branch"]
        if self.drop_probability:
            self._drop(plan, self.saved["dropped"], branch, stream)
            branch = self.saved["dropped"]
        self.norm.forward(plan, norm, x, branch, y)

    def _branch_gradient(self, plan: Plan, d: Arena, dy: Tensor, stream: int) -> Tensor:
        """Return the gradient of a branch: that of the residual sum, dy, with the dropout mask of the branch."""
        if not self.drop_probability:
            return dy
        self._drop(plan, d["dropped"], dy, stream)
        return d["dropped"]

    def _drop(self, plan: Plan, y: Tensor, x: Tensor, stream: int) -> None:
        first_quad = self.group * -(-x.elements // 4)
        settings = {"drop_probability": self.drop_probability, "stream": stream, "first_quad": first_quad}
        plan(DROPOUT, y.flat, x.flat, self.counters, **settings)
