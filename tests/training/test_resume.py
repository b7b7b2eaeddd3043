"""Interrupted and resumed runs give the same bytes as undisturbed ones; states of other runs are not loaded."""

import dataclasses
import os
import re
import signal
import time

import numpy as np
import pytest
from support.workflow_copy import Project

from hipgpt.base.errors import UserError
from hipgpt.compute.open_device import open_device
from hipgpt.config.settings import ModelConfig, TrainingConfig
from hipgpt.data.tokens import Tokens
from hipgpt.gpt.checkpoint import load_checkpoint
from hipgpt.training.loop import Interrupted, Run
from hipgpt.training.validation import Splits

pytestmark = pytest.mark.slow

MODEL = ModelConfig(50, 16, 1, 2, 16, 8, "gelu", tie_embeddings=False, output_bias=True)
TRAINING = TrainingConfig(
    seed=3, steps=30, batch_sequences=4, accumulation_steps=2, learning_rate_peak=1e-2,
    learning_rate_floor_fraction=0.1, warmup_fraction=0.1, beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1,
    clip_norm=1.0, drop_probability=0.1, precision="auto", log_every_steps=4, validate_every_steps=7,
    validation_windows=9, save_every_steps=5, keep_last=2, sample_every_steps=10, sample_prompt="a", sample_tokens=1,
)  # fmt: skip
CSVS = ("metrics.csv", "validation.csv")
LONG_RUN = ("results/runs/default/run.json", "--config")
LONG_RUN += ("training={steps: 2000, validate_every_steps: 200, save_every_steps: 300}",)
FINGERPRINT = {"model": dataclasses.asdict(MODEL), "tokenizer_sha256": "t", "code": "c"}


def make_run(folder, training=TRAINING, fingerprint=FINGERPRINT, threads=1, model=MODEL):
    random = np.random.default_rng(0)
    train, validation = (Tokens([random.integers(0, 50, size).astype(np.uint16)]) for size in (999, 200))
    splits = Splits(train, validation, np.ones(50, np.int64))
    device = open_device("cpu", threads)
    return Run(model, training, device, splits, folder, fingerprint, sampler=lambda weights: "sample")


def stop_before_step(run: Run, step: int, action) -> None:
    """Make the run call `action` when it is about to train `step`."""
    train = run.trainer.step

    def train_or_act(now):
        if now == step:
            action()
        train(now)

    run.trainer.step = train_or_act


def files(folder) -> dict[str, bytes]:
    names = [*CSVS, "training_samples.txt", "checkpoints/best.safetensors", "checkpoints/last.safetensors"]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    make_run(folder).run()
    return files(folder)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_with_muon_and_wsd_resumes_with_the_same_bytes(tmp_path, precision):
    training = dataclasses.replace(TRAINING, optimizer="muon", schedule="wsd", precision=precision)
    make_run(tmp_path / "undisturbed", training).run()
    run = make_run(tmp_path / "stopped", training)
    stop_before_step(run, 11, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted):
        run.run()
    make_run(tmp_path / "stopped", training, threads=2).run()
    assert files(tmp_path / "stopped") == files(tmp_path / "undisturbed")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 7, 10, 29])
def test_a_signal_finishes_the_step_and_the_resumed_run_gives_the_same_bytes(tmp_path, undisturbed, number, step):
    run = make_run(tmp_path)
    stop_before_step(run, step, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted, match=f"stopped after step {step} of 30, state saved"):
        run.run()
    assert not (tmp_path / "checkpoints").exists()
    for name in CSVS:  # Snakemake deletes the declared outputs of a failed job
        (tmp_path / name).unlink()
    make_run(tmp_path).run()
    assert files(tmp_path) == undisturbed


@pytest.mark.parametrize("step", [4, 14, 26])
def test_a_crash_between_saves_goes_back_to_the_last_state_and_gives_the_same_bytes(tmp_path, undisturbed, step):
    class Crash(Exception):
        pass

    def crash():
        raise Crash

    run = make_run(tmp_path)
    stop_before_step(run, step, crash)
    with pytest.raises(Crash):
        run.run()
    make_run(tmp_path).run()
    assert files(tmp_path) == undisturbed


def test_the_number_of_threads_changes_no_byte(tmp_path, undisturbed):
    make_run(tmp_path, threads=2).run()
    assert files(tmp_path) == undisturbed


def test_a_seed_changes_the_run(tmp_path, undisturbed):
    make_run(tmp_path, dataclasses.replace(TRAINING, seed=4)).run()
    assert files(tmp_path)["metrics.csv"] != undisturbed["metrics.csv"]


@pytest.mark.parametrize("key, value", [("model", {"embed_dim": 8}), ("tokenizer_sha256", "u"), ("code", "d")])
def test_a_state_of_another_config_data_or_code_is_refused(tmp_path, undisturbed, caplog, key, value):
    foreign = make_run(tmp_path, fingerprint={**FINGERPRINT, key: value})
    stop_before_step(foreign, 12, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted):
        foreign.run()
    with caplog.at_level("INFO", "hipgpt"):
        make_run(tmp_path).run()
    assert "this state belongs to another run" in caplog.text and key in caplog.text
    assert files(tmp_path) == undisturbed


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_last_good_state(tmp_path):
    run = make_run(tmp_path)
    weights = run.trainer.weights.flat
    poison = np.full(weights.shape, np.nan, np.float32)

    def spoil() -> None:
        run.trainer.device.write(weights, poison)
        run.trainer.weights_written()

    stop_before_step(run, 13, spoil)
    with pytest.raises(UserError, match=r"step 13: loss is nan.*last good state is .*step_00000010.*learning_rate"):
        run.run()
    assert b"nan" not in (tmp_path / "metrics.csv").read_bytes()


def test_keep_last_states_are_kept_and_best_holds_the_lowest_validation_loss(tmp_path):
    run = make_run(tmp_path)
    run.run()
    assert run.states.steps() == [25, 30]
    rows = [line.split(",") for line in (tmp_path / "validation.csv").read_text().splitlines()[1:]]
    best = min(rows, key=lambda row: float(row[2]))
    _, metadata = load_checkpoint(tmp_path / "checkpoints" / "best.safetensors")
    assert metadata["step"] == int(best[0])
    assert metadata["validation_loss_nats_per_token"] == pytest.approx(float(best[2]), rel=1e-6)


@pytest.mark.parametrize("name", ["best.safetensors", "step_00000010/metrics.csv"])
def test_a_lost_file_of_the_state_costs_steps_but_changes_no_byte(tmp_path, undisturbed, name):
    run = make_run(tmp_path)
    stop_before_step(run, 12, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted):
        run.run()
    (run.states.folder / name).unlink()
    make_run(tmp_path).run()
    assert files(tmp_path) == undisturbed


def test_a_context_longer_than_the_data_is_refused_before_anything_is_allocated(tmp_path):
    with pytest.raises(UserError, match="context_length.* 10000000"):
        make_run(tmp_path, model=dataclasses.replace(MODEL, context_length=10**7))


def test_a_vocabulary_that_is_not_the_tokenizer_s_is_refused(tmp_path):
    with pytest.raises(UserError, match="vocab_size: got 60, but the tokenizer has 50 tokens"):
        make_run(tmp_path, model=dataclasses.replace(MODEL, vocab_size=60))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Project:
    project = Project(tmp_path_factory.mktemp("uninterrupted"))
    project.snakemake(*LONG_RUN)
    return project


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])  # Ctrl-C in the terminal; a cluster's time limit
def test_a_signal_to_every_process_saves_and_the_next_snakemake_gives_the_same_csvs(tmp_path, uninterrupted, number):
    project = Project(tmp_path / "interrupted")
    process = project.start(*LONG_RUN)
    log = project.folder / "results/runs/default/logs/train.log"
    while not (log.exists() and "step 400: validation" in log.read_text()):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.02)
    os.killpg(process.pid, number)
    output, _ = process.communicate(timeout=60)
    assert "state saved; the same command continues from there" in output and "Traceback" not in output
    assert process.returncode != 0
    stopped = re.search(r"stopped after step (\d+) of", output)[1]
    assert f"resuming after step {stopped} of" in project.snakemake(*LONG_RUN)
    for name in CSVS:
        path = f"results/runs/default/{name}"
        assert (project.folder / path).read_bytes() == (uninterrupted.folder / path).read_bytes()
