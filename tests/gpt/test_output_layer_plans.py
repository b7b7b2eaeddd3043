"""Training with two launches for the output layer: which plans have them, and the numbers of four but for roundings."""

import dataclasses

import numpy as np
import pytest
from support.devices import null_gpu, on_a_hopper
from support.launch_order import order_of
from support.recorded_model import RecordedModel, trained

from hipgpt.compute.backends.cpu import CpuDevice
from hipgpt.compute.fused_ops import OUTPUT_LAYER_LOSS, OUTPUT_LAYER_WEIGHT, TOKEN_LAYERS_BACKWARD
from hipgpt.compute.tensor import DType
from hipgpt.config.settings import ModelConfig

S1 = ModelConfig(5000, 128, 2, 4, 256, 32, activation="gelu", tie_embeddings=False, output_bias=True)
SEQUENCES = 64
MODELS = {
    "S1": S1,
    "without a bias": dataclasses.replace(S1, output_bias=False),
    "tied": dataclasses.replace(S1, tie_embeddings=True, output_bias=False),
    "64 channels, an odd vocabulary": dataclasses.replace(S1, embed_dim=64, vocab_size=5003),
    "a Llama": dataclasses.replace(S1, architecture="llama", activation="swiglu", output_bias=False),
}
TOGETHER = ["output_layer_loss", "output_layer_weight"]
SEPARATE = ["matmul_forward", "matmul_backward_weight", "matmul_backward_input"]  # and the loss, which reads no weight


def of_output_layer(recorded: RecordedModel) -> list[str]:
    """Return the ops of a training step that read or write the weight of the output layer or its gradient."""
    name = "token_embedding.weight" if recorded.model.tie_embeddings else "output.weight"
    found = [
        launch.op.name
        for launch in recorded.training.launches
        if any(tensor is not None and tensor.name.endswith(name) for tensor in launch.tensors)
    ]
    return [op for op in found if "embedding" not in op]


def planned(model: ModelConfig, sequences: int = SEQUENCES, act: DType = DType.BF16, arch: str = "sm_90a") -> list[str]:
    return of_output_layer(RecordedModel(null_gpu(arch), model, sequences, act=act))


@pytest.mark.parametrize("name", MODELS)
def test_a_hopper_takes_two_launches(name):
    assert planned(MODELS[name]) == TOGETHER


@pytest.mark.parametrize(
    ("model", "options"),
    [
        pytest.param(S1, {"act": DType.F32}, id="f32"),
        pytest.param(S1, {"arch": "sm_80"}, id="a GPU without the ops"),
        pytest.param(S1, {"sequences": 31}, id="too few tokens"),
        pytest.param(dataclasses.replace(S1, embed_dim=256), {}, id="256 channels"),
        pytest.param(dataclasses.replace(S1, vocab_size=1023), {}, id="a small vocabulary"),
    ],
)
def test_others_take_four(model, options):
    assert planned(model, **options) == SEPARATE


def test_the_backward_pass_does_not_wait_for_the_gradient_of_the_weight():
    found = RecordedModel(null_gpu(), S1, SEQUENCES, act=DType.BF16).training.launches
    ops = [launch.op for launch in found]
    before = order_of(found)[ops.index(TOKEN_LAYERS_BACKWARD)]
    assert ops.index(OUTPUT_LAYER_LOSS) in before and ops.index(OUTPUT_LAYER_WEIGHT) not in before


@on_a_hopper
@pytest.mark.parametrize("name", MODELS)
def test_two_launches_are_as_close_to_f32_as_four_are(device, name):
    model = MODELS[name]
    sizes = {"N": SEQUENCES * model.context_length, "C": model.embed_dim, "V": model.vocab_size}
    if not device.traits.workspace(OUTPUT_LAYER_LOSS, sizes, DType.BF16):
        pytest.skip(f"{device.name} has no output layer in two launches")
    two, four = (trained(device, model, SEQUENCES, DType.BF16, output_layer) for output_layer in (True, False))
    assert (of_output_layer(two), of_output_layer(four)) == (TOGETHER, SEPARATE)
    exact = trained(CpuDevice(2), model, SEQUENCES, DType.F32).read_gradients()
    # Both round to bf16, two launches less often. A single tensor's error is as random as its roundings.
    fused, separate = (
        np.array([np.linalg.norm(found[name] - exact[name]) / np.linalg.norm(exact[name]) for name in exact])
        for found in (two.read_gradients(), four.read_gradients())
    )
    assert np.linalg.norm(fused) <= 1.1 * np.linalg.norm(separate)
    assert (fused <= 2 * separate + 1e-4).all(), [
        name for name, wrong in zip(exact, fused > 2 * separate + 1e-4, strict=True) if wrong
    ]
