"""Training on a GPU: the CPU's curve, the same bytes from run to run, and the same with and without a graph."""

import dataclasses

import curves
import numpy as np
import pytest

from hipgpt.backends.cpu import CpuDevice
from hipgpt.backends.device import DeviceAbsent, open_device
from hipgpt.batches import Batches
from hipgpt.checkpoint import read_arena
from hipgpt.config import ModelConfig, TrainingConfig
from hipgpt.shards import Tokens
from hipgpt.tensor import DType
from hipgpt.trainer import Trainer

STEPS = 200
MODEL = ModelConfig(
    vocab_size=96,
    embed_dim=32,
    num_layers=2,
    num_heads=2,
    mlp_dim=64,
    context_length=16,
    activation="gelu",
    tie_embeddings=False,
    output_bias=True,
)
SETTINGS = {"seed": 1, "steps": STEPS, "batch_sequences": 8, "accumulation_steps": 2, "learning_rate_peak": 2e-3,
            "learning_rate_floor_fraction": 0.1, "warmup_fraction": 0.1, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8,
            "weight_decay": 0.1, "clip_norm": 1.0, "drop_probability": 0.1, "log_every_steps": STEPS}  # fmt: skip
TRAINING = TrainingConfig(**{field.name: SETTINGS.get(field.name, 0) for field in dataclasses.fields(TrainingConfig)})

pytestmark = pytest.mark.gpu


def text() -> Tokens:
    """Return tokens that can be learned: each follows from the one before, but for one in eight."""
    random = np.random.default_rng(3)
    follows, tokens = random.permutation(MODEL.vocab_size), [0]
    for surprise in random.random(5000) < 1 / 8:
        tokens.append(int(random.integers(MODEL.vocab_size)) if surprise else int(follows[tokens[-1]]))
    return Tokens([np.array(tokens, np.uint16)])


def trainer_on(device, precision: str) -> Trainer:
    training = dataclasses.replace(TRAINING, precision=precision)
    batches = Batches(text(), training.batch_sequences, MODEL.context_length, training.seed)
    return Trainer(MODEL, training, device, batches)


def train(device, precision: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the losses of STEPS steps and the weights."""
    trainer = trainer_on(device, precision)
    return curves.losses(trainer), read_arena(device, trainer.weights)


@pytest.fixture(scope="module", params=["cuda", "hip"])
def gpu(request):
    try:
        return open_device(request.param)
    except DeviceAbsent as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    losses, _ = train(CpuDevice(2), "float32")
    assert losses[-1] < 0.6 * losses[0]  # there was something to learn
    return losses


@pytest.mark.parametrize("precision, act", [("float32", DType.F32), ("bfloat16", DType.BF16)])
def test_losses_stay_as_near_to_the_cpu_s_as_roundings_move_them(gpu, reference, precision, act):
    tolerance = curves.tolerance(lambda: trainer_on(CpuDevice(2), "float32"), reference, act)
    losses, _ = train(gpu, precision)
    assert (np.abs(losses - reference) <= tolerance).all(), np.max(np.abs(losses - reference) / tolerance)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_rerun_gives_the_same_bytes_with_and_without_graphs(gpu, precision):
    losses, weights = train(gpu, precision)
    for graphs in (True, False):
        gpu._graphs = graphs
        try:
            again, weights_again = train(gpu, precision)
        finally:
            gpu._graphs = True
        np.testing.assert_array_equal(again, losses)
        for name, values in weights.items():
            np.testing.assert_array_equal(weights_again[name], values, err_msg=name)
