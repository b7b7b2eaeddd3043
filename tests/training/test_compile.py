"""Kernels of a training: all are compiled before its bar begins, those of its validation and its samples too."""

import numpy as np
import pytest
from support import tiny

from hipgpt.compute.backends import cpu
from hipgpt.compute.open_device import open_device
from hipgpt.config.settings import TrainingConfig
from hipgpt.data.tokens import Tokens
from hipgpt.inference.samples import TrainingSampler
from hipgpt.training.loop import Run
from hipgpt.training.validation import Splits

TRAINING = TrainingConfig(
    seed=3, steps=3, batch_sequences=4, accumulation_steps=2, learning_rate_peak=0.01, learning_rate_floor_fraction=0.1,
    warmup_fraction=0.1, beta1=0.9, beta2=0.99, epsilon=1e-8, weight_decay=0.1, clip_norm=1.0, drop_probability=0.1,
    precision="float32", log_every_steps=1, validate_every_steps=2, validation_windows=3, save_every_steps=2,
    keep_last=1, sample_every_steps=1, sample_prompt="the king", sample_tokens=20,
)  # fmt: skip


@pytest.mark.parametrize("prompt", ["a", "the king"])
def test_no_kernel_is_compiled_after_the_first_go(tmp_path, monkeypatch, prompt):
    wanted = []
    cpu._compile.cache_clear()
    monkeypatch.setattr(cpu, "compile_libraries", lambda libraries, threads: wanted.append(libraries))
    device, tokenizer = open_device("cpu", 2), tiny.tokenizer()
    training = TrainingConfig(**{**vars(TRAINING), "sample_prompt": prompt})
    ids = np.random.default_rng(1).integers(tiny.MODEL.vocab_size, size=400).astype(np.uint16)
    splits = Splits(Tokens([ids[:300]]), Tokens([ids[300:]]), tokenizer.byte_counts)
    sampler = TrainingSampler(device, tiny.MODEL, training, tokenizer)
    run = Run(tiny.MODEL, training, device, splits, tmp_path, {"tokenizer_sha256": "t"}, sampler)
    run.trainer.compile(sampler.plans(run.trainer.compute_weights))
    (first,) = wanted
    run.run()
    later = [library for libraries in wanted[1:] for library in libraries]
    assert later and all(library in first for library in later)
