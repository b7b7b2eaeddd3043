"""A model small enough for float64, recorded on a device with its gradients. Its weights make every term matter."""

import dataclasses

import numpy as np

from hipgpt.compute.device import Device
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.activations import activation_gradients, activations
from hipgpt.gpt.blocking import fused_output_layer
from hipgpt.gpt.model import Network
from hipgpt.gpt.parameters import ParameterTensors, parameters
from hipgpt.gpt.token_layers import fused_layers

MODEL = ModelConfig(
    vocab_size=37,
    embed_dim=16,
    num_layers=2,
    num_heads=2,
    mlp_dim=24,
    context_length=7,
    activation="gelu",
    tie_embeddings=False,
    output_bias=True,
)
COUNTERS = np.array([3, 1, 4, 1], np.int32)  # seed low and high, step, micro step


def draw_weights(model: ModelConfig, seed: int = 1) -> dict[str, np.ndarray]:
    """Return f32 values by field name: normal draws around each field's mean, biases and norms too.

    Gammas of queries and keys are twice as large. Otherwise scores differ so little that in bf16 their gradients drown.
    """
    random = np.random.default_rng(seed)
    values = {f.name: (f.mean + 0.3 * random.normal(size=f.shape)).astype(np.float32) for f in parameters(model)}
    return {name: 2 * value if "query_norm" in name or "key_norm" in name else value for name, value in values.items()}


def draw_batch(model: ModelConfig, sequences: int, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and targets (B, S) i32."""
    shape = sequences, model.context_length + 1
    windows = np.random.default_rng(seed).integers(model.vocab_size, size=shape, dtype=np.int32)
    return np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])


class RecordedModel:
    """The passes over a batch of `sequences`, as plans: `forward`, and `training`, which adds to loss and gradients.

    output_layer: False uses four ops for the output layer, even if the device has fewer for it.
    """

    def __init__(
        self,
        device: Device,
        model: ModelConfig,
        sequences: int = 3,
        drop_probability: float = 0.0,
        act: DType = DType.F32,
        output_layer: bool = True,
    ):
        self.device, self.model = device, model
        B, S = sequences, model.context_length
        rounded = [dataclasses.replace(field, dtype=act) for field in parameters(model)]
        self.weights = Arena(device, "weights", rounded)
        self.gradients = Arena(device, "gradients", parameters(model))
        integers = [Field("tokens", (B, S)), Field("targets", (B * S,)), Field("starts", (B,)), Field("counters", (4,))]
        self.inputs = Arena(device, "inputs", [dataclasses.replace(field, dtype=DType.I32) for field in integers])
        self.loss = Arena(device, "loss", [Field("loss", (1,))])
        self.saved = Arena(device, "activations", activations(model, B, S, act))
        weights = ParameterTensors(self.weights, model)
        of_output_layer = fused_output_layer(model, B * S, act, device) if output_layer else []
        self.token_layers, fused = fused_layers(device, model, weights, self.saved, B * S, drop_probability)
        table = activation_gradients(model, B, S, act, of_output_layer, fused)
        self.scratch = Arena(device, "activation_gradients", table)
        for name, values in draw_weights(model).items():
            device.write(self.weights[name], values.astype(act.numpy))
        device.write(self.inputs["counters"], COUNTERS)

        given = [self.weights.flat, self.inputs.flat, self.loss.flat, self.gradients.flat]
        network = Network(
            model, weights, self.saved, self.inputs["tokens"], self.inputs["starts"], token_layers=self.token_layers,
            drop_probability=drop_probability, counters=self.inputs["counters"],
        )  # fmt: skip
        self.forward, self.training = (Plan(device, name, given, act) for name in ("forward", "training"))
        network.forward(self.forward)
        network.logits(self.forward)
        network.forward(self.training)
        passed_back = ParameterTensors(self.gradients, model), self.scratch
        network.training_loss(self.training, self.loss["loss"], self.inputs["targets"], 1 / (B * S), *passed_back)
        network.backward(self.training, *passed_back)

    @property
    def arenas(self) -> list[Arena]:
        return [self.weights, self.gradients, self.inputs, self.loss, self.saved, self.scratch]

    def logits(self, tokens: np.ndarray) -> np.ndarray:
        """Return the logits (B, S, V) of tokens (B, S)."""
        self.device.write(self.inputs["tokens"], tokens)
        self.forward.run()
        return self.device.read(self.saved["logits"]).reshape(*tokens.shape, -1)

    def train(self, tokens: np.ndarray, targets: np.ndarray) -> None:
        """Add the mean loss of a batch (B, S) and its gradients to `loss` and `gradients`."""
        self.device.write(self.inputs["tokens"], tokens)
        self.device.write(self.inputs["targets"], targets.ravel())
        self.training.run()

    def read_gradients(self) -> dict[str, np.ndarray]:
        """Return `loss` and every gradient, by the name of the field."""
        gradients = {field.name: self.device.read(self.gradients[field.name]) for field in self.gradients.fields}
        return {"loss": self.device.read(self.loss["loss"])[0]} | gradients


def write_bf16_values(device: Device, weights: Arena) -> None:
    """Give weights random values that bf16 holds exactly, under which every term matters."""
    random = np.random.default_rng(1)
    for field in weights.fields:
        std = 0.3 if len(field.shape) == 1 else field.shape[1] ** -0.5
        values = field.mean + std * random.normal(size=field.shape)
        device.write(weights[field.name], values.astype(DType.BF16.numpy).astype(field.dtype.numpy))


def trained(device: Device, model: ModelConfig, sequences: int, act: DType, output_layer: bool = True) -> RecordedModel:
    """Return a model with the loss and the gradients of a batch, from weights that bf16 holds exactly."""
    recorded = RecordedModel(device, model, sequences, act=act, output_layer=output_layer)
    write_bf16_values(device, recorded.weights)
    recorded.train(*draw_batch(model, sequences))
    return recorded
