"""The texts in a Parquet file: one of its columns, read row group by row group, so that memory does not grow."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hipgpt.base.errors import UserError

ROWS_AT_ONCE = 1024
MAGIC = b"PAR1"
INSTALL = "pip install -e '.[parquet]'"


def parquet_texts(path: Path, column: str) -> Iterator[bytes]:
    """Yield the text of each row of a column, in UTF-8. That of a null is empty.

    Raises UserError if pyarrow is not installed, if the file is damaged or not Parquet, or if it has no such column of
    texts; the message lists the columns.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path}: Parquet needs the package pyarrow; {INSTALL}") from None
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise UserError(f"{path}: does not begin with {MAGIC.decode()}, so it is not Parquet; set format: text")
    try:
        with arrow.parquet.ParquetFile(path) as table:
            _check_column(path, table.schema_arrow, column, arrow)
            for group in range(table.num_row_groups):
                for batch in table.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=[column]):
                    for text in batch.column(0).to_pylist():
                        yield (text or "").encode()
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged ({error}); remove it if it was downloaded, otherwise replace it") from error


def _check_column(path: Path, schema: Any, column: str, arrow: Any) -> None:
    columns = {field.name: field.type for field in schema}
    listed = ", ".join(f"{name} ({kind})" for name, kind in columns.items())
    if column not in columns:
        raise UserError(f"{path}: no column {column!r}; its columns are {listed}; set text_field to one of them")
    kind = columns[column]
    if not (arrow.types.is_string(kind) or arrow.types.is_large_string(kind)):
        raise UserError(
            f"{path}: the column {column!r} is of type {kind}, expected string; its columns are {listed}; "
            "set text_field to one of them"
        )
