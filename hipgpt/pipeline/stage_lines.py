"""The workflow on a terminal: a line for each stage that ends, with its time, and the reason of a failure last.

This is a logger plugin of Snakemake (snakemake_logger_plugin_hipgpt). Snakemake's own log, in .snakemake/log, and the
log of each stage keep every detail. `--verbose` shows Snakemake's own lines instead.
"""

import logging
import os
import re
import shutil
import signal
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import snakemake
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from hipgpt.base.log import ERRORS_SHOWN_LATER, STOPPED, last_error
from hipgpt.base.terminal import ERASE_LINE, one_line

SNAKEMAKE = Path(snakemake.__file__).parent
TARGET = "all"  # the rule that runs nothing
STOPPED_BY = "stopped by"
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # sent by people and clusters, not by the system
STATUS = re.compile(r"exit status (\d+)|Signals\.(\w+)")
OF_A_COMMAND = ("RuleException", "CalledProcessError")
# the beginnings of what Snakemake answers to an option such as -n, --delete-all-output, --archive or --lint
ANSWERS = ("Nothing to be done", "This was a dry-run", "Would delete ", "Deleting ", "archived ", "Congratulations",
           "Unlocked ")  # fmt: skip
# said in other words by a line of this file, or not useful to people who only run the workflow
UNSHOWN = re.compile("At least one job did not|Exiting because a job|Workflow defines that rule")


@dataclass
class Stage:
    """A job. name: of its rule and of the run or corpus that it works on; log: path, None if its rule has none.

    ended: how its process ended, if it failed.
    """

    name: str
    log: str | None
    begun: float  # seconds since 1970
    ended: str = ""


class StageLines(LogHandlerBase):
    """Writes Snakemake's records as lines of stages.

    workflow: set by the Snakefile, because the records of a dry run hold less than the words of `hipgpt why` need.
    """

    workflow: Any = None

    def __post_init__(self) -> None:
        self.stream = sys.stdout if self.common_settings.stdout else sys.stderr
        self._stages: dict[int, Stage] = {}
        self._running: list[int] = []
        self._failed: list[Stage] = []
        self._status = ""  # how the process ended of the stage whose failure is reported next
        self._done, self._total, self._tables = 0, 0, 0
        self._reasons: dict[str, list[str]] = {}  # of the jobs of a dry run, by their first output
        if not self.common_settings.verbose:
            os.environ[ERRORS_SHOWN_LATER] = "1"

    @property
    def writes_to_stream(self) -> bool:
        return True

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        return False  # Snakemake's own filter does what --quiet and --printshellcmds ask for

    @property
    def has_formatter(self) -> bool:
        return not self.common_settings.verbose

    @property
    def needs_rulegraph(self) -> bool:
        return False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, if it is one to show."""
        try:
            if self.common_settings.verbose:
                self._write([self.format(record)])
            elif self.common_settings.dryrun:
                self._write(list(self._planned(record)))
            else:
                self._write(list(self._lines(record)))
        except BrokenPipeError:  # the reader has gone, as in `| head`
            self.stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the process ends)
        except Exception:  # as every handler of the standard library does: a log must not end the program
            self.handleError(record)

    def close(self) -> None:
        """Write the reason of each failure, after everything else."""
        self._running = []
        try:
            self._write([])
            for stage in self._failed:
                reason = last_error(stage.log, stage.begun) or stage.ended or "failed without a message"
                where = f"\n    log: {stage.log}" if stage.log else ""
                self._write([f"\n{stage.name}: {reason}{where}"])
        finally:
            self._failed = []
            super().close()

    def _lines(self, record: logging.LogRecord) -> Iterator[str]:
        fields, event = record.__dict__, getattr(record, "event", None)
        if event == LogEvent.JOB_INFO:
            log = fields["log"][0] if fields["log"] else None
            self._stages[fields["jobid"]] = Stage(_name(fields), log, time.time())
            if fields["rule_name"] != TARGET:
                self._running.append(fields["jobid"])
        elif event == LogEvent.JOB_FINISHED and fields["job_id"] in self._stages:
            self._done += 1
            yield from self._ended(fields["job_id"], "")
        elif event == LogEvent.JOB_ERROR and fields["jobid"] in self._stages:
            self._stages[fields["jobid"]].ended, self._status = self._status, ""
            self._failed.append(self._stages[fields["jobid"]])
            yield from self._ended(fields["jobid"], "  stopped" if self._stopped(fields["jobid"]) else "  failed")
        elif event == LogEvent.RUN_INFO:
            stages = {name: count for name, count in fields["stats"].items() if name not in (TARGET, "total")}
            self._total = sum(stages.values())
            yield from _plan(stages)
        elif event in (None, LogEvent.ERROR):
            yield from self._message(record)

    def _stopped(self, job: int) -> bool:
        """Return whether a job has ended because somebody sent a signal to it: a training saves its state before."""
        stage = self._stages[job]
        return (last_error(stage.log, stage.begun) or stage.ended).startswith((STOPPED, STOPPED_BY))

    def _message(self, record: logging.LogRecord) -> Iterator[str]:
        text = str(record.msg)
        if record.__dict__.get("exception") in ("RuleException", "CalledProcessError") and (
            ended := STATUS.search(text)
        ):
            self._status = _how_it_ended(int(ended[1]) if ended[1] else 128 + signal.Signals[ended[2]])
            return
        of_snakemake = SNAKEMAKE in Path(record.pathname).parents  # and not of an executor, such as Slurm's
        shown = record.levelno >= logging.WARNING or not of_snakemake or text.startswith(ANSWERS)
        if shown and not UNSHOWN.search(text):
            yield text

    def _planned(self, record: logging.LogRecord) -> Iterator[str]:
        """Yield the lines of a dry run. No line grows with the number of runs."""
        fields, event = record.__dict__, getattr(record, "event", None)
        if event == LogEvent.JOB_INFO and fields["rule_name"] != TARGET:
            yield _name(fields)
            yield from (one_line(f"    {reason}", _columns()) for reason in self._reasons_of(fields))
        elif event == LogEvent.SHELLCMD and fields.get("shellcmd"):
            yield textwrap.indent(fields["shellcmd"].strip(), "    ")
        elif event == LogEvent.RUN_INFO:
            self._tables += 1
            if self._tables == 2:  # Snakemake gives the table of jobs before and after the jobs
                yield f"\n{record.msg}"
        elif event in (None, LogEvent.ERROR):
            text = str(record.msg)
            shown = record.levelno >= logging.WARNING or text.startswith(ANSWERS)
            if (shown and not UNSHOWN.search(text)) or SNAKEMAKE not in Path(record.pathname).parents:
                yield text

    def _reasons_of(self, job: dict[str, Any]) -> list[str]:
        """Return the reasons for a job of a dry run as `hipgpt why` prints them; Snakemake's if they are not known."""
        if self.workflow and not self._reasons:
            from hipgpt.pipeline.planned_jobs import planned_jobs  # they import all of Snakemake
            from hipgpt.pipeline.reasons import Job, reasons_of

            jobs = [Job(**fields) for fields in planned_jobs(self.workflow.dag)]
            self._reasons = dict(zip((next(iter(j.outputs), "") for j in jobs), reasons_of(jobs), strict=True))
        return self._reasons.get(str(next(iter(job["output"]), "")), [str(job["reason"])])

    def _ended(self, job: int, ending: str) -> Iterator[str]:
        if job in self._running:
            self._running.remove(job)
        stage = self._stages[job]
        if stage.name != TARGET:
            counter = f"[{self._done:{len(str(self._total))}}/{self._total}]"
            yield f"{counter}  {stage.name:46}  {duration(time.time() - stage.begun):>12}{ending}"

    def _write(self, lines: Sequence[str]) -> None:
        """Write lines and, on a terminal, below them the names of the running stages, which the next output erases."""
        on_terminal = self.stream.isatty()
        erase = ERASE_LINE if on_terminal else ""
        self.stream.write("".join(f"{erase}{line}\n" for line in lines) or erase)
        names = ", ".join(self._stages[job].name for job in self._running)
        if on_terminal and not self.common_settings.verbose and names:
            self.stream.write(ERASE_LINE + one_line(f"{names} ...", _columns()))
        self.stream.flush()


def duration(seconds: float) -> str:
    """Return a time as people read it: 9.5 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _plan(stages: dict[str, int]) -> list[str]:
    names = ", ".join(name if count == 1 else f"{count} {name}" for name, count in stages.items())
    count = sum(stages.values())
    return textwrap.wrap(f"{count} stage{'s' * (count != 1)} to run: {names}", _columns())


def _columns() -> int:
    return shutil.get_terminal_size().columns - 1


def _name(job: dict[str, Any]) -> str:
    return " ".join([job["rule_name"], *map(str, job["wildcards"].values())])


def _how_it_ended(status: int) -> str:
    """Return how a process ended. Shells report a signal as 128 and its number."""
    if status <= 128:
        return f"ended with status {status}, without a message in its log"
    if status - 128 in STOPPING:
        return f"{STOPPED_BY} {signal.Signals(status - 128).name}; the same command runs it again"
    hint = "; the system does that when memory runs out" if status == 128 + signal.SIGKILL else ""
    return f"killed by {signal.Signals(status - 128).name}{hint}"
