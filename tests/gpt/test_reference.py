"""The GPT-2 in NumPy equals float64 autograd to rounding, and the kernels equal it within their tolerance."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from support import model_reference
from support.recorded_model import MODEL, RecordedModel, draw_batch, draw_weights

from hipgpt.base.paths import ROOT
from hipgpt.compute.open_device import open_device
from hipgpt.gpt.parameters import parameters
from hipgpt.gpt.reference import initial_weights, loss_and_gradients

WEIGHTS = {name: values.astype(np.float64) for name, values in draw_weights(MODEL).items()}
BATCH = draw_batch(MODEL, 3)


def numpy_gradients() -> model_reference.Values:
    loss, gradients = loss_and_gradients(WEIGHTS, *BATCH, heads=MODEL.num_heads)
    return {"loss": loss, **gradients}


def test_loss_and_every_gradient_equal_autograd_s():
    expected, got = model_reference.gradients(WEIGHTS, MODEL, *BATCH), numpy_gradients()
    assert got.keys() == expected.keys() == {"loss"} | {field.name for field in parameters(MODEL)}
    for name, values in expected.items():
        assert np.linalg.norm(got[name] - values) <= 1e-12 * max(1, np.linalg.norm(values)), name


def test_the_kernels_compute_the_same():
    recorded, expected = RecordedModel(open_device("cpu", 2), MODEL), numpy_gradients()
    recorded.train(*BATCH)
    got = recorded.read_gradients()
    for name, tolerance in model_reference.tolerances(WEIGHTS, MODEL, *BATCH).items():
        assert np.linalg.norm(got[name] - expected[name]) <= tolerance, name


def test_the_initial_weights_are_those_of_the_table_of_parameters():
    model = dataclasses.replace(MODEL, vocab_size=9)
    sizes = model.vocab_size, model.embed_dim, model.num_layers, model.mlp_dim, model.context_length
    assert {name: array.shape for name, array in initial_weights(*sizes).items()} == {
        field.name: field.shape for field in parameters(model)
    }


@pytest.mark.slow
def test_it_learns_when_it_is_run():
    program = [sys.executable, "-m", "hipgpt.gpt.reference"]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    losses = [float(line.split()[3]) for line in done.stdout.splitlines()]
    assert len(losses) == 10 and losses[0] > 2.5 and losses[-1] < 2
