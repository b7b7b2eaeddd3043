"""The layers from one attention to the next as one launch, on a device that has an op for a model this narrow."""

from dataclasses import dataclass

from hipgpt.compute.catalogue import ADD_PARTIALS
from hipgpt.compute.device import Device
from hipgpt.compute.fused_ops import ACTIVATIONS, TOKEN_LAYERS_BACKWARD, TOKEN_LAYERS_FORWARD
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, Field, Tensor
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.parameters import ParameterTensors
from hipgpt.gpt.parts import Part
from hipgpt.gpt.weight_gradients import WeightGradients

TURNS = 2  # neighbouring blocks have gradients of their own, so layers do not wait for the weights of the block after


class TokenLayers(Part):
    """The layers after the attention of each block: projection, norm, MLP, the next block's norm and its layer qkv."""

    def forward(self, plan: Plan, i: int) -> None:
        """Record, from saved[attention] of block i, its other activations, and norm and qkv of block i + 1."""
        a, w, block, after, qkv = self.saved, self.weights, f"block{i}", self._norm_after(i), self._qkv_after(i)
        N, E = a[f"residual{i}"].shape
        mlp_norm = f"{block}.mlp_norm"
        mlp = a[f"{block}.middle"], *self._normed(mlp_norm), a[f"{block}.mlp_active"], a[f"{block}.mlp_slope"]
        outputs = *mlp, a[f"residual{i + 1}"], *self._normed(after), a[qkv].view(N, 3, E) if qkv else None
        inputs = a[f"{block}.attention"], a[f"residual{i}"]
        first = *w.linear(f"{block}.projection"), *w.norm(mlp_norm), *w.linear(f"{block}.mlp_in")
        layers = *first, *w.linear(f"{block}.mlp_out"), *w.norm(after), *self._weights(qkv)
        scalars = {"epsilon": self.model.norm_epsilon, "activation": ACTIVATIONS.index(self.model.activation)}
        plan(TOKEN_LAYERS_FORWARD, *outputs, *inputs, *layers, **scalars)

    def backward(self, plan: Plan, g: ParameterTensors, weight_gradients: WeightGradients, d: Arena, i: int) -> None:
        """Record d["attention"] of block i, and g += the gradients of the layers after its attention.

        d: also has the fields of `fused_layers`. d["norm"] is the gradient of the last norm.
        """
        a, w, block, after, qkv = self.saved, self.weights, f"block{i}", self._norm_after(i), self._qkv_after(i)
        mlp_norm, own, later = f"{block}.mlp_norm", Turn(d, i), Turn(d, i + 1)
        N, E = a[f"residual{i}"].shape
        outputs = own["dy"], own["dhidden"], own["dmiddle"], d["attention"], own["partials"], own["mlp_partials"]
        dqkv, dnorm, dy_after = (
            (later["dqkv"].view(N, 3, E), None, later["dmiddle"]) if qkv else (None, d["norm"], None)
        )
        normed = a[f"residual{i + 1}"], *self._normed(after)[1:], w[f"{after}.gamma"]
        mlp = a[f"{block}.mlp_slope"], a[f"{block}.middle"], *self._normed(mlp_norm)[1:], w[f"{mlp_norm}.gamma"]
        weights = (w[f"{block}.{name}.weight"] for name in ("mlp_out", "mlp_in", "projection"))
        plan(TOKEN_LAYERS_BACKWARD, *outputs, dqkv, dnorm, dy_after, *normed, *mlp, self._weights(qkv)[0], *weights)
        plan(ADD_PARTIALS, *g.norm(after), own["partials"])
        plan(ADD_PARTIALS, *g.norm(mlp_norm), own["mlp_partials"])
        weight_gradients.add(block, "mlp_out", own["dy"], a[f"{block}.mlp_active"])
        weight_gradients.add(block, "mlp_in", own["dhidden"], a[mlp_norm])
        weight_gradients.add(block, "projection", own["dmiddle"], a[f"{block}.attention"])
        if qkv:
            weight_gradients.add(f"block{i + 1}", "qkv", later["dqkv"], a[after])
        weight_gradients.finish_block()

    def _norm_after(self, i: int) -> str:
        return f"block{i + 1}.attention_norm" if i + 1 < self.model.num_layers else "final_norm"

    def _qkv_after(self, i: int) -> str | None:
        return f"block{i + 1}.qkv" if i + 1 < self.model.num_layers else None

    def _normed(self, name: str) -> tuple[Tensor, Tensor, Tensor]:
        return self.saved[name], self.saved[f"{name}.mean"], self.saved[f"{name}.rstd"]

    def _weights(self, qkv: str | None) -> tuple[Tensor | None, Tensor | None]:
        """Return the weight of a layer qkv by its three parts, and its bias."""
        if qkv is None:
            return None, None
        E = self.model.embed_dim
        return self.weights[f"{qkv}.weight"].view(3, E, E), self.weights[f"{qkv}.bias"].view(3, E)


@dataclass(frozen=True)
class Turn:
    """The gradients of a block among the fields of `fused_layers`, by name."""

    gradients: Arena
    block: int

    def __getitem__(self, name: str) -> Tensor:
        return self.gradients[f"turn{self.block % TURNS}.{name}"]


def fused_layers(
    device: Device,
    model: ModelConfig,
    weights: ParameterTensors,
    saved: Arena,
    rows: int,
    drop_probability: float,
) -> tuple[TokenLayers | None, list[Field]]:
    """Return these layers for so many tokens, and the table of what their backward pass writes.

    None and no fields if the device has no op for the model, or if there is dropout, which the ops do not compute.
    """
    E, F, act = model.embed_dim, model.mlp_dim, weights.arena.flat.dtype
    partials = device.traits.workspace(TOKEN_LAYERS_BACKWARD, {"N": rows, "C": E, "F": F}, act)
    if not partials or not model.parts.is_gpt2 or drop_probability:
        return None, []
    shapes = {"dy": (rows, E), "dhidden": (rows, F), "dmiddle": (rows, E), "dqkv": (rows, 3 * E)}
    sums = dict.fromkeys(("partials", "mlp_partials"), (partials, 2, E))
    gradients = [Field(f"turn{turn}.{name}", shape, act) for turn in range(TURNS) for name, shape in shapes.items()]
    return TokenLayers(model, weights, saved), gradients + [
        Field(f"turn{turn}.{name}", shape) for turn in range(TURNS) for name, shape in sums.items()
    ]
