"""Read the samples of a finished run: its texts, and the settings that they were drawn with."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hipgpt.base.csv_file import read_csv
from hipgpt.config.settings import SamplingConfig
from hipgpt.reports.runs import RERUN

SETTINGS: Mapping[str, Callable[[str], Any]] = {
    "num_tokens": int,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "repetition_penalty": float,
    "stop_at_end_of_text": lambda text: text == "True",
    "seed": int,
}
UNSAMPLED = SamplingConfig(num_tokens=100)
COLUMNS: Mapping[str, Callable[[str], Any]] = {"prompt": str, "continuation": str, **SETTINGS}


def samples_of(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of samples.csv, none if it is not written yet. Raises UserError if it is damaged."""
    return read_csv(folder / "samples.csv", COLUMNS, RERUN)


def sampling_of(folder: Path) -> SamplingConfig:
    """Return the run's section `sampling`, which samples.csv repeats in each row; UNSAMPLED if there is none yet."""
    rows = samples_of(folder)
    return SamplingConfig(**{name: rows[0][name] for name in SETTINGS}) if rows else UNSAMPLED
