"""Time every op of one training step: milliseconds, arithmetic rate, minimum memory traffic over time, and floor.

    python bench/profile_step.py --size S1 --threads 2
    python bench/profile_step.py --size S3 --device cuda --precision bfloat16 --gbs 4300 --tflops 790

A launch is timed by REPEATS replays in a row, so on a GPU its inputs may be in the cache already. floor: the larger of
its bytes over --gbs and its operations over --tflops, in ms. Give the measured rates of the device. --in-step adds how
much less time the step takes without the launches of an op. Its inputs are then in the caches that the step leaves them
in, and what runs at the same time does not count. For small ops the difference says nothing.
"""

import argparse
import statistics
import time
from collections import defaultdict

from gpu_train import SIZES as GPU_SIZES
from train_step import SIZES, make_trainer

from hipgpt.compute.open_device import open_device

REPEATS = 20


def seconds_of(device, launches, rounds: int, result) -> float:
    """Return the median time of launches, one after the other, in seconds."""
    run, times = device.prepare(launches), []
    for _ in range(rounds):
        device.read(result)  # waits
        started = time.perf_counter()
        run()
        device.read(result)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="S1")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--architecture", default="gpt2")
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gbs", type=float, default=float("inf"))
    parser.add_argument("--tflops", type=float, default=float("inf"))
    parser.add_argument("--shapes", action="store_true", help="a row for each shape of an op")
    parser.add_argument("--in-step", action="store_true", help="also what a step takes less without an op's launches")
    arguments = parser.parse_args()
    device = open_device(arguments.device, arguments.threads)
    shapes = SIZES if device.backend == "cpu" else GPU_SIZES
    trained = arguments.precision, arguments.architecture, arguments.optimizer
    trainer = make_trainer(shapes[arguments.size], device, *trained)
    trainer.step(1)
    launches, device, last = trainer.last_plan.launches, trainer.device, trainer.history.last
    title = f"{'in step':>9s}" if arguments.in_step else ""
    print(f"{'op':50s}{'calls':>6s}{'ms':>9s}{'GFLOP/s':>10s}{'GB/s':>8s}{'floor':>9s}{title}")
    total = 0.0
    rows, known = defaultdict(lambda: [0, 0.0, 0, 0]), {}
    members = defaultdict(list)  # of a row
    for launch in launches:
        shape = launch.op.name, tuple(launch.sizes.values()), tuple(tensor is None for tensor in launch.tensors)
        if shape not in known:
            known[shape] = seconds_of(device, [launch] * REPEATS, arguments.rounds, last) / REPEATS
        sizes = " ".join(f"{name}{size}" for name, size in launch.sizes.items())
        label = f"{launch.op.name} {sizes}" if arguments.shapes else launch.op.name
        members[label].append(launch)
        for column, value in enumerate((1, known[shape], launch.operations, launch.bytes_moved)):
            rows[label][column] += value

    def less_without(label: str) -> float:
        left_out = set(map(id, members[label]))
        others = [launch for launch in launches if id(launch) not in left_out]
        return whole - seconds_of(device, others, arguments.rounds, last)

    whole = seconds_of(device, launches, arguments.rounds, last)
    for name, (calls, seconds, operations, moved) in sorted(rows.items(), key=lambda item: -item[1][1]):
        floor = max(moved / arguments.gbs / 1e9, operations / arguments.tflops / 1e12)
        rates = f"{operations / seconds / 1e9:10.0f}{moved / seconds / 1e9:8.0f}{floor * 1e3:9.3f}"
        in_step = f"{less_without(name) * 1e3:9.3f}" if arguments.in_step else ""
        print(f"{name:50s}{calls:6d}{seconds * 1e3:9.3f}{rates}{in_step}")
        total += seconds
    print(f"{'sum':56s}{total * 1e3:9.3f}")
    print(f"{'step':56s}{whole * 1e3:9.3f}")


if __name__ == "__main__":
    main()
