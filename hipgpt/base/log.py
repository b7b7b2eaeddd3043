"""The log of a run and its progress bar."""

import logging
import sys
from pathlib import Path
from types import TracebackType

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

LOG = logging.getLogger("hipgpt")


def start_log(path: Path | None) -> None:
    """Send messages to stderr. If a path is given, append them to that file too, with the time of day."""
    LOG.setLevel(logging.INFO)
    LOG.addHandler(logging.StreamHandler(sys.stderr))
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        LOG.addHandler(file)


class Progress:
    """A bar on a terminal with loss, tokens/s and time left. The log gets the same as a line after each tenth."""

    def __init__(self, total_steps: int, first_step: int):
        self.total = total_steps
        self._bar = tqdm(total=total_steps, initial=first_step, unit="step", desc="train", disable=None, leave=False)
        self._redirect = logging_redirect_tqdm([LOG])
        self._next_line = first_step

    def __enter__(self) -> "Progress":
        self._redirect.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._redirect.__exit__(kind, error, trace)
        self._bar.close()

    def update(self, step: int, loss: float, step_seconds: float, tokens_per_second: float) -> None:
        """Show that `step` is done. step_seconds: mean time of the steps since the last call."""
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
