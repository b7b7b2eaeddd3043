"""`hipgpt info`: the figures from the null device equal those of a real run."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import pytest
from support.workflow_copy import ROOT, TINY, Project

from hipgpt.cli import info
from hipgpt.compute.backends.cpu import traits
from hipgpt.compute.backends.null import NullDevice
from hipgpt.compute.open_device import open_device
from hipgpt.compute.tensor import DType
from hipgpt.config.reading import read_config
from hipgpt.data.batches import Batches
from hipgpt.gpt.decoder import Decoder
from hipgpt.gpt.parameters import parameter_count
from hipgpt.pipeline.sweeps import load_runs
from hipgpt.training.estimate import HOST_BYTES, AnyTokens, estimate
from hipgpt.training.step import Trainer

RUN = load_runs(read_config(ROOT / "config.yaml")).runs["default"]
TRAITS = traits((DType.F32, DType.BF16))


PEAK_OF_CHILDREN = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


class Counting:
    """A device that counts the memory that another device allocates."""

    def __init__(self, device):
        self.device, self.allocated_bytes = device, 0

    def allocate(self, size_bytes: int):
        self.allocated_bytes += size_bytes
        return self.device.allocate(size_bytes)

    def __getattr__(self, name: str):
        return getattr(self.device, name)


@pytest.mark.parametrize("changes", [{}, {"drop_probability": 0.1}, {"accumulation_steps": 3}, {"batch_sequences": 5}])
def test_memory_is_what_a_trainer_allocates(changes):
    training, device = dataclasses.replace(RUN.training, **changes), Counting(open_device("cpu", 1))
    batches = Batches(AnyTokens(10_000), training.batch_sequences, RUN.model.context_length, training.seed)
    trainer = Trainer(RUN.model, training, device, batches)
    Decoder(device, RUN.model, trainer.compute_weights).restart([[0] * RUN.model.context_length])
    found = estimate(RUN.model, training, device.traits)
    allocations = 40  # each aligned to 64 bytes on the null device
    assert device.allocated_bytes <= found.device_bytes <= device.allocated_bytes + 128 * allocations
    assert found.arenas["weights"] >= 4 * parameter_count(RUN.model)
    assert found.arenas["weights"] == found.arenas["gradients"] == found.arenas["first_moment"]


def test_planning_grows_with_what_changes_and_not_with_accumulation_steps():
    launches = []
    for steps in (2, 1024):
        training = dataclasses.replace(RUN.training, accumulation_steps=steps)
        batches = Batches(AnyTokens(10_000_000), training.batch_sequences, RUN.model.context_length, training.seed)
        trainer = Trainer(RUN.model, training, NullDevice(TRAITS), batches)
        launches.append((len(trainer.micro_plan.launches), len(trainer.last_plan.launches)))
    assert launches[0] == launches[1]


def test_operations_are_those_of_the_plans_and_near_six_a_parameter_and_token():
    found = estimate(RUN.model, RUN.training, TRAITS)
    twice = estimate(RUN.model, dataclasses.replace(RUN.training, accumulation_steps=2), TRAITS)
    assert twice.ops["matmul_forward"].operations == 2 * found.ops["matmul_forward"].operations
    assert twice.ops["adamw"] == found.ops["adamw"]
    in_products = found.parameters - 5000 * 128 - 32 * 128  # the embeddings are looked up
    assert 6 * in_products * found.tokens_per_step <= found.step.operations < 7 * in_products * found.tokens_per_step


@pytest.mark.slow
def test_a_real_training_stays_within_the_estimate(tmp_path):
    project = Project(tmp_path)
    model = {"embed_dim": 256, "num_layers": 4, "num_heads": 4, "mlp_dim": 1024, "context_length": 64}
    training = {**TINY["training"], "steps": 2, "batch_sequences": 32}
    project.write_config({**TINY, "model": model, "training": training})
    command = project.command("results/runs/default/metrics.csv")
    # A small process measures, because a child's peak begins with the size of its parent.
    measured = [sys.executable, "-c", PEAK_OF_CHILDREN, *command]
    done = subprocess.run(measured, cwd=project.folder, env=project.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peak = 1024 * int(done.stdout.splitlines()[-1])
    run = load_runs(read_config(project.folder / "config.yaml", project.folder / "tiny.yaml")).runs["default"]
    found = estimate(run.model, run.training, TRAITS)
    assert found.device_bytes > HOST_BYTES / 4
    assert found.device_bytes / 2 < peak < found.device_bytes + found.host_bytes


def test_the_command_prints_tables_and_whether_it_fits(hipgpt):
    status, output, _ = hipgpt("info")
    assert status is None
    lines = output.splitlines()
    assert lines[:2] == ["no config.yaml here: the packaged default", "run default: 1,554,312 parameters"]
    assert any(line.split() == ["weights", "6,217,728", "0.006"] for line in lines)
    assert any(line.startswith("matmul_forward ") for line in lines) and any(
        line.startswith("a step ") for line in lines
    )
    assert lines[-2].startswith("1,500 steps of 2,048 tokens: 3,072,000 tokens, 1.83e+13 operations")
    assert lines[-1].startswith("fits: ")
    status, output, _ = hipgpt("info", "--memory-gib", "0.01")
    assert status == 1 and output.splitlines()[-1].startswith("does not fit: ")


def test_the_config_of_the_folder_needs_no_word(hipgpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("devices: 1")
    assert hipgpt("info", "--memory-gib", "1")[1].startswith("run default: ")


def test_a_measurement_gives_the_time_of_a_step_and_of_all(hipgpt):
    status, output, _ = hipgpt("info", "--measure")
    assert status is None
    number = r"([\d,.]+)"
    words = rf"measured here: {number} ms a step, {number} tokens/s, \S+ operations/s a device; (.*) for all steps"
    found = re.fullmatch(words, output.splitlines()[-2])
    milliseconds, tokens = (float(number.replace(",", "")) for number in found.groups()[:2])
    assert 2048 / tokens == pytest.approx(milliseconds / 1000, rel=0.01)
    assert re.fullmatch(r"[\d.]+ (s|minutes|hours)", found[3])
    document = json.loads(hipgpt("info", "--measure", "--json")[1])
    assert document["hours"] == 1500 * document["seconds_per_step"] / 3600 > 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.21, "0.2 s"), (59.9, "59.9 s"), (336, "5.6 minutes"), (11_160, "3.1 hours"), (7.2e6, "2,000.0 hours")],
)
def test_a_time_has_the_unit_that_people_would_use(seconds, text):
    assert info._duration(seconds) == text


def test_several_devices_share_the_batch_and_the_moments(hipgpt, tmp_path):
    (tmp_path / "two.yaml").write_text("devices: 2\ndevice: cuda\n")
    (tmp_path / "one.yaml").write_text("device: cuda\n")
    one, two = (
        json.loads(hipgpt("info", "--json", "--memory-gib", "8", "--configfile", str(tmp_path / name))[1])
        for name in ("one.yaml", "two.yaml")
    )
    assert (one["devices"], two["devices"]) == (1, 2)
    assert one["tokens_per_step"] == two["tokens_per_step"] and one["parameters"] == two["parameters"]
    assert one["operations"] < two["operations"] < 1.01 * one["operations"]  # the norm of all ranks' sums comes on top
    sizes = [{row["memory"]: row["bytes"] for row in found["memory"]} for found in (one, two)]
    assert sizes[1]["first_moment"] < 0.51 * sizes[0]["first_moment"]
    assert sizes[1]["activations"] == sizes[0]["activations"] / 2


def test_runs_of_a_sweep_and_of_other_files_are_found(hipgpt):
    scaling = str(ROOT / "configs" / "scaling.yaml")
    output = hipgpt("info", "--run", "ladder_embed_dim-64", "--configfile", scaling)[1]
    assert output.startswith("no config.yaml here: the packaged default and --configfile\nrun ladder_embed_dim-64: ")
    status, _, _ = hipgpt("info", "--run", "ladder", "--configfile", scaling)
    assert status.startswith("error: --run: no run 'ladder' in the config; it has ladder_embed_dim-")


def test_a_mistyped_run_is_answered_by_the_nearest_names_and_the_number_of_the_others(hipgpt, tmp_path):
    rates = [f"{number}e-3" for number in range(1, 21)]
    (tmp_path / "sweep.yaml").write_text(f"sweep: {{rates: {{grid: {{training.learning_rate_peak: {rates}}}}}}}")
    name = "rates_learning_rate_peak-0.007"
    status, _, _ = hipgpt("info", "--run", f"{name}7", "--configfile", str(tmp_path / "sweep.yaml"))
    found = re.fullmatch(r"error: --run: no run '\S+' in the config; it has (.*) and 16 more", status)[1].split(", ")
    assert found[0] == name and len(found) == 5


@pytest.mark.parametrize(
    ("options", "text", "message"),
    [
        ("--memory-gib nan", "", "--memory-gib: got nan, expected a number > 0"),
        ("--memory-gib -3", "", "--memory-gib: got -3.0, expected a number > 0"),
        ("--configfile {}.absent", "", "{}.absent: cannot be read as a config: No such file or directory"),
        ("--configfile {}", "[1, 2]", "{}: got a list, expected keys and values, as in config.yaml"),
        ("--configfile {}", "root:x:0:0", "{}: got a str, expected keys and values, as in config.yaml"),
        ("--configfile {}", "a: : b", "{}: not YAML (mapping values are not allowed here"),
        ("--configfile {}", b"\xff\x00", "{}: not YAML ('utf-8' codec can't decode byte 0xff"),
    ],
)
def test_a_mistake_is_one_line(hipgpt, tmp_path, options, text, message):
    file = tmp_path / "a.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    status, output, _ = hipgpt("info", *(option.format(file) for option in options.split()))
    assert status.startswith("error: " + message.format(file)) and "\n" not in status and output == ""


def test_the_size_of_gpt2_is_printed_without_allocating_it(tmp_path):
    config = "{model: {embed_dim: 768, num_layers: 12, num_heads: 12, mlp_dim: 3072, context_length: 1024, "
    config += "tie_embeddings: true, output_bias: false}, tokenizer: {vocab_size: 50257}}"
    (tmp_path / "gpt2.yaml").write_text(config)
    program = "from hipgpt.cli.main import main; main()"
    command = [sys.executable, "-c", program, "info", "--configfile", str(tmp_path / "gpt2.yaml"), "--memory-gib", "80"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("run default: 124,439,808 parameters")
