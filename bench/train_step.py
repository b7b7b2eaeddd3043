"""Time one training step on the CPU, compared with PyTorch, and print the ratio.

    python bench/train_step.py --threads 2 --peer-python <python of an environment with torch>

All do the same work on random tokens: forward, backward, clipping by global norm, AdamW. PyTorch runs eagerly and with
torch.compile, in bf16 under autocast, and with tcmalloc if the machine has it. The programs take turns
(side_by_side.py). The ratio is the median over the rounds of the better mode of PyTorch over ours. floor: the time of
the GEMMs of the step alone, if all threads ran at the speed of the register tile on data in L1 (bench/tile.cpp).
"""

import argparse
import ctypes
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from side_by_side import PEER_ISA, environment, median_seconds, serve, take_turns

SIZES = {  # embed, layers, heads, mlp, vocabulary, context, batch
    "S1": (128, 2, 4, 256, 5000, 32, 64),
    "S2": (256, 8, 8, 1024, 5000, 256, 8),
    "S3": (768, 12, 12, 3072, 50257, 256, 4),
    "single": (128, 2, 4, 256, 5000, 32, 1),
    "long": (256, 4, 8, 1024, 5000, 1024, 2),
    "odd": (200, 3, 5, 700, 5003, 77, 9),
}
TILE_TERMS, TILE_COUNT = {"f32": 96, "bf16": 256}, 40_000  # as many terms as L1 holds
PRECISIONS = ["float32", "bfloat16"]


def make_trainer(shape, device, precision: str = "auto", architecture: str = "gpt2", optimizer: str = "adamw"):
    """Return a trainer of a shape (a row of SIZES) with initial weights and random tokens.

    If the device is one of several that train together, each has the batch of the shape.
    """
    import numpy as np

    from hipgpt.config.architectures import ARCHITECTURES
    from hipgpt.config.settings import ModelConfig, TrainingConfig
    from hipgpt.data.tokens import Tokens
    from hipgpt.training.step import trainer_of

    E, L, H, F, V, S, B, *tied = shape
    group = device.communicator.group
    B *= group.size
    activation = ARCHITECTURES[architecture].activations[0]
    model = ModelConfig(V, E, L, H, F, S, activation, bool(tied), output_bias=False, architecture=architecture)
    training = TrainingConfig(
        seed=1, steps=10**6, batch_sequences=B, accumulation_steps=1, learning_rate_peak=3e-4,
        learning_rate_floor_fraction=0.1, warmup_fraction=0, beta1=0.9, beta2=0.95, epsilon=1e-8, weight_decay=0.1,
        clip_norm=1.0, drop_probability=0.0, precision=precision, log_every_steps=10, validate_every_steps=10**6,
        validation_windows=1, save_every_steps=10**6, keep_last=1, sample_every_steps=10**6, sample_prompt="a",
        sample_tokens=1, optimizer=optimizer,
    )  # fmt: skip
    tokens = np.random.default_rng(0).integers(0, V, 4 * B * S + 200_000).astype(np.uint16)
    trainer = trainer_of(model, training, device, Tokens([tokens]))
    if group.leads:
        trainer.initialize()
    return trainer


def ours(size: str, threads: int, seconds: float, precision: str) -> Callable[[], tuple[float, float]]:
    """Return a function that measures the time of a step and its floor, in milliseconds."""
    from hipgpt.compute.open_device import open_device

    trainer = make_trainer(SIZES[size], open_device("cpu", threads), precision)
    steps = iter(range(1, 10**6))
    products = [launch for launch in trainer.last_plan.launches if launch.op.family in ("matmul", "output_layer")]
    operations = sum(launch.operations for launch in products)

    def measure() -> tuple[float, float]:
        taken = median_seconds(lambda: trainer.step(next(steps)), seconds)
        return taken * 1e3, operations / (threads * tile_rate(products[0].act)) * 1e3

    return measure


def tile_rate(act) -> float:
    """Return the operations per second of one core's register tile."""
    from hipgpt.base.compiler import host_library
    from hipgpt.compute.backends import cpu
    from hipgpt.compute.backends.variants import find_variant
    from hipgpt.compute.catalogue import MATMUL_FORWARD

    macros = cpu.macros_of(find_variant(MATMUL_FORWARD, cpu.arch(), act, {}), act)
    library = ctypes.CDLL(str(host_library(Path(__file__).with_name("tile.cpp"), macros)))
    library.tile_seconds.restype = ctypes.c_double
    terms, count = ctypes.c_int64(TILE_TERMS[act.label]), ctypes.c_int64(TILE_COUNT)
    library.tile_operations.restype = ctypes.c_int64
    fastest = min(library.tile_seconds(count, terms) for _ in range(5))
    return TILE_COUNT * library.tile_operations(terms) / fastest


def torch_step(
    size: str, threads: int, seconds: float, precision: str, compiled: bool
) -> Callable[[], tuple[float, float]]:
    """Return a function that measures the time of a step in milliseconds; it has no floor."""
    import torch
    import torch.nn.functional as functional
    from torch import nn

    torch.set_num_threads(threads)
    E, L, H, F, V, S, B = SIZES[size]

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention_norm, self.mlp_norm = nn.LayerNorm(E), nn.LayerNorm(E)
            self.qkv, self.projection = nn.Linear(E, 3 * E), nn.Linear(E, E)
            self.mlp = nn.Sequential(nn.Linear(E, F), nn.GELU(approximate="tanh"), nn.Linear(F, E))

        def forward(self, x):
            heads = self.qkv(self.attention_norm(x)).view(B, S, 3, H, E // H).permute(2, 0, 3, 1, 4)
            attended = functional.scaled_dot_product_attention(*heads, is_causal=True)
            x = x + self.projection(attended.transpose(1, 2).reshape(B, S, E))
            return x + self.mlp(self.mlp_norm(x))

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.positions = nn.Embedding(V, E), nn.Embedding(S, E)
            self.blocks, self.norm = nn.Sequential(*(Block() for _ in range(L))), nn.LayerNorm(E)
            self.head = nn.Linear(E, V, bias=False)

        def forward(self, inputs, targets):
            x = self.blocks(self.tokens(inputs) + self.positions(torch.arange(S)))
            return functional.cross_entropy(self.head(self.norm(x)).view(-1, V), targets.reshape(-1))

    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    forward = torch.compile(model) if compiled else model
    batches = torch.randint(0, V, (8, B, S + 1))

    def step():
        batch = batches[torch.randint(0, 8, ())]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = forward(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return lambda: (median_seconds(step, seconds) * 1e3, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="S1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=1, help="of each measurement")
    parser.add_argument("--isa", choices=PEER_ISA, help="the newest instructions to use; default: this processor's")
    parser.add_argument("--peer-python", help="python of an environment with torch; without it only ours is timed")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: both")
    parser.add_argument("--role", choices=["ours", "eager", "compile"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    size, threads, seconds = arguments.size, arguments.threads, arguments.seconds
    if arguments.role:
        settings = size, threads, seconds, arguments.precision
        is_ours, compiled = arguments.role == "ours", arguments.role == "compile"
        serve(ours(*settings) if is_ours else torch_step(*settings, compiled))
        return

    pythons = {"ours": sys.executable}
    if arguments.peer_python:
        pythons |= {"eager": arguments.peer_python, "compile": arguments.peer_python}
    options = ["--size", size, "--threads", str(threads), "--seconds", str(seconds)]
    *_, context, batch = SIZES[size]
    for precision in [arguments.precision] if arguments.precision else PRECISIONS:
        programs = {
            role: (
                [python, __file__, *options, "--role", role, "--precision", precision],
                environment(role != "ours", arguments.isa),
            )
            for role, python in pythons.items()
        }
        rounds = take_turns(programs, arguments.rounds)
        times = {role: [milliseconds for milliseconds, _ in taken] for role, taken in rounds.items()}
        for role, taken in times.items():
            median = statistics.median(taken)
            rate, spread = context * batch / median * 1e3, f"{min(taken):.1f} to {max(taken):.1f}"
            print(f"{size} {role:8s} {precision:8s} {median:8.1f} ms a step ({spread}) {rate:10,.0f} tokens/s")
        floors = [floor for _, floor in rounds["ours"]]
        print(f"{size} floor    {precision:8s} {statistics.median(floors):8.1f} ms a step")
        if arguments.peer_python:
            better = zip(times["eager"], times["compile"], strict=True)
            ratios = [min(peers) / mine for peers, mine in zip(better, times["ours"], strict=True)]
            print(f"{size} {precision}: {statistics.median(ratios):.2f} times PyTorch's better mode", flush=True)


if __name__ == "__main__":
    main()
