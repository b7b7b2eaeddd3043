"""Training on a GPU or in bf16 has the loss curve of the CPU in f32, and gives the same bytes each time."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from support import curves
from support.training_settings import training_config

from hipgpt.compute.backends.cpu import CpuDevice
from hipgpt.compute.device import DeviceAbsent
from hipgpt.compute.open_device import open_device
from hipgpt.compute.tensor import DType
from hipgpt.config.settings import ModelConfig
from hipgpt.data.batches import Batches
from hipgpt.data.tokens import Tokens
from hipgpt.gpt.blocking import sequences_at_once
from hipgpt.gpt.checkpoint import read_arena
from hipgpt.gpt.precision import PRECISIONS, on_device
from hipgpt.training.step import Trainer
from hipgpt.training.validation import Splits, ValidationSet

STEPS, DTYPES = 200, PRECISIONS.values()
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
TRAINING = training_config(**SETTINGS)


def text() -> Tokens:
    """Return tokens that can be learned: seven of eight follow from the token before."""
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


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.gpu) for name in ("cuda", "hip")])
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


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_gpu_s_losses_stay_as_near_as_roundings_move_them(gpu, reference, precision):
    check(train(gpu, precision)[0], reference, precision)


def test_losses_in_bf16_on_the_cpu_stay_as_near_as_roundings_move_them(reference):
    losses, weights = train(CpuDevice(2), "bfloat16")
    check(losses, reference, "bfloat16")
    assert (losses != reference).any()
    for threads in (1, 3):
        again, weights_again = train(CpuDevice(threads), "bfloat16")
        np.testing.assert_array_equal(again, losses)
        for name, values in weights.items():
            np.testing.assert_array_equal(weights_again[name], values, err_msg=name)


@pytest.mark.parametrize("at_once", [1, 4])
def test_groups_of_sequences_change_losses_no_more_than_roundings_do(monkeypatch, reference, at_once):
    whole = trainer_on(CpuDevice(2), "float32")
    monkeypatch.setattr("hipgpt.gpt.blocking.sequences_at_once", lambda *arguments: at_once)
    grouped = trainer_on(CpuDevice(2), "float32")
    assert (whole.blocking.sequences, grouped.blocking.sequences) == (TRAINING.batch_sequences, at_once)
    check(curves.losses(grouped), reference, "float32")


def test_groups_of_sequences_give_the_same_validation(monkeypatch):
    whole = trainer_on(CpuDevice(2), "float32")
    monkeypatch.setattr("hipgpt.gpt.blocking.sequences_at_once", lambda *arguments: 4)
    grouped = trainer_on(CpuDevice(2), "float32")
    splits = Splits(text(), text(), np.arange(MODEL.vocab_size) % 5 + 1)
    windows = ValidationSet(splits, MODEL, dataclasses.replace(TRAINING, validation_windows=27))  # 3 of 4 in the last
    for trainer in (whole, grouped):
        trainer.initialize()
    np.testing.assert_allclose(windows.measure(grouped.score), windows.measure(whole.score), rtol=1e-6)


SHAPES = {  # embed, layers, mlp, vocabulary, context, sequences, cache_bytes, dtype, how many sequences suit the caches
    "S1 in f32": (128, 2, 256, 5000, 32, 64, 8 << 20, DType.F32, 16),
    "S1 in bf16": (128, 2, 256, 5000, 32, 64, 8 << 20, DType.BF16, 32),
    "a number without such divisors": (128, 2, 256, 5000, 32, 61, 8 << 20, DType.F32, 61),
    "activations that leave the caches anyway": (256, 8, 1024, 5000, 256, 8, 8 << 20, DType.F32, 8),
    "all fit": (32, 2, 64, 5000, 32, 64, 8 << 20, DType.F32, 64),
    "a GPU": (128, 2, 256, 5000, 32, 64, None, DType.F32, 64),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_sequences_at_once_fit_the_caches(shape):
    embed, layers, mlp, vocabulary, context, sequences, cache_bytes, act, expected = shape
    model = ModelConfig(vocabulary, embed, layers, 4, mlp, context, "gelu", tie_embeddings=False, output_bias=False)
    assert sequences_at_once(model, sequences, context, act, cache_bytes) == expected


def check(losses: np.ndarray, reference: np.ndarray, precision: str) -> None:
    tolerance = curves.tolerance(lambda: trainer_on(CpuDevice(2), "float32"), reference, PRECISIONS[precision])
    assert (np.abs(losses - reference) <= tolerance).all(), np.max(np.abs(losses - reference) / tolerance)


@pytest.mark.parametrize("fastest", DTYPES)
def test_auto_is_the_precision_that_the_device_is_fastest_with(fastest):
    device = SimpleNamespace(traits=SimpleNamespace(act_dtypes=(fastest, *DTYPES)))
    auto = dataclasses.replace(TRAINING, precision="auto")
    assert PRECISIONS[on_device(auto, device).precision] is fastest
    assert on_device(dataclasses.replace(auto, precision="float32"), device).precision == "float32"


@pytest.mark.parametrize("precision", PRECISIONS)
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
