"""The format of each file of a corpus, plain text or records, and the stream of its content."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from hipgpt.base.errors import UserError
from hipgpt.data.archives import check_members, documents
from hipgpt.data.json_lines import BrokenRecords, json_lines
from hipgpt.data.parquet import parquet_texts
from hipgpt.data.plain_text import first_bytes_checked, plain_text, recoded

BY_SUFFIX = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
DEFAULT_FIELD = "text"


class Content(NamedTuple):
    """The content of a file. parts: the blocks of a document if format is "text", otherwise the texts of records.

    broken: the records that are left out, complete once the parts are read.
    """

    name: str
    format: str
    parts: Iterator[bytes]
    broken: BrokenRecords


def contents(paths: list[Path], settings: Mapping[str, Any], scratch: Path) -> Iterator[Content]:
    """Yield the contents of files and of the members of archives. One must be read before the next is asked for.

    settings: the corpus's entry in config.yaml; scratch: as in `documents`. Raises UserError, naming the file, if its
    bytes are not of its format, or if one file is plain text and another has records.
    """
    first: Content | None = None
    for path in paths:
        for content in _contents_of(path, settings, scratch):
            first = first or content
            if (content.format == "text") != (first.format == "text"):
                raise UserError(
                    f"{content.name} is {content.format} by its name, but {first.name} is {first.format}; name only "
                    "text or only records in the path, or set format"
                )
            yield content


def _contents_of(path: Path, settings: Mapping[str, Any], scratch: Path) -> Iterator[Content]:
    field, encoding = settings.get("text_field", DEFAULT_FIELD), settings.get("encoding")
    members = settings.get("members")
    if _format(path.name, settings) == "parquet":
        check_members(path, members)
        if encoding:
            raise UserError(f"{path}: texts of Parquet are UTF-8, so encoding: {encoding} changes nothing; remove it")
        yield Content(path.name, "parquet", parquet_texts(path, field), BrokenRecords())
        return
    for name, blocks in documents(path, members, scratch):
        broken = BrokenRecords(settings.get("broken_records") == "skip")
        kind, where = _format(name, settings), str(path) if name in (path.name, path.stem) else f"{path}: {name}"
        if kind == "parquet":
            raise UserError(f"{path}: {name} is Parquet inside of another file; unpack it first")
        if encoding:
            blocks = recoded(where, blocks, encoding)
        if kind == "jsonl":
            if not broken.skip:
                blocks = first_bytes_checked(where, blocks, "JSON lines")
            yield Content(name, kind, json_lines(where, blocks, field, broken), broken)
        else:
            if "text_field" in settings:
                raise UserError(f"{where}: is plain text, which has no fields; remove text_field, or set format")
            yield Content(name, kind, plain_text(where, blocks), broken)


def _format(name: str, settings: Mapping[str, Any]) -> str:
    return settings.get("format") or BY_SUFFIX.get(PurePath(name).suffix.lower(), "text")
