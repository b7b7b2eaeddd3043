"""The kernels of a training, of its validations and of its samples are compiled together, before its first step."""

import dataclasses
import io

import numpy as np
import pytest
from support import tiny
from test_resume import TRAINING

from hipgpt.base import log
from hipgpt.compute.backends import cpu
from hipgpt.compute.open_device import open_device
from hipgpt.compute.plan import compile_together
from hipgpt.data.tokens import Tokens
from hipgpt.inference.samples import TrainingSampler
from hipgpt.training.loop import Run
from hipgpt.training.validation import Splits


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_after_compile_together_a_run_needs_no_further_kernel(tmp_path, monkeypatch, precision, optimizer):
    asked = []  # the kernels of each call
    compile = cpu._compile
    monkeypatch.setattr(cpu, "_compile", lambda wanted, threads: (asked.append(set(wanted)), compile(wanted, threads)))
    changes = {"optimizer": optimizer, "precision": precision, "steps": 4, "sample_every_steps": 2, "sample_tokens": 9}
    training = dataclasses.replace(TRAINING, **changes, sample_prompt="to be, or not to be")
    tokenizer, device = tiny.tokenizer(), open_device("cpu", 1)
    splits = Splits(*(Tokens([np.arange(300).astype(np.uint16)]) for _ in range(2)), np.ones(300, np.int64))
    sampler = TrainingSampler(device, tiny.MODEL, training, tokenizer)
    run = Run(tiny.MODEL, training, device, splits, tmp_path, {"tokenizer_sha256": tokenizer.sha256}, sampler)
    compile_together([*run.trainer.plans, *sampler.plans(run.trainer.compute_weights)])
    assert len(asked) == 1
    run.run()
    assert len(asked) > 4 and set().union(*asked) == asked[0]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_shown_from_its_first_update_because_kernels_may_be_compiled_before(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    with log.bar(100, "default") as shown:
        assert log.sys.stderr.getvalue() == ""
        shown.mininterval = 0  # of seconds, to the next drawing
        shown.update(100)
        assert "100% |" in log.sys.stderr.getvalue()


def test_the_bar_of_a_training_is_shown_before_its_first_step(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    with log.Progress(100, 0, "default"):
        assert "  0% |" in log.sys.stderr.getvalue()
