"""What a run writes while it trains: CSV files that grow row by row, and its log with a progress bar."""

import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from hipgpt.files import append, replacing

LOG = logging.getLogger("hipgpt")


def start_log(path: Path | None) -> None:
    """Send messages to stderr and, if a path is given, with the time of day to the end of that file."""
    LOG.setLevel(logging.INFO)
    LOG.addHandler(logging.StreamHandler(sys.stderr))
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(path)
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        LOG.addHandler(file)


def bits_per_byte(nats: np.ndarray, byte_counts: np.ndarray) -> float:
    """Return the corpus's bits per byte, comparable across tokenizers.

    nats: (...) loss of each target token; byte_counts: (...) the bytes it stands for, 0 leaves a token out.
    Raises ValueError if byte_counts sums to 0. Formula: sum(nats[byte_counts > 0]) / (ln 2 * sum(byte_counts)).
    """
    total = int(byte_counts.sum())
    if total == 0:
        raise ValueError("bits_per_byte: the tokens stand for no bytes")
    return float(nats[byte_counts > 0].sum(dtype=np.float64)) / (math.log(2) * total)


class CsvFile:
    """A CSV file with a header, one row one observation; every append is in the file when it returns.

    Floats are written with 7 significant digits, which f32 values need to be told apart at their own precision.
    """

    def __init__(self, path: Path, columns: Sequence[str]):
        self.path, self.columns = path, tuple(columns)

    def begin(self) -> None:
        """Start the file anew with its header."""
        with replacing(self.path) as file:
            file.write((",".join(self.columns) + "\n").encode())

    def append(self, *values: float | int | str) -> None:
        """Add a row. Raises ValueError if it has not one value for each column."""
        if len(values) != len(self.columns):
            raise ValueError(f"{self.path}: got {len(values)} values, expected {len(self.columns)}")
        append(self.path, ",".join(_cell(value) for value in values) + "\n")


def _cell(value: float | int | str) -> str:
    return f"{value:.7g}" if isinstance(value, (float, np.floating)) else str(value)


class Progress:
    """A bar on a terminal with loss, tokens/s and time left; the same as lines in the log, each tenth of the way."""

    def __init__(self, total_steps: int, first_step: int):
        self.total = total_steps
        self._bar = tqdm(total=total_steps, initial=first_step, unit="step", desc="train", disable=None, leave=False)
        self._redirect = logging_redirect_tqdm([LOG])
        self._next_line = first_step

    def __enter__(self) -> "Progress":
        self._redirect.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._redirect.__exit__(*error)
        self._bar.close()

    def update(self, step: int, loss: float, step_seconds: float, tokens_per_second: float) -> None:
        """Show that `step` is done. step_seconds: the mean of the last steps."""
        self._bar.set_postfix_str(f"loss {loss:.3f}, {tokens_per_second:,.0f} tokens/s", refresh=False)
        self._bar.update(step - self._bar.n)
        if step >= self._next_line:
            left = tqdm.format_interval((self.total - step) * step_seconds)
            LOG.info(
                "step %d of %d: loss %.3f, %s tokens/s, %s left",
                step,
                self.total,
                loss,
                f"{tokens_per_second:,.0f}",
                left,
            )
            self._next_line = step + max(1, self.total // 10)
