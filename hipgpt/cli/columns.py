"""The columns of the table of runs: their headings, and the names by which --sort and --filter find them."""

from collections import Counter
from collections.abc import Sequence

from hipgpt.base.errors import UserError
from hipgpt.base.nearest import did_you_mean
from hipgpt.config.settings import SAVING_KEYS
from hipgpt.reports.runs import Row

# The table for people has fewer columns than the other formats. Values that all runs share are printed once, below it.
FIGURES = {
    "parameters": "parameters",
    "steps": "steps",
    "tokens_seen": "tokens",
    "validation_bits_per_byte": "bits/byte",
    "median_tokens_per_second": "tokens/s",
}
ORIGINS = {"device": "device", "code_sha256": "code", "corpus": "corpus", "corpus_sha256": "corpus sha256"}
WHOLE = ("run", "parameters", "steps", "bits/byte", "tokens/s")  # headings that a table for people always has
# settings that change no weight and no loss; only --csv and --json have them
WITHOUT_INFLUENCE = {
    f"training.{name}"
    for name in (*SAVING_KEYS, "log_every_steps", "sample_every_steps", "sample_prompt", "sample_tokens")
}
HEADINGS = {"run": "run", **FIGURES, **ORIGINS}


def setting_headings(rows: Sequence[Row]) -> dict[str, str]:
    """Return the settings of influence in which runs differ, by dotted key, with their headings.

    A heading is the last part of the key, or the whole key if the part is the heading of another column too.
    """
    settings = [key for key in rows[0] if "." in key and key not in WITHOUT_INFLUENCE]
    differing = [key for key in settings if len({repr(row[key]) for row in rows}) > 1]
    taken = Counter([*map(_last_part, differing), *HEADINGS.values()])
    return {key: _last_part(key) if taken[_last_part(key)] == 1 else key for key in differing}


def column_named(name: str, rows: Sequence[Row], option: str) -> str:
    """Return the column that a name means: a column, a heading, or the last part of one setting's dotted key.

    rows: all runs, so that a name means the same with every filter. Raises UserError if the name means none or several.
    """
    columns, headings = list(rows[0]), {**HEADINGS, **setting_headings(rows)}
    named = [column for column in columns if column == name]
    named = named or [column for column, heading in headings.items() if heading == name]
    named = named or [column for column in columns if _last_part(column) == name]
    if len(named) > 1:
        raise UserError(f"{option}: {name!r} may be {' or '.join(named)}; write one of these names")
    if not named:
        close = did_you_mean(name, dict.fromkeys([*columns, *headings.values(), *map(_last_part, columns)]))
        with_word = [column for column in columns if name in column.split("_")]
        close = close or (f", did you mean {' or '.join(map(repr, with_word))}?" if with_word else "")
        shown = ", ".join(column for column in columns if "." not in column)
        raise UserError(f"{option}: no column {name!r}{close or f'; columns are {shown}, and the keys of the config'}")
    return named[0]


def _last_part(column: str) -> str:
    return column.rpartition(".")[2]
