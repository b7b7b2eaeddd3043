"""The gradients of a block's weights: in one launch or in one for each, and none forgotten."""

import dataclasses

import pytest
from support.devices import null_gpu
from support.recorded_model import RecordedModel

from hipgpt.compute.catalogue import MATMUL_BACKWARD_WEIGHT
from hipgpt.compute.fused_ops import BLOCK_WEIGHTS
from hipgpt.compute.plan import Plan
from hipgpt.compute.tensor import Arena, DType, Field
from hipgpt.config.settings import ModelConfig
from hipgpt.gpt.parameters import ParameterTensors, parameters
from hipgpt.gpt.weight_gradients import LAYERS, WeightGradients

MODEL = ModelConfig(500, 256, 1, 4, 1024, 64, activation="gelu", tie_embeddings=False, output_bias=True)


def recorded(rows: int, layers=LAYERS, arch: str = "sm_90a", one_by_one: bool = False) -> list:
    """Return the launches for some layers of a block with so many rows."""
    device = null_gpu(arch)
    g = ParameterTensors(Arena(device, "gradients", parameters(MODEL)), MODEL)
    shapes = {layer: g.linear(f"block0.{layer}")[0].shape for layer in layers}
    fields = [
        Field(f"{layer}.{name}", (rows, width), DType.BF16)
        for layer, shape in shapes.items()
        for name, width in zip(("dy", "x"), shape, strict=True)
    ]
    given = Arena(device, "rows", fields)
    plan = Plan(device, "gradients", [given.flat, g.arena.flat], DType.BF16)
    gradients = WeightGradients(plan, g, MODEL, rows, one_by_one)
    for layer in layers:
        gradients.add("block0", layer, given[f"{layer}.dy"], given[f"{layer}.x"])
    gradients.finish_block()
    return plan.launches


@pytest.mark.parametrize("rows", [64, 2048, 8192, 65536, 1 << 20])
@pytest.mark.parametrize("layers", [LAYERS, LAYERS[:3]], ids=["a whole block", "no layer qkv"])
def test_every_layer_is_in_one_launch(layers, rows):
    launches = recorded(rows, layers)
    given = [tensor.name for launch in launches for tensor in launch.tensors if tensor is not None]
    for layer in layers:
        for name in (f"gradients.block0.{layer}.weight", f"rows.{layer}.dy", f"rows.{layer}.x"):
            assert given.count(name) == 1


def test_a_hopper_takes_a_block_at_once():
    assert [launch.op for launch in recorded(8192)] == [BLOCK_WEIGHTS]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"arch": "sm_80"}, id="a GPU without the op"),
        pytest.param({"one_by_one": True}, id="gradients that are overwritten"),
        pytest.param({"rows": 8191}, id="rows that 8 does not divide"),
    ],
)
def test_others_take_a_launch_for_each_layer(options):
    found = recorded(**({"rows": 8192} | options))
    assert [launch.op for launch in found] == [MATMUL_BACKWARD_WEIGHT] * len(LAYERS)


WIDE = ModelConfig(512, 1024, 2, 16, 4096, 1024, activation="gelu", tie_embeddings=False, output_bias=True)
LLAMA = {"architecture": "llama", "activation": "swiglu", "output_bias": False}
MODELS = {
    "a GPT-2": {},
    "between token layers": {"embed_dim": 256, "num_heads": 8, "mlp_dim": 1024},
    "a Llama": LLAMA,
    "grouped queries": {**LLAMA, "num_kv_heads": 4},
    "a Qwen3 with wide heads": {**LLAMA, "architecture": "qwen3", "num_kv_heads": 8, "head_dim": 128},
}


def products(model: ModelConfig, together: bool) -> dict[str, tuple]:
    """Return dy and x of each weight, and after how many other launches each of both was last written."""
    device = null_gpu(without=() if together else (BLOCK_WEIGHTS,))
    launches = RecordedModel(device, model, 8, act=DType.BF16).training.launches
    assert (BLOCK_WEIGHTS in [launch.op for launch in launches]) is together
    others, written, found = 0, [], {}
    for launch in launches:
        half = len(launch.tensors) // 2
        if launch.op is BLOCK_WEIGHTS:  # weights and biases, then factors
            triples = zip(launch.tensors[:half:2], launch.tensors[half::2], launch.tensors[half + 1 :: 2], strict=True)
        elif launch.op is MATMUL_BACKWARD_WEIGHT:
            triples = [(launch.tensors[0], *launch.tensors[2:])]
        else:
            others += 1
            written += [
                (others, tensor)
                for argument, tensor in zip(launch.op.arguments, launch.tensors, strict=True)
                if argument.writes and tensor is not None
            ]
            continue
        for dweight, *factors in triples:
            if dweight is not None:
                found[dweight.name] = [
                    (factor.name, max(number for number, tensor in written if tensor.overlaps(factor)))
                    for factor in factors
                ]
    return found


@pytest.mark.parametrize("name", MODELS)
def test_one_launch_multiplies_what_many_do(name):
    """The same tensors, which no launch in between has overwritten."""
    model = dataclasses.replace(WIDE, **MODELS[name])
    together = products(model, together=True)
    assert together == products(model, together=False)
    assert len(together) == 4 * model.num_layers + 1
