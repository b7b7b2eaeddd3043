"""The parts of a block: norm, attention and MLP, each with its forward and its backward ops, by architecture."""

from dataclasses import dataclass

from hipgpt.compute.catalogue import (
    ADD_PARTIALS,
    ADD_ROWS,
    ATTENTION_BACKWARD,
    ATTENTION_DECODE,
    ATTENTION_DELTA,
    ATTENTION_FORWARD,
    FILL_CACHE,
    HEAD_NORM_BACKWARD,
    HEAD_NORM_FORWARD,
    LAYERNORM_BACKWARD,
    LAYERNORM_FORWARD,
    MATMUL_ACTIVATION_BACKWARD_INPUT,
    MATMUL_BACKWARD_INPUT,
    MATMUL_FORWARD,
    MATMUL_GELU_FORWARD,
    MATMUL_RELU2_FORWARD,
    MATMUL_RELU_FORWARD,
    RMSNORM_BACKWARD,
    RMSNORM_FORWARD,
    ROTARY_BACKWARD,
    ROTARY_FORWARD,
    ROTATION_TABLE,
    SWIGLU_BACKWARD,
    SWIGLU_FORWARD,
)
from hipgpt.compute.fused_ops import ATTENTION_SHORT_BACKWARD
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, Tensor
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.parameters import ParameterTensors
from hipgpt.gpt.weight_gradients import WeightGradients

MLP_IN = {"gelu": MATMUL_GELU_FORWARD, "relu": MATMUL_RELU_FORWARD, "relu2": MATMUL_RELU2_FORWARD}


@dataclass(frozen=True)
class Part:
    """What the parts of a block share. weights: the parameters; saved: an Arena of `activations`.

    In backward methods, g are the gradients of the parameters and d is an Arena of `activation_gradients`.
    """

    model: ModelConfig
    weights: ParameterTensors
    saved: Arena


class Norm(Part):
    """LayerNorm or RMSNorm of the residual stream."""

    def forward(self, plan: Plan, name: str, x: Tensor, branch: Tensor | None = None, y: Tensor | None = None) -> None:
        """Record the norm called `name` of x, or, if there is a branch, of y = x + branch."""
        a, w, epsilon = self.saved, self.weights, self.model.norm_epsilon
        if self.model.parts.rms_norm:
            plan(RMSNORM_FORWARD, a[name], a[f"{name}.rstd"], y, x, branch, w[f"{name}.gamma"], epsilon=epsilon)
        else:
            outputs = a[name], a[f"{name}.mean"], a[f"{name}.rstd"], y
            plan(LAYERNORM_FORWARD, *outputs, x, branch, *w.norm(name), epsilon=epsilon)

    def backward(
        self, plan: Plan, g: ParameterTensors, d: Arena, name: str, x: Tensor, dx: Tensor, dresidual: Tensor | None
    ) -> None:
        """Record dx = dresidual + d loss / d x of a norm with the output gradient d["norm"]; dresidual: None for 0."""
        a, gamma, partials = self.saved, self.weights[f"{name}.gamma"], d["norm_partials"]
        if self.model.parts.rms_norm:
            plan(RMSNORM_BACKWARD, dx, partials, dresidual, d["norm"], x, a[f"{name}.rstd"], gamma)
            plan(ADD_ROWS, g[f"{name}.gamma"], partials)
        else:
            figures = a[f"{name}.mean"], a[f"{name}.rstd"]
            plan(LAYERNORM_BACKWARD, dx, partials, dresidual, d["norm"], x, *figures, gamma)
            plan(ADD_PARTIALS, *g.norm(name), partials)


@dataclass(frozen=True)
class Attention(Part):
    """Queries, keys and values of (B, S) tokens, and attention over them or over a cache.

    With rotary positions the layer qkv gives `packed`: queries, and keys and values that may be fewer. They become
    qkv (B, S, 3, H, D): rotated, each key and value repeated for the queries that share it. With head_norm, queries and
    keys are normalized before.
    """

    starts: Tensor
    shape: tuple[int, int]
    cache: Arena | None
    slots: Tensor | None

    @property
    def _heads(self) -> tuple[int, int, int, int]:
        return *self.shape, self.model.num_heads, self.model.head_channels

    @property
    def _qkv(self) -> tuple[int, int, int, int, int]:
        return *self.shape, 3, self.model.num_heads, self.model.head_channels

    @property
    def _packed(self) -> tuple[int, int, int, int]:
        return *self.shape, self.model.num_heads + 2 * self.model.kv_heads, self.model.head_channels

    def begin(self, plan: Plan) -> None:
        """Record what all blocks share: the table of rotations."""
        if self.model.parts.rotary:
            plan(ROTATION_TABLE, self.saved["rotations"], self.starts, base=self.model.rope_base)

    def forward(self, plan: Plan, block: str) -> None:
        """Record saved[attention] of a block from saved[attention_norm]."""
        self.project(plan, block)
        self.attend(plan, block)

    def project(self, plan: Plan, block: str) -> None:
        """Record saved[qkv] of a block from saved[attention_norm]."""
        a, w, x = self.saved, self.weights, self.saved[f"{block}.attention_norm"]
        if self.model.parts.rotary:
            own = f"{block}.packed" if self.model.parts.head_norm else "packed"
            plan(MATMUL_FORWARD, a[own], x, *w.linear(f"{block}.qkv"))
            if self.model.parts.head_norm:
                self._normalize(plan, block)
            qkv, packed = a[f"{block}.qkv"].view(*self._qkv), a["packed"].view(*self._packed)
            plan(ROTARY_FORWARD, qkv, packed, a["rotations"])
        else:
            plan(MATMUL_FORWARD, a[f"{block}.qkv"], x, *w.linear(f"{block}.qkv"))

    def backward(
        self, plan: Plan, g: ParameterTensors, weight_gradients: WeightGradients, d: Arena, block: str
    ) -> None:
        """Record d["norm"], the gradient of saved[attention_norm], from d["attention"]."""
        a, w = self.saved, self.weights
        self.attend_backward(plan, d, block, d["qkv"])
        doutput = d["qkv"]
        if self.model.parts.rotary:
            doutput = d["packed"]
            plan(ROTARY_BACKWARD, doutput.view(*self._packed), d["qkv"].view(*self._qkv), a["rotations"])
        if self.model.parts.head_norm:
            doutput = d["normed"]
            self._normalize_backward(plan, g, d, block)
        weight_gradients.add(block, "qkv", doutput, a[f"{block}.attention_norm"])
        plan(MATMUL_BACKWARD_INPUT, d["norm"], doutput, w[f"{block}.qkv.weight"])

    def attend_backward(self, plan: Plan, d: Arena, block: str, dqkv: Tensor) -> None:
        """Record dqkv (N, 3 * H * D), the gradient of saved[qkv], from d["attention"]."""
        y, qkv, logsumexp = (self.saved[f"{block}.{name}"] for name in ("attention", "qkv", "logsumexp"))
        dqkv, qkv = dqkv.view(*self._qkv), qkv.view(*self._qkv)
        dy, y = d["attention"].view(*self._heads), y.view(*self._heads)
        if plan.serves(ATTENTION_SHORT_BACKWARD, dict(zip("BSHD", self._heads, strict=True))):
            plan(ATTENTION_SHORT_BACKWARD, dqkv, dy, y, logsumexp, qkv)
            return
        plan(ATTENTION_DELTA, d["delta"], dy, y)
        plan(ATTENTION_BACKWARD, dqkv, dy, d["delta"], logsumexp, qkv)

    def attend(self, plan: Plan, block: str) -> None:
        """Record the attention of a block, over the cache or over the sequences, which may fill a cache."""
        y, qkv, logsumexp = (self.saved[f"{block}.{name}"] for name in ("attention", "qkv", "logsumexp"))
        B, _, H, D = self._heads
        cached = (self.cache[f"{block}.keys"], self.cache[f"{block}.values"]) if self.cache else ()
        if cached and self.slots is None:
            plan(ATTENTION_DECODE, y.view(B, H, D), *cached, qkv.view(B, 3, H, D), self.starts)
            return
        plan(ATTENTION_FORWARD, y.view(*self._heads), logsumexp, qkv.view(*self._qkv))
        if cached:
            plan(FILL_CACHE, *cached, qkv.view(*self._qkv), self.slots)

    def _gammas(self, tensors: ParameterTensors, block: str) -> tuple[Tensor, Tensor]:
        return tensors[f"{block}.query_norm.gamma"], tensors[f"{block}.key_norm.gamma"]

    def _normalize(self, plan: Plan, block: str) -> None:
        B, S, G, D = self._packed
        normed, packed = (self.saved[name].view(B * S, G, D) for name in ("packed", f"{block}.packed"))
        outputs, gammas = (normed, self.saved[f"{block}.heads.rstd"]), self._gammas(self.weights, block)
        epsilon, queries = self.model.norm_epsilon, self.model.num_heads
        plan(HEAD_NORM_FORWARD, *outputs, packed, *gammas, epsilon=epsilon, queries=queries)

    def _normalize_backward(self, plan: Plan, g: ParameterTensors, d: Arena, block: str) -> None:
        B, S, G, D = self._packed
        dpacked, dnormed, packed = (
            tensor.view(B * S, G, D) for tensor in (d["normed"], d["packed"], self.saved[f"{block}.packed"])
        )
        rstd, gammas = self.saved[f"{block}.heads.rstd"], self._gammas(self.weights, block)
        outputs, queries = (dpacked, d["head_partials"]), self.model.num_heads
        plan(HEAD_NORM_BACKWARD, *outputs, dnormed, packed, rstd, *gammas, queries=queries)
        plan(ADD_PARTIALS, *self._gammas(g, block), d["head_partials"])


class Mlp(Part):
    """The MLP of a block up to its active hidden layer: an activation of one GEMM, or SwiGLU of its two halves."""

    def forward(self, plan: Plan, block: str) -> None:
        """Record saved[mlp_active] of a block from saved[mlp_norm]."""
        a, linear = self.saved, self.weights.linear(f"{block}.mlp_in")
        active, x = a[f"{block}.mlp_active"], a[f"{block}.mlp_norm"]
        if self.model.parts.gated:
            hidden = a[f"{block}.mlp_hidden"]
            plan(MATMUL_FORWARD, hidden, x, *linear)
            plan(SWIGLU_FORWARD, active, self._halves(hidden))
        else:
            plan(MLP_IN[self.model.activation], active, a[f"{block}.mlp_slope"], x, *linear)

    def backward(self, plan: Plan, weight_gradients: WeightGradients, d: Arena, block: str, dbranch: Tensor) -> None:
        """Record d["norm"], the gradient of saved[mlp_norm], from dbranch, the gradient of the layer mlp_out."""
        w, saved, mlp_out = self.weights, self.saved, self.weights[f"{block}.mlp_out.weight"]
        if self.model.parts.gated:
            plan(MATMUL_BACKWARD_INPUT, d["active"], dbranch, mlp_out)
            hidden = self._halves(saved[f"{block}.mlp_hidden"])
            plan(SWIGLU_BACKWARD, self._halves(d["hidden"]), d["active"], hidden)
        else:
            plan(MATMUL_ACTIVATION_BACKWARD_INPUT, d["hidden"], dbranch, mlp_out, saved[f"{block}.mlp_slope"])
        weight_gradients.add(block, "mlp_in", d["hidden"], saved[f"{block}.mlp_norm"])
        plan(MATMUL_BACKWARD_INPUT, d["norm"], d["hidden"], w[f"{block}.mlp_in.weight"])

    def _halves(self, hidden: Tensor) -> Tensor:
        return hidden.view(hidden.shape[0], 2, self.model.mlp_dim)
