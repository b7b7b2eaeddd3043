"""The log of a stage and its progress bar."""

import logging
import os
import re
import sys
from pathlib import Path
from types import TracebackType
from typing import NoReturn, TextIO

from tqdm import tqdm

from hipgpt.base.terminal import ERASE_LINE

LOG = logging.getLogger("hipgpt")
STOPPED = "stopped after step"  # so begins the error of a training that a signal has ended; its stage has not failed
ERRORS_SHOWN_LATER = "HIPGPT_ERRORS_SHOWN_LATER"  # variable: set by a workflow that shows the error of a log at its end
LOG_LINE = re.compile(r"\d\d:\d\d:\d\d (?P<message>.*)")
BAR = "{desc} {percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"
MOST_LINES = 12  # of an error
SHORTEST_DELAY = 1e-9  # seconds: tqdm then shows a bar at its first update, and without a delay at once


def start_log(path: Path | None, subject: str = "") -> None:
    """Send messages to stderr. If a path is given, append them to that file too, with the time of day.

    subject: name of the run; on stderr it is put before each message, because several runs may share a terminal.
    On a terminal, messages of level DEBUG are left out, because the bar shows the same.
    """
    on_terminal = sys.stderr.isatty()
    stream = _AboveBars(sys.stderr)
    before = (ERASE_LINE if on_terminal else "") + (f"[{subject}] " if subject else "")
    stream.setFormatter(logging.Formatter(f"{before.replace('%', '%%')}%(message)s"))
    stream.setLevel(logging.INFO if on_terminal else logging.DEBUG)
    LOG.setLevel(logging.DEBUG)
    LOG.addHandler(stream)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _LogFile(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        LOG.addHandler(file)
        sys.excepthook = _log_defect
        if ERRORS_SHOWN_LATER in os.environ:
            stream.addFilter(lambda record: record.levelno < logging.ERROR)


def last_error(path: str | None, begun: float) -> str | None:
    """Return the error with which a log ends. None if it ends otherwise, or was last written before `begun`."""
    if path is None or not os.path.exists(path) or os.path.getmtime(path) < begun - 1:
        return None
    text = Path(path).read_text(encoding="utf-8", errors="backslashreplace")
    if not text.endswith("\n"):  # the disk is full
        return None
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if LOG_LINE.fullmatch(line)]
    if not starts:
        return None
    message = LOG_LINE.fullmatch(lines[starts[-1]])["message"]  # type: ignore[index]
    if not message.startswith("error: "):
        return None
    rest = lines[starts[-1] + 1 :]
    return "\n".join([message.removeprefix("error: "), *rest[-MOST_LINES:]])


def _log_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    LOG.error("error: a defect of hipgpt: %s", error, exc_info=(kind, error, trace))


class _LogFile(logging.FileHandler):
    """A file whose errors go to stderr if it cannot be written, as on a full disk."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the standard library's name)
        if record.levelno >= logging.ERROR:
            print(record.getMessage(), file=sys.stderr)


class _AboveBars(logging.StreamHandler[TextIO]):
    """Writes to a stream that a bar may share."""

    def emit(self, record: logging.LogRecord) -> None:
        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def bar(total: int, subject: str, done: int = 0) -> "tqdm[NoReturn]":
    """Return a bar on stderr, which only a terminal shows, from its first update until it is closed.

    Before that, kernels may be compiled, which has a bar of its own. subject: name of the run.
    """
    return tqdm(
        total=total, initial=done, desc=f"[{subject}]", bar_format=BAR, dynamic_ncols=True, disable=None, leave=False,
        delay=SHORTEST_DELAY,
    )  # fmt: skip


class Progress:
    """A bar on a terminal with loss, tokens/s and time left. The log gets the same as a line after each tenth.

    subject: name of the run.
    """

    def __init__(self, total_steps: int, first_step: int, subject: str):
        self.total = total_steps
        self._bar = bar(total_steps, subject, first_step)
        self._bar.refresh()  # the first step may take long
        self._next_line = first_step

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def update(self, step: int, loss: float, step_seconds: float, tokens_per_second: float) -> None:
        """Show that `step` is done. step_seconds: mean time of the steps since the last call."""
        self._bar.set_postfix_str(f"loss {loss:.3f}, {tokens_per_second:,.0f} tokens/s", refresh=False)
        self._bar.update(step - self._bar.n)
        if step >= self._next_line:
            left = tqdm.format_interval((self.total - step) * step_seconds)
            LOG.debug(
                "step %d of %d: loss %.3f, %s tokens/s, %s left",
                step,
                self.total,
                loss,
                f"{tokens_per_second:,.0f}",
                left,
            )
            self._next_line = step + max(1, self.total // 10)
