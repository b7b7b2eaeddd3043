"""A tiny model trained on `device: hip`, the stand-in: metrics as near to the CPU's as roundings move these.

Run by tests/compute/test_fakehip.py, in a process that loads the stand-in as its HIP.
"""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from support import curves

from hipgpt.compute.backends.cpu import CpuDevice
from hipgpt.compute.open_device import open_device
from hipgpt.config.settings import ModelConfig, TrainingConfig
from hipgpt.data.tokens import Tokens
from hipgpt.gpt.precision import PRECISIONS
from hipgpt.training.loop import Run
from hipgpt.training.validation import Splits

MODEL = ModelConfig(50, 16, 2, 2, 24, 8, "gelu", tie_embeddings=False, output_bias=True)
STEPS = 40
TRAINING = TrainingConfig(
    seed=3, steps=STEPS, batch_sequences=4, accumulation_steps=2, learning_rate_peak=1e-2,
    learning_rate_floor_fraction=0.1, warmup_fraction=0.1, beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1,
    clip_norm=1.0, drop_probability=0.1, precision="float32", log_every_steps=STEPS, validate_every_steps=STEPS,
    validation_windows=9, save_every_steps=STEPS, keep_last=1, sample_every_steps=STEPS, sample_prompt="a",
    sample_tokens=1,
)  # fmt: skip
CSV_DIGITS = 1e-6  # how far two numbers written with 7 digits each may be off, relatively

pytestmark = pytest.mark.gpu


def make_run(device, folder, precision: str = "float32", steps: int = STEPS) -> Run:
    random = np.random.default_rng(0)
    follows = random.permutation(MODEL.vocab_size)
    text = [0]
    for _ in range(1200):  # each token follows from the one before, but for one in eight
        text.append(int(random.integers(50)) if random.random() < 1 / 8 else int(follows[text[-1]]))
    splits = (Tokens([np.array(part, np.uint16)]) for part in (text[:1000], text[1000:]))
    fingerprint = {"tokenizer_sha256": "t"}
    training = dataclasses.replace(TRAINING, precision=precision, steps=steps)
    splits = Splits(*splits, np.ones(MODEL.vocab_size, np.int64))
    return Run(MODEL, training, device, splits, folder, fingerprint, sampler=lambda weights: "sample")


def files(folder) -> dict[str, bytes]:
    names = ("metrics.csv", "validation.csv", "checkpoints/last.safetensors")
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def hip():
    return open_device("hip")


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("cpu")
    make_run(CpuDevice(1), folder).run()
    return pd.read_csv(folder / "metrics.csv")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_metrics_equal_the_cpus_within_the_derived_bound(hip, on_cpu, tmp_path, precision):
    make_run(hip, tmp_path, precision).run()
    got = pd.read_csv(tmp_path / "metrics.csv")
    for exact in ("step", "tokens_seen", "learning_rate"):
        np.testing.assert_array_equal(got[exact], on_cpu[exact])
    reference = on_cpu["loss_nats_per_token"].to_numpy(np.float32)
    assert reference[-1] < 0.9 * reference[0]  # there was something to learn

    def cpu_trainer():
        return make_run(CpuDevice(1), tmp_path / "disturbed").trainer

    tolerance = curves.tolerance(cpu_trainer, reference, PRECISIONS[precision]) + CSV_DIGITS * reference
    distance = np.abs(got["loss_nats_per_token"].to_numpy() - reference)
    assert (distance <= tolerance).all(), np.max(distance / tolerance)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_rerun_gives_the_same_bytes_with_and_without_graphs(hip, tmp_path, precision):
    def train(name: str) -> dict[str, bytes]:
        make_run(hip, tmp_path / name, precision, steps=6).run()
        return files(tmp_path / name)

    first, again = train("first"), train("again")
    hip._graphs = False
    try:
        launch_by_launch = train("launch by launch")
    finally:
        hip._graphs = True
    assert first == again == launch_by_launch
