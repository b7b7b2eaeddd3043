"""Training with one launch for the layers between two attentions: the numbers of separate ops, but for roundings."""

import dataclasses
import itertools

import numpy as np
import pytest
from support.devices import null_gpu, on_a_hopper, skip_without, without_fused_ops
from support.launch_order import order_of
from support.recorded_model import RecordedModel, trained

from hipgpt.compute.backends.cpu import CpuDevice
from hipgpt.compute.fused_ops import BLOCK_WEIGHTS, TOKEN_LAYERS_BACKWARD
from hipgpt.compute.tensor import DType
from hipgpt.config.settings import ModelConfig


def gpt2(*sizes: int) -> ModelConfig:
    """V, E, L, H, F, T."""
    return ModelConfig(*sizes, activation="gelu", tie_embeddings=False, output_bias=True)


SMALL = gpt2(500, 128, 3, 4, 256, 32)
LLAMA = dataclasses.replace(SMALL, architecture="llama", activation="swiglu", output_bias=False)
MODELS = {
    "small": SMALL,
    "relu": dataclasses.replace(SMALL, activation="relu"),
    "relu2": dataclasses.replace(SMALL, activation="relu2"),
    "one block": dataclasses.replace(SMALL, num_layers=1),
    "an MLP as wide as the model": dataclasses.replace(SMALL, mlp_dim=128),
    "tied": dataclasses.replace(SMALL, tie_embeddings=True, output_bias=False),
    "256 channels": gpt2(500, 256, 3, 4, 1024, 64),
}
SEQUENCES = 12


def launches(recorded: RecordedModel) -> list[str]:
    return [launch.op.name for launch in recorded.training.launches]


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the relative error of an array in the Euclidean norm."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@on_a_hopper
@pytest.mark.parametrize("name", MODELS)
def test_one_launch_is_as_close_to_f32_as_many_are(device, name):
    skip_without(device, TOKEN_LAYERS_BACKWARD)
    model = MODELS[name]
    exact = trained(CpuDevice(2), model, SEQUENCES, DType.F32).read_gradients()
    fused = trained(device, model, SEQUENCES, DType.BF16)
    assert launches(fused).count("token_layers_forward") == launches(fused).count("token_layers_backward")
    assert launches(fused).count("token_layers_forward") == model.num_layers
    with without_fused_ops(device):
        separate = trained(device, model, SEQUENCES, DType.BF16)
    assert "token_layers_forward" not in launches(separate)
    # Both round activations to bf16; one rounds fewer of them, in another order. So their errors together are alike. A
    # single tensor's error is as random as its roundings: a factor of 2 between two draws of it is likely, 4 is not.
    one, many = (
        np.array([error(found[field], exact[field]) for field in exact])
        for found in (fused.read_gradients(), separate.read_gradients())
    )
    assert np.linalg.norm(one) <= 1.1 * np.linalg.norm(many)
    assert (one <= 2 * many + 1e-4).all(), [
        field for field, wrong in zip(exact, one > 2 * many + 1e-4, strict=True) if wrong
    ]


@on_a_hopper
def test_one_launch_gives_the_same_bytes_again(device):
    skip_without(device, TOKEN_LAYERS_BACKWARD)
    first, second = (trained(device, MODELS["256 channels"], SEQUENCES, DType.BF16).read_gradients() for _ in range(2))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def recorded(model: ModelConfig, sequences: int = SEQUENCES, act: DType = DType.BF16, **options: float) -> list[str]:
    return launches(RecordedModel(null_gpu(), model, sequences, act=act, **options))


@pytest.mark.parametrize("name", MODELS)
def test_a_block_has_one_launch_beside_its_attention_in_each_pass(name):
    found, L = recorded(MODELS[name]), MODELS[name].num_layers
    assert found.count("token_layers_forward") == found.count("token_layers_backward") == L
    assert found.count("layernorm_forward") == found.count("layernorm_backward") == 1
    assert found.count("matmul_forward") == 2  # the first layer qkv and the output layer


@pytest.mark.parametrize(
    ("model", "sequences", "act"),
    [
        pytest.param(SMALL, 14, DType.BF16, id="a half cluster of tokens"),
        pytest.param(dataclasses.replace(SMALL, mlp_dim=2176), 12, DType.BF16, id="an MLP too wide for shared memory"),
        pytest.param(LLAMA, 12, DType.BF16, id="a Llama"),
        pytest.param(SMALL, 12, DType.F32, id="f32"),
        pytest.param(dataclasses.replace(SMALL, mlp_dim=200), 12, DType.BF16, id="an MLP of no whole chunks"),
        pytest.param(gpt2(500, 192, 2, 4, 384, 32), 12, DType.BF16, id="192 channels"),
        pytest.param(gpt2(500, 512, 2, 4, 512, 32), 12, DType.BF16, id="512 channels"),
    ],
)
def test_other_models_take_separate_launches(model, sequences, act):
    assert "token_layers_forward" not in recorded(model, sequences, act)


def test_dropout_takes_separate_launches():
    assert "token_layers_forward" not in recorded(SMALL, drop_probability=0.1)


def test_a_block_waits_for_no_weight_gradient_of_the_block_after_it():
    found = RecordedModel(null_gpu(), SMALL, SEQUENCES, act=DType.BF16).training.launches
    order = order_of(found)
    passes = [index for index, launch in enumerate(found) if launch.op is TOKEN_LAYERS_BACKWARD]
    for earlier, later in itertools.pairwise(passes):
        between = [i for i in range(earlier, later) if found[i].op is BLOCK_WEIGHTS]
        assert len(between) == 1
        assert not order[later] & set(between)
