"""A process that trains nothing: it writes the CSV files of a run as training does, and gives the rows to a tracker.

python -m support.tracked_run TRACKER RUN KEPT LAST close|kill|interrupt: the files have the rows up to step KEPT
when it begins, as after a resume. It adds those up to LAST, and then ends as said.
"""

import contextlib
import csv
import os
import sys
from pathlib import Path

from hipgpt.training.interruption import Interrupted
from hipgpt.training.trackers import Trackers

CONFIG = {"device": "cpu", "model": {"embed_dim": 16}}
COLUMNS = {"metrics": "loss_nats_per_token", "validation": "bits_per_byte"}


def begin(run: Path, kept: int = 0) -> None:
    """Write both files with the rows up to step `kept`."""
    run.mkdir(parents=True, exist_ok=True)
    for name, column in COLUMNS.items():
        (run / f"{name}.csv").write_text(f"step,{column}\n")
    train(run, 1, kept)


def train(run: Path, first: int, last: int) -> None:
    """Append the rows of these steps. Every second step is validated."""
    for step in range(first, last + 1):
        with open(run / "metrics.csv", "a") as file:
            file.write(f"{step},{8 - step / 4}\n")
        if step % 2 == 0:
            with open(run / "validation.csv", "a") as file:
                file.write(f"{step},{3 - step / 8}\n")


def rows(run: Path) -> list[tuple[str, int, float]]:
    """Return (name, step, value) of every cell of both files."""
    found = []
    for name, column in COLUMNS.items():
        with open(run / f"{name}.csv") as file:
            found += [(f"{name}/{column}", int(step), float(value)) for step, value in list(csv.reader(file))[1:]]
    return sorted(found)


def main(tracker: str, folder: str, kept: str, last: str, end: str) -> None:
    run, middle = Path(folder), (int(kept) + int(last)) // 2
    begin(run, int(kept))
    with contextlib.suppress(Interrupted), Trackers([tracker], run, CONFIG) as trackers:
        trackers.follow()
        for first, until in ((int(kept) + 1, middle), (middle + 1, int(last))):
            train(run, first, until)
            trackers.follow()
        if end == "kill":
            os._exit(9)
        if end == "interrupt":
            raise Interrupted("stopped")


if __name__ == "__main__":
    main(*sys.argv[1:])
