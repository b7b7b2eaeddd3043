"""The step of a Trainer takes the ops that its device has for several layers."""

import dataclasses

import pytest
from support.devices import null_gpu
from support.rank import TRAINING, tokens

from hipgpt.compute.backends import cpu
from hipgpt.compute.backends.null import NullDevice
from hipgpt.compute.catalogue import MATMUL_FORWARD, OUTPUT_LAYER_TRAINING
from hipgpt.compute.fused_ops import OUTPUT_LAYER_LOSS, OUTPUT_LAYER_WEIGHT
from hipgpt.compute.tensor import DType
from hipgpt.config.settings import ModelConfig
from hipgpt.training.step import trainer_of

S1 = ModelConfig(5000, 128, 2, 4, 256, 32, activation="gelu", tie_embeddings=False, output_bias=True)
OF_OUTPUT_LAYER = {MATMUL_FORWARD, OUTPUT_LAYER_TRAINING, OUTPUT_LAYER_LOSS, OUTPUT_LAYER_WEIGHT}


@pytest.mark.parametrize(
    ("device", "ops"),
    [
        pytest.param(null_gpu(), {OUTPUT_LAYER_LOSS, OUTPUT_LAYER_WEIGHT}, id="a Hopper"),
        pytest.param(null_gpu("sm_80"), {MATMUL_FORWARD}, id="a GPU without ops for it"),
        pytest.param(NullDevice(cpu.traits((DType.BF16,))), {OUTPUT_LAYER_TRAINING}, id="a CPU"),
    ],
)
def test_the_output_layer_takes_the_ops_of_its_device(device, ops):
    training = dataclasses.replace(TRAINING, batch_sequences=64, precision="bfloat16", optimizer="adamw")
    trainer = trainer_of(S1, training, device, tokens())
    reading = [launch for launch in trainer.last_plan.launches if reads(launch, "output.weight")]
    assert {launch.op for launch in reading} & OF_OUTPUT_LAYER == ops


def reads(launch, name: str) -> bool:
    """Return whether an op reads a weight of that name."""
    names = [tensor.name for tensor in launch.tensors if tensor is not None]
    return any(found.endswith(name) for found in names)
