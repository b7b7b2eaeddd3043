"""Time every op of one training step on the CPU: milliseconds, arithmetic rate, least memory traffic over time.

python bench/profile_step.py --size S1 --threads 2
"""

import argparse
import statistics
import time
from collections import defaultdict

from train_step import SIZES, make_trainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="S1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    trainer, batches = make_trainer(arguments.size, arguments.threads)
    trainer.step(1, batches)
    print(f"{'op':28s}{'calls':>6s}{'ms':>9s}{'GFLOP/s':>9s}{'GB/s':>7s}")
    total = 0.0
    for plan in trainer.training_plans:
        rows = defaultdict(lambda: [0, 0.0, 0, 0])
        for launch in plan.launches:
            run, times = trainer.device.prepare([launch]), []
            for _ in range(arguments.repeats):
                started = time.perf_counter()
                run()
                times.append(time.perf_counter() - started)
            row = rows[launch.op.name]
            for place, value in enumerate((1, statistics.median(times), launch.operations, launch.bytes_moved)):
                row[place] += value
        for name, (calls, seconds, operations, moved) in sorted(rows.items(), key=lambda item: -item[1][1]):
            rates = operations / seconds / 1e9, moved / seconds / 1e9
            print(f"{name:28s}{calls:6d}{seconds * 1e3:9.3f}{rates[0]:9.1f}{rates[1]:7.1f}")
            total += seconds
    print(f"{'sum':34s}{total * 1e3:9.3f}")


if __name__ == "__main__":
    main()
