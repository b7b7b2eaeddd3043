"""Time training steps on a GPU: milliseconds per step and tokens/s, compared with the script of a peer.

    python bench/gpu_train.py --device cuda --sizes S1,S2,S3
    python bench/gpu_train.py --device cuda --sizes S1 --peer 'python torch_gpt_gpu.py S1'

Each round runs HipGPT and then the command of the peer, each in its own process (A B A B). The peer prints a line of
JSON for each measurement, with `shape`, `mode`, `dtype` and `tok_s`. The ratio is our median over the median of the
best mode of the peer.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time

SIZES = {  # embed, layers, heads, mlp, vocabulary, context, batch, tied embeddings
    "S1": (128, 2, 4, 256, 5000, 32, 64),
    "S1b": (128, 2, 4, 256, 5000, 32, 1024),
    "S2": (256, 8, 8, 1024, 5000, 256, 32),
    "S3": (768, 12, 12, 3072, 50304, 1024, 32, True),
}
STEPS = {"S1": 400, "S1b": 200, "S2": 100, "S3": 10}
ROUNDS = 5


def measure(size: str, device_name: str, precision: str) -> float:
    """Return the median time of a step in seconds, over ROUNDS rounds of STEPS steps."""
    from train_step import make_trainer

    from hipgpt.compute.open_device import open_device

    device = open_device(device_name)
    trainer = make_trainer(SIZES[size], device, precision)
    step, times = 0, []
    for steps in (5, *[STEPS[size]] * ROUNDS):
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
    parser.add_argument("--one", choices=SIZES, help="measure this size only and print seconds (used by the rounds)")
    arguments = parser.parse_args()
    if arguments.one:
        print(measure(arguments.one, arguments.device, arguments.precision))
        return
    ours, theirs = {}, {}
    for _ in range(arguments.rounds):
        for size in arguments.sizes.split(","):
            command = [sys.executable, __file__, "--one", size, "--device", arguments.device]
            done = subprocess.run(
                [*command, "--precision", arguments.precision], stdout=subprocess.PIPE, encoding="utf-8", check=True
            )
            tokens = SIZES[size][5] * SIZES[size][6]
            ours.setdefault(size, []).append(tokens / float(done.stdout))
        if arguments.peer:
            output = subprocess.run(
                shlex.split(arguments.peer), stdout=subprocess.PIPE, encoding="utf-8", check=True
            ).stdout
            for line in output.splitlines():
                if line.startswith("{") and "tok_s" in (row := json.loads(line)):
                    theirs.setdefault(row["shape"], {}).setdefault(f"{row['mode']} {row['dtype']}", []).append(
                        row["tok_s"]
                    )
    for size, rates in ours.items():
        rate, tokens = statistics.median(rates), SIZES[size][5] * SIZES[size][6]
        line = f"{size:4s} {tokens / rate * 1e3:9.3f} ms {rate:14,.0f} tokens/s"
        if modes := {mode: statistics.median(values) for mode, values in theirs.get(size, {}).items()}:
            best = max(modes, key=modes.get)
            line += f"   peer's best: {best} {modes[best]:,.0f}   ratio {rate / modes[best]:.2f}"
        print(line)


if __name__ == "__main__":
    main()
