"""Time a training step of each architecture and optimizer, in turns: milliseconds, and the time of 10^9 operations.

    python bench/architectures.py --device cpu --threads 1 --size S1
    python bench/architectures.py --device cuda --size S3

Operations are those of the contracts. ratio: the time of an operation compared with gpt2's with AdamW, the first row.
The time of a step is the shortest of the rounds, because other programs only lengthen it. Sizes are those of
bench/train_step.py for a CPU and of bench/gpu_train.py for a GPU; all architectures have the same, so that those with
SwiGLU have half as many weights again in the MLP.
"""

import argparse
import time

from gpu_train import SIZES as GPU_SIZES
from train_step import SIZES as CPU_SIZES
from train_step import make_trainer

from hipgpt.compute.open_device import open_device

CANDIDATES = [("gpt2", "adamw"), ("gpt2", "muon"), ("llama", "adamw"), ("llama", "muon"), ("qwen3", "adamw")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--size", default="S1")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=1, help="steps of a round; a GPU needs more to hide the host")
    arguments = parser.parse_args()

    device = open_device(arguments.device, arguments.threads)
    shape = (CPU_SIZES if device.traits.shares_host_memory else GPU_SIZES)[arguments.size]
    trainers = {names: make_trainer(shape, device, arguments.precision, *names) for names in CANDIDATES}
    steps, shortest = dict.fromkeys(CANDIDATES, 0), dict.fromkeys(CANDIDATES, float("inf"))
    for turn in range(arguments.rounds + 1):  # the first compiles
        for names, trainer in trainers.items():
            started = time.perf_counter()
            for _ in range(arguments.steps):
                steps[names] += 1
                trainer.step(steps[names])
            device.read(trainer.history.last)  # waits
            if turn:
                shortest[names] = min(shortest[names], (time.perf_counter() - started) / arguments.steps)
    first = 0.0
    print(f"{arguments.size} on {device.name}\narchitecture  optimizer        ms  10^9 operations  ms for 10^9  ratio")
    for (architecture, optimizer), seconds in shortest.items():
        operations = sum(launch.operations for launch in trainers[architecture, optimizer].last_plan.launches) / 1e9
        each = seconds * 1e3 / operations
        first = first or each
        print(
            f"{architecture:12}  {optimizer:9} {seconds * 1e3:9.2f} {operations:16.2f} {each:12.3f} {each / first:6.3f}"
        )


if __name__ == "__main__":
    main()
