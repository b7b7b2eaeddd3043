"""A corpus: its files are fetched, verified, read, cleaned, and split into a training and a validation text.

A corpus may be larger than memory: a document of plain text is copied in blocks, and each cleaning step holds at most
64 KiB in addition to its block. A record of JSON lines or Parquet is held as a whole. The folder that build_corpus
writes needs space for the text once.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from hipgpt.base.errors import UserError
from hipgpt.base.files import matching_files, replacing, sha256_of
from hipgpt.base.json_files import write_json
from hipgpt.base.log import LOG
from hipgpt.data.cleaning import CLEANING
from hipgpt.data.download import fetch, fetch_sdist, without_password
from hipgpt.data.formats import Content, contents
from hipgpt.data.hub import fetch_from_hub
from hipgpt.data.split import FILES, SplitText


def build_corpus(name: str, settings: Mapping[str, Any], output: Path, downloads: Path) -> None:
    """Write output/train.txt, validation.txt, documents.bin and provenance.json of the corpus that settings describe.

    settings: the corpus's entry in config.yaml, checked by the schema; downloads: folder that keeps downloaded files.
    Raises UserError, naming the corpus, if its source cannot be fetched, has an unexpected hash, or is too short.
    """
    try:
        source, paths, facts = SOURCES[settings["kind"]](name, settings, downloads)
        record = {"corpus": name, "source": source, "sha256": _sha256_of_all(paths), "cleaning": settings["cleaning"]}
        record["source_bytes"] = sum(path.stat().st_size for path in paths)
        record["validation_fraction"] = settings["validation_fraction"]
        record |= facts
        record |= {key: settings[key] for key in ("split", "text_field", "encoding") if key in settings}
        if settings.get("sha256", record["sha256"]) != record["sha256"]:
            raise UserError(
                f"{source}: sha256 is {record['sha256']}, expected {settings['sha256']}; correct the file or the config"
            )
        with ExitStack() as stack:
            files = [stack.enter_context(replacing(output / file)) for file in FILES]
            split = SplitText(files, settings["validation_fraction"], settings.get("split") == "hash")
            found = contents(paths, settings, scratch=output)
            record["documents"] = [{"name": one.name, **_add(split, one, settings["cleaning"])} for one in found]
            split.check()
        write_json(output / "provenance.json", record)
    except UserError as error:
        raise UserError(f"corpus {name}: {error}") from error


def _add(split: SplitText, content: Content, cleaning: Iterable[str]) -> dict[str, str | int]:
    """Add the content of a file to the text of the corpus. Return what provenance.json says about it."""
    if content.format == "text":
        return split.add_text(_cleaned(content.parts, cleaning))
    digest = hashlib.sha256()
    records = validation_records = without_text = size = 0
    for part in content.parts:
        text = b"".join(_cleaned(iter([part]), cleaning)) if cleaning else part
        if text:
            digest.update(len(text).to_bytes(8, "little") + text)  # the length, so that borders count
            validation_records += split.add_record(text)
            records, size = records + 1, size + len(text)
        else:
            without_text += 1
    _report(content, records + without_text)
    return {
        "format": content.format,
        "sha256": digest.hexdigest(),
        "text_bytes": size,
        "records": records,
        "validation_records": validation_records,
        "records_without_text": without_text,
        "broken_records": content.broken.count,
    }


def _report(content: Content, whole: int) -> None:
    """Log the broken records of a file. Raises UserError if none is whole, as after a mistyped text_field."""
    count, first = content.broken.count, content.broken.first
    if count and not whole:
        raise UserError(f"{content.name}: all {count:,} records are broken; the first: {first}")
    if count:
        LOG.warning(
            "%s: left out %s broken record%s; the first: %s", content.name, f"{count:,}", "s" * (count > 1), first
        )


def _cleaned(blocks: Iterator[bytes], cleaning: Iterable[str]) -> Iterator[bytes]:
    for step in cleaning:
        blocks = CLEANING[step](blocks)
    return blocks


class Source(NamedTuple):
    """origin: where a corpus is from, in words; paths: its files on this machine; facts: more for provenance.json."""

    origin: str
    paths: list[Path]
    facts: Mapping[str, Any] = {}


def _local(name: str, settings: Mapping[str, Any], downloads: Path) -> Source:
    paths, pattern = matching_files(settings["path"]), settings["path"]
    if not paths:
        raise UserError(f"path {pattern!r} matches no file in {Path.cwd()}")
    return Source(pattern if isinstance(pattern, str) else ", ".join(pattern), paths)


def _downloaded(name: str, settings: Mapping[str, Any], downloads: Path) -> Source:
    url = settings["url"]
    return Source(without_password(url), [fetch(url, _folder(downloads, name, url), settings.get("sha256"))])


def _package(name: str, settings: Mapping[str, Any], downloads: Path) -> Source:
    identity = f"{settings['package']} {settings['version']}"
    folder = _folder(downloads, name, identity)
    path = fetch_sdist(settings["package"], settings["version"], folder, settings.get("sha256"))
    return Source(f"package index: {identity}, {path.name}", [path])


def _hub(name: str, settings: Mapping[str, Any], downloads: Path) -> Source:
    repository, revision, patterns = settings["repository"], settings.get("revision", "main"), settings["files"]
    folder = _folder(downloads, name, repository)
    patterns = [patterns] if isinstance(patterns, str) else patterns
    commit, paths = fetch_from_hub(repository, revision, patterns, folder, "dataset")
    facts = {"commit": commit, "files_sha256": {file: sha256_of(path) for file, path in paths.items()}}
    return Source(f"Hugging Face: {repository} at {revision}", [*paths.values()], facts)


SOURCES: dict[str, Callable[[str, Mapping[str, Any], Path], Source]] = {
    "file": _local,
    "url": _downloaded,
    "pypi": _package,
    "huggingface": _hub,
}


def _folder(downloads: Path, name: str, identity: str) -> Path:
    """Return the folder for the downloads of a source of a corpus, apart from those of its other sources."""
    return downloads / f"{name}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def _sha256_of_all(paths: list[Path]) -> str:
    """Return the sha256 of a single file. For several files, return that of the lines that `sha256sum` prints."""
    if len(paths) == 1:
        return sha256_of(paths[0])
    return hashlib.sha256("".join(f"{sha256_of(path)}  {path}\n" for path in paths).encode()).hexdigest()
