"""Trackers: programs that show the curves of a run while it trains. They get the rows of its CSV files.

When a process begins to train a run, a tracker forgets the rows that it has of the run. Then it gets every row that is
in the files. So it has each step once, however often the run was interrupted.
"""

import contextlib
import csv
import fcntl
import heapq
import itertools
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeAlias

from hipgpt.base.files import make_folder
from hipgpt.base.log import LOG
from hipgpt.base.nested import leaves

FOLLOWED = ("metrics.csv", "validation.csv")
PROJECT = "hipgpt"
MOST_VALUES = 1000  # of a request to MLflow
Config: TypeAlias = Mapping[str, Any]


class Row(NamedTuple):
    """values: by file and column, such as metrics/loss_nats_per_token."""

    step: int
    values: dict[str, float]


class Tracker(Protocol):
    """Made from the folder of all trackers, the name of the run and its config. The run has no rows then."""

    def log(self, rows: Sequence[Row]) -> None:
        """Add rows, in the order of their steps."""

    def close(self, finished: bool) -> None:
        """End the run of this process. finished: whether training came to its last step."""


class Trackers:
    """The trackers of a run. A tracker that fails is left out with a warning, because training is worth more.

    A context, whose end waits until all rows are stored. names: keys of TRACKERS; run: the folder of the run;
    config: its settings. Local data are stored in the folder `trackers` next to the folder of all runs.
    """

    def __init__(self, names: Sequence[str], run: Path, config: Config):
        self._files = [_GrowingFile(run / name) for name in FOLLOWED]
        self._open: dict[str, Tracker] = {}
        folder = run.resolve().parents[1] / "trackers"
        for name in names:
            with self._spared(name), _in_turn(folder):
                self._open[name] = TRACKERS[name](folder, run.name, config)

    def follow(self) -> None:
        """Give all trackers the rows that the files got since the last call."""
        if not self._open:
            return
        try:
            rows = heapq.merge(*[file.new_rows() for file in self._files], key=lambda row: row.step)
        except (OSError, ValueError) as error:
            LOG.warning("training.trackers: get no more rows, because a file cannot be read (%s)", error)
            self._open.clear()
            return
        by_step = [
            Row(step, {name: value for row in same for name, value in row.values.items()})
            for step, same in itertools.groupby(rows, key=lambda row: row.step)
        ]
        for name, tracker in list(self._open.items()):
            with self._spared(name):
                tracker.log(by_step)

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, tracker in list(self._open.items()):
            with self._spared(name):
                tracker.close(finished=kind is None)

    @contextlib.contextmanager
    def _spared(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever another project's code raises
            self._open.pop(name, None)
            LOG.warning(
                "training.trackers: %s failed (%s: %s) and gets no more rows; training continues. The next start gives "
                "it all rows", name, type(error).__name__, error,
            )  # fmt: skip


class _GrowingFile:
    """A CSV file that one knows up to a position. Its first column is the step, the others are numbers."""

    def __init__(self, path: Path):
        self._path, self._position, self._columns = path, 0, list[str]()

    def new_rows(self) -> list[Row]:
        with open(self._path, "rb") as file:
            file.seek(self._position)
            lines = list(csv.reader(file.read().decode().splitlines()))
            self._position = file.tell()
        if not self._columns:
            self._columns, *lines = lines
        names = [f"{self._path.stem}/{column}" for column in self._columns[1:]]
        return [Row(int(step), dict(zip(names, map(float, cells), strict=True))) for step, *cells in lines]


@contextlib.contextmanager
def _in_turn(folder: Path) -> Iterator[None]:
    """Wait until other processes have left the block: runs of a sweep begin at once, and one must make a database."""
    make_folder(folder)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class TensorBoard:
    def __init__(self, folder: Path, run: str, config: Config):
        from tensorboardX import SummaryWriter

        own = folder / "tensorboard" / run
        shutil.rmtree(own, ignore_errors=True)
        self._writer = SummaryWriter(str(own), purge_step=0)  # a TensorBoard that has read the old rows drops them
        self._writer.add_text("config", "\n".join(f"    {key}: {value}" for key, value in leaves(config)))

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            for name, value in row.values.items():
                self._writer.add_scalar(name, value, row.step)
        self._writer.flush()

    def close(self, finished: bool) -> None:
        self._writer.close()


class Trackio:
    def __init__(self, folder: Path, run: str, config: Config):
        os.environ.setdefault("TRACKIO_DIR", str(folder / "trackio"))
        import trackio

        with contextlib.suppress(ValueError):  # the project does not exist yet
            for old in trackio.Api().runs(PROJECT):
                if old.name == run:
                    old.delete()
        with contextlib.redirect_stdout(sys.stderr):
            self._run = trackio.init(
                PROJECT, run, config=dict(leaves(config)), embed=False, auto_log_gpu=False, auto_log_cpu=False
            )

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._run.log(row.values, step=row.step)

    def close(self, finished: bool) -> None:
        with contextlib.redirect_stdout(sys.stderr):
            self._run.finish()


class MLflow:
    def __init__(self, folder: Path, run: str, config: Config):
        import mlflow

        address = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        self._client = mlflow.MlflowClient(address)
        known = self._client.get_experiment_by_name(PROJECT)
        experiment = known.experiment_id if known else self._client.create_experiment(PROJECT)
        for old in self._client.search_runs([experiment], f"attributes.run_name = '{run}'"):
            self._client.delete_run(old.info.run_id)
        self._run = self._client.create_run(experiment, run_name=run).info.run_id
        for key, value in leaves(config):
            self._client.log_param(self._run, key, value)

    def log(self, rows: Sequence[Row]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(name, value, now, row.step) for row in rows for name, value in row.values.items()]
        for first in range(0, len(values), MOST_VALUES):
            self._client.log_batch(self._run, values[first : first + MOST_VALUES])

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if finished else "KILLED")


class Wandb:
    """Offline unless WANDB_MODE says otherwise: `wandb sync` sends the folder later."""

    def __init__(self, folder: Path, run: str, config: Config):
        import wandb

        for old in (folder / "wandb").glob(f"offline-run-????????_??????-{run}"):
            shutil.rmtree(old)
        self._run = wandb.init(
            project=PROJECT, id=run, name=run, dir=folder, config=dict(config),
            mode=os.environ.get("WANDB_MODE", "offline"), settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._run.log(row.values, step=row.step)

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)  # by which its page says finished or failed


TRACKERS: Mapping[str, Callable[[Path, str, Config], Tracker]] = {
    "tensorboard": TensorBoard,
    "trackio": Trackio,
    "mlflow": MLflow,
    "wandb": Wandb,
}
