"""The hand-written gradients of the whole model, compared with autograd on an independent float64 model."""

import dataclasses
import functools

import numpy as np
import pytest
from support import model_reference
from support.devices import every_device_in_every_dtype
from support.recorded_model import MODEL, RecordedModel, draw_batch, draw_weights

from hipgpt.compute.backends.cpu import CpuDevice
from hipgpt.compute.tensor import DType
from hipgpt.config.settings import ModelConfig

UNTIED = {"tie_embeddings": False, "output_bias": True}
GPT2 = {"tie_embeddings": True, "output_bias": False}
LLAMA = {"architecture": "llama", "activation": "swiglu", "output_bias": False}
VARIANTS = {
    "llama": (LLAMA, 0.0),
    "llama, tied, dropout": ({**LLAMA, "tie_embeddings": True}, 0.25),
    "llama, grouped queries": ({**LLAMA, "num_heads": 4, "num_kv_heads": 2, "rope_base": 100.0}, 0.0),
    "qwen3": ({**LLAMA, "architecture": "qwen3"}, 0.0),
    "qwen3, one key, wide heads": (
        {**LLAMA, "architecture": "qwen3", "num_heads": 3, "num_kv_heads": 1, "head_dim": 6},
        0.0,
    ),
    "qwen3, heads of 256 channels": (
        {**LLAMA, "architecture": "qwen3", "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "head_dim": 256},
        0.0,
    ),
    "gelu": ({"activation": "gelu", **UNTIED}, 0.0),
    "relu": ({"activation": "relu", **UNTIED}, 0.0),
    "relu2": ({"activation": "relu2", **UNTIED}, 0.0),
    "tied without bias": ({"activation": "gelu", **GPT2}, 0.0),
    "tied with bias": ({"activation": "gelu", "tie_embeddings": True, "output_bias": True}, 0.0),
    "untied without bias": ({"activation": "gelu", "tie_embeddings": False, "output_bias": False}, 0.0),
    "dropout": ({"activation": "gelu", **UNTIED}, 0.25),
    "dropout, relu, tied": ({"activation": "relu", **GPT2}, 0.5),
    "one layer, one head": ({"num_layers": 1, "num_heads": 1}, 0.0),
}


every_variant = pytest.mark.parametrize("variant", VARIANTS)


@functools.cache
def expected(variant: str, act: DType) -> tuple[model_reference.Values, model_reference.Values]:
    """Return loss and gradients of a batch of 3 in float64, from weights rounded to `act`, and their tolerances."""
    model, drop_probability = model_of(variant)
    arguments = model, *draw_batch(model, 3), drop_probability
    weights = {name: values.astype(act.numpy).astype(np.float64) for name, values in draw_weights(model).items()}
    return model_reference.gradients(weights, *arguments), model_reference.tolerances(weights, *arguments, act=act)


def model_of(variant: str) -> tuple[ModelConfig, float]:
    """Return a variant's model and drop probability."""
    changes, drop_probability = VARIANTS[variant]
    return dataclasses.replace(MODEL, **changes), drop_probability


def distances(got, target):
    return {name: np.linalg.norm(np.asarray(got[name], np.float64) - target[name]) for name in target}


def beyond(distance, tolerance):
    """Return the distances that exceed their tolerance, by name."""
    return {name: (distance[name], tolerance[name]) for name in tolerance if not distance[name] <= tolerance[name]}


@every_variant
@every_device_in_every_dtype
def test_loss_and_gradients_equal_float64_autograd(device, act, variant):
    model, drop_probability = model_of(variant)
    target, tolerance = expected(variant, act)
    recorded = RecordedModel(device, model, drop_probability=drop_probability, act=act)
    recorded.train(*draw_batch(model, 3))
    assert not beyond(distances(recorded.read_gradients(), target), tolerance)


@every_variant
@pytest.mark.parametrize("act", [DType.F32, DType.BF16], ids=lambda act: act.label)
def test_the_output_layer_by_four_ops_on_a_cpu(variant, act):
    """A GPU has these four ops. In the test above, the CPU uses its one op."""
    model, drop_probability = model_of(variant)
    target, tolerance = expected(variant, act)
    recorded = RecordedModel(CpuDevice(2), model, drop_probability=drop_probability, act=act, output_layer=False)
    recorded.train(*draw_batch(model, 3))
    assert not beyond(distances(recorded.read_gradients(), target), tolerance)


@every_variant
@pytest.mark.parametrize("act, part", [(DType.F32, 1e-3), (DType.BF16, 0.5)])
def test_tolerance_is_a_small_part_of_every_gradient(variant, act, part):
    """In bf16 the test can only detect a missing term or factor, because 8 bits pass through two layers and back."""
    target, tolerance = expected(variant, act)
    for name, norm in distances(target, dict.fromkeys(target, 0.0)).items():
        assert tolerance[name] < part * norm, name


@every_variant
def test_reference_gradients_are_its_finite_differences(variant):
    """Central differences at h are off by h^2/6 times the third derivative, and by the rounding of two losses / 2h."""
    model, drop_probability = model_of(variant)
    target, _ = expected(variant, DType.F32)
    batch, random, h = draw_batch(model, 3), np.random.default_rng(5), 1e-5
    weights = {name: values.astype(np.float64) for name, values in draw_weights(model).items()}

    def difference(direction, h):
        plus, minus = (
            model_reference.loss(
                {name: values + sign * h * direction[name] for name, values in weights.items()},
                model, *batch, drop_probability,
            )
            for sign in (1, -1)
        )  # fmt: skip
        return (plus - minus) / (2 * h)

    for _ in range(3):
        direction = {name: random.normal(size=values.shape) for name, values in weights.items()}
        slope = sum(np.sum(target[name] * direction[name]) for name in weights)
        once, twice = difference(direction, h), difference(direction, 2 * h)
        truncation = abs(twice - once)  # h^2 f'''/2: three times that of `once`
        rounding = sum(values.size for values in weights.values()) * 2.0**-53 * target["loss"] / h
        assert abs(once - slope) <= truncation + rounding


def test_two_micro_batches_add_up_to_one_batch_of_twice_the_size(device):
    tokens, targets = draw_batch(MODEL, 6)
    whole, parts = RecordedModel(device, MODEL, sequences=6), RecordedModel(device, MODEL, sequences=3)
    whole.train(tokens, targets)
    for part in (slice(0, 3), slice(3, 6)):
        parts.train(tokens[part], targets[part])
    summed = {name: values / 2 for name, values in parts.read_gradients().items()}
    weights = {name: values.astype(np.float64) for name, values in draw_weights(MODEL).items()}
    tolerance = model_reference.tolerances(weights, MODEL, tokens, targets)
    assert not beyond(distances(summed, whole.read_gradients()), tolerance)
