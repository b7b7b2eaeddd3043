"""Time training steps on a GPU: milliseconds per step and tokens/s, compared with the script of a peer.

    python bench/gpu_train.py --device cuda --sizes S1,S2,S3
    python bench/gpu_train.py --device cuda --sizes S1,S3 --peer 'python torch_gpt_gpu.py'
    python bench/gpu_train.py --device cuda --sizes S2,S3 --devices 1,2

A size is printed once it has been measured. Each round runs HipGPT and then the command of the peer, which gets the
size as its last argument, each in its own process (A B A B). The peer prints a line of JSON for each measurement, with
`mode`, `dtype` and `tok_s`. The ratio is our median over the median of the best mode of the peer. With several devices
each has the batch of the size, so the tokens/s of N devices are at best N times those of one.
"""

import argparse
import contextlib
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections import defaultdict

SIZES = {  # embed, layers, heads, mlp, vocabulary, context, batch, tied embeddings
    "S1": (128, 2, 4, 256, 5000, 32, 64),
    "S1b": (128, 2, 4, 256, 5000, 32, 1024),
    "S2": (256, 8, 8, 1024, 5000, 256, 32),
    "S3": (768, 12, 12, 3072, 50304, 1024, 32, True),
    "S3-long": (768, 12, 12, 3072, 50304, 4096, 8, True),
    "350M": (1024, 24, 16, 4096, 50304, 1024, 8, True),
}
STEPS = {"S1": 400, "S1b": 200, "S2": 100, "S3": 10, "S3-long": 10, "350M": 10}
ROUNDS = 5


def measure_on(devices: int, size: str, device_name: str, precision: str) -> None:
    """Print the median time of a step in seconds, on several devices that train together."""
    from train_step import make_trainer

    from hipgpt.compute.open_device import open_device
    from hipgpt.compute.process_group import meet
    from hipgpt.training.ranks import Place, own_place, run_ranks

    place = own_place(os.environ)
    if place is None and devices > 1:
        run_ranks([sys.executable, *sys.argv], devices)
        return
    place = place or Place()
    with contextlib.closing(meet(place.rank, place.size, place.host, place.port)) as group:
        trainer = make_trainer(SIZES[size], open_device(device_name, None, group, place.local_rank), precision)
        if group.leads:
            print(seconds_of_a_step(trainer, STEPS[size]))
        else:
            trainer.follow()


def seconds_of_a_step(trainer, count: int) -> float:
    """Return the median time of a step in seconds, over ROUNDS rounds of `count` steps."""
    device, step, times = trainer.device, 0, []
    for steps in (5, *[count] * ROUNDS):
        device.read(trainer.history.last)  # waits
        started = time.perf_counter()
        for _ in range(steps):
            step += 1
            trainer.step(step)
        device.read(trainer.history.last)
        times.append((time.perf_counter() - started) / steps)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--sizes", default="S1,S2,S3")
    parser.add_argument("--peer", help="a command that prints the peer's JSON lines")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--devices", default="1", help="how many devices train together, such as 1,2")
    parser.add_argument("--one", choices=SIZES, help="measure this size only and print seconds (used by the rounds)")
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.devices.split(",")]
    if arguments.one:
        measure_on(counts[0], arguments.one, arguments.device, arguments.precision)
        return
    own = [sys.executable, __file__, "--device", arguments.device, "--precision", arguments.precision]
    for size in arguments.sizes.split(","):
        ours, theirs = defaultdict(list), defaultdict(list)  # tokens/s, by the number of devices and by mode
        for _ in range(arguments.rounds):
            for count in counts:
                seconds = float(output_of([*own, "--one", size, "--devices", str(count)]))
                ours[count].append(count * tokens_of(size) / seconds)
            if arguments.peer:
                for line in output_of([*shlex.split(arguments.peer), size]).splitlines():
                    if line.startswith("{") and "tok_s" in (row := json.loads(line)):
                        theirs[f"{row['mode']} {row['dtype']}"].append(row["tok_s"])
        print_rates(size, ours, theirs)


def output_of(command: list[str]) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True).stdout


def print_rates(size: str, ours: dict[int, list[float]], theirs: dict[str, list[float]]) -> None:
    """Print a line for each number of devices."""
    for count, rates in ours.items():
        rate = statistics.median(rates)
        line = f"{size:4s} {count * tokens_of(size) / rate * 1e3:9.3f} ms {rate:14,.0f} tokens/s"
        if count > 1:
            line += f"   {count} devices"
            if alone := ours.get(1):
                line += f", {rate / statistics.median(alone):.3f} times one"
        elif modes := {mode: statistics.median(values) for mode, values in theirs.items()}:
            best = max(modes, key=modes.get)
            line += f"   peer's best: {best} {modes[best]:,.0f}   ratio {rate / modes[best]:.2f}"
        print(line, flush=True)


def tokens_of(size: str) -> int:
    """Return the tokens of one device's batch."""
    return SIZES[size][5] * SIZES[size][6]


if __name__ == "__main__":
    main()
