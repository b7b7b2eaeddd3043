"""Records the training steps of three models for `check.py --bench`: their launches, and what memory they need.

A step is recorded as training records it, in bf16, so the times that a GPU gives are those of training on it. check.py
fills the memory itself, because what the values are hardly changes the time.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from hipgpt.compute.backends.gpu import GpuDevice
from hipgpt.compute.launch import Launch
from hipgpt.compute.tensor import Arena, DType
from hipgpt.config.settings import ModelConfig, TrainingConfig
from hipgpt.data.tokens import Tokens
from hipgpt.training.step import Trainer, trainer_of
from support.amd import count

MODELS = {  # embed, layers, heads, mlp, vocabulary, context, batch: docs/performance.md; S3 is GPT-2 124M
    "S1": (128, 2, 4, 256, 5000, 32, 64),
    "S2": (256, 8, 8, 1024, 5000, 256, 32),
    "S3": (768, 12, 12, 3072, 50304, 1024, 8),
}
SETTINGS = {"seed": 1, "steps": 10, "accumulation_steps": 1, "learning_rate_peak": 1e-3, "warmup_fraction": 0.1,
            "learning_rate_floor_fraction": 0.1, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1,
            "clip_norm": 1.0, "drop_probability": 0.0, "precision": "bfloat16", "log_every_steps": 10}  # fmt: skip
REST = {"validate_every_steps": 10, "validation_windows": 1, "save_every_steps": 10, "keep_last": 1,
        "sample_every_steps": 10, "sample_prompt": "", "sample_tokens": 0}  # fmt: skip


def trainer_for(name: str, device: GpuDevice) -> Trainer:
    embed, layers, heads, mlp, vocabulary, context, batch = MODELS[name]
    model = ModelConfig(vocabulary, embed, layers, heads, mlp, context, "gelu", tie_embeddings=True, output_bias=False)
    training = TrainingConfig(batch_sequences=batch, **SETTINGS, **REST)
    return trainer_of(model, training, device, Tokens([np.zeros(4 * context + 1, np.uint16)]))


def record_model(name: str, driver: Any) -> dict[str, Any]:
    """Return a model's entry of the manifest. driver: a Recorder, which keeps what is launched and allocated."""
    driver.allocations = []
    device = GpuDevice(driver, graphs=False)
    trainer = trainer_for(name, device)
    ops = []
    for launch in trainer.last_plan.launches:
        driver.launches = []
        device.prepare([launch])()
        ops.append(_op(launch, driver))
    sizes = trainer.model
    return {
        "name": name,
        "tokens": trainer.training.batch_sequences * sizes.context_length,
        "memory": [size for _, size in driver.allocations],
        "fills": list(_fills(trainer, driver)),
        "ops": ops,
    }


def _op(launch: Launch, driver: Any) -> dict[str, Any]:
    for one in driver.launches:
        for argument in one["arguments"]:
            if argument["type"] == "pointer":
                argument |= _place(argument.pop("value"), driver)
    sizes = ",".join(f"{name}{size}" for name, size in launch.sizes.items())
    return {
        "op": launch.op.name,
        "sizes": sizes,
        "operations": launch.operations,
        "bytes": launch.bytes_moved,
        "estimate_tflops": count.estimate(launch.op, driver.arch, launch.sizes),
        "launches": driver.launches,
    }


def _place(address: int | None, driver: Any) -> dict[str, int | None]:
    """Return where a pointer leads: which allocation, and how far into it."""
    for number, (start, size) in enumerate(driver.allocations):
        if address and start <= address < start + size:
            return {"allocation": number, "offset": address - start}
    assert not address, f"{address} is in no allocation"
    return {"allocation": None, "offset": 0}


def _fills(trainer: Trainer, driver: Any) -> Iterator[dict[str, Any]]:
    """Yield what must not be zero: weights and learning rates. Tokens may be."""
    arenas: list[Arena] = [trainer.weights, trainer.compute_weights.arena]
    for tensor, value in [*((arena.flat, "normal") for arena in arenas), (trainer.step_inputs.schedule, "one")]:
        dtype = "bf16" if tensor.dtype is DType.BF16 else "f32"
        yield _place(tensor.address, driver) | {"elements": tensor.elements, "dtype": dtype, "values": value}
