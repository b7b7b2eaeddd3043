"""Downloads: they are retried, can be resumed, and are checked against a SHA-256 before they are used.

A file is called NAME.part until it is complete and its hash is right, so a file with its final name can be trusted.
"""

import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import urlsplit

import requests
import urllib3
from pypi_simple import DistributionPackage, NoSuchProjectError, PyPISimple, UnsupportedContentTypeError
from tqdm import tqdm

from hipgpt.base.errors import UserError
from hipgpt.base.files import make_folder, sha256_of, sync
from hipgpt.base.log import LOG

PAUSES_SECONDS = (1, 2, 4)  # before the second, third and fourth attempt
TIMEOUT_SECONDS = (10, 60)  # to connect, between two blocks
BLOCK = 64 << 10  # bytes received at once, at most
LEAST_BYTES_PER_SECOND, PATIENCE_SECONDS = 1000, 120  # a server that sends less for so long is given up
BUSY = (408, 429)  # HTTP statuses below 500 after which another attempt may succeed
LENGTH = re.compile(r"[0-9]{1,18}")

T = TypeVar("T")


def fetch(url: str, folder: Path, sha256: str | None) -> Path:
    """Download url into folder and return the file. A file with the right hash is not downloaded again.

    sha256: expected, in hex; None accepts any content. Without a hash, the .part of an earlier run is not resumed,
    because a change of the file in the meantime would not be noticed. Raises UserError with the reason if the download
    fails, or with both hashes if they differ; the file is then removed.
    """
    target = folder / (PurePosixPath(urlsplit(url).path).name.strip(".") or "download")
    part = target.with_name(target.name + ".part")
    if _is_there(target, sha256):
        return target
    make_folder(folder)
    if sha256 is None:
        part.unlink(missing_ok=True)
    if not (part.exists() and sha256_of(part) == sha256):
        remedy = f"check the network and the address, or put the file at {target}"
        _retry(url, remedy, partial(_continue_download, url, part))
    got = sha256_of(part)
    if sha256 not in (None, got):
        part.unlink()
        target.unlink(missing_ok=True)
        raise UserError(
            f"{without_password(url)}: sha256 is {got}, expected {sha256}; the file was removed: "
            "run again, and if this repeats, check the source before you change the config"
        )
    sync(part)
    os.replace(part, target)
    sync(folder)
    return target


def fetch_sdist(package: str, version: str, folder: Path, sha256: str | None) -> Path:
    """Download the source archive of a package into folder and return it. None of its code is run.

    The index is pip's default one, or the one that PIP_INDEX_URL names. sha256: expected, in hex; None takes the hash
    that the index gives. Raises UserError as `fetch` does, and if the index lacks the package or the version.
    """
    for file in sorted(folder.glob("*")):
        if file.suffix != ".part" and _is_there(file, sha256):
            return file
    sdist = _find_sdist(package, version)
    return fetch(sdist.url, folder, sha256 or sdist.digests.get("sha256"))


def without_password(url: str) -> str:
    """Return url without its user and password, for messages and records."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _is_there(file: Path, sha256: str | None) -> bool:
    return file.exists() and sha256 in (None, sha256_of(file))


def _find_sdist(package: str, version: str) -> DistributionPackage:
    index = os.environ.get("PIP_INDEX_URL")
    with PyPISimple(index) if index else PyPISimple() as client:
        url = client.get_project_url(package)
        try:
            remedy = "check the network, or set PIP_INDEX_URL to a package index that can be reached"
            page = _retry(url, remedy, partial(client.get_project_page, package, timeout=TIMEOUT_SECONDS))
        except (NoSuchProjectError, UnsupportedContentTypeError) as error:
            raise UserError(f"{without_password(url)}: this index has no package {package!r}") from error
    sdists = {found.version: found for found in page.packages if found.package_type == "sdist" and found.version}
    if version not in sdists:
        raise UserError(
            f"{without_password(url)}: no source archive of {package} {version!r}; it has {', '.join(sdists) or 'none'}"
        )
    return sdists[version]


def _retry(url: str, remedy: str, action: Callable[[], T]) -> T:
    """Return action(). If it fails and the network or server may recover, try again after each of PAUSES_SECONDS."""
    pauses = iter(PAUSES_SECONDS)
    while True:
        try:
            return action()
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            message = f"cannot download {without_password(url)}: {_reason(error)}"
            pause = next(pauses, None) if _may_pass(error) else None
            if pause is None:
                raise UserError(f"{message}; {remedy}") from error
            LOG.warning("%s; trying again in %d s", message, pause)
            time.sleep(pause)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, requests.HTTPError):
        return error.response.status_code >= 500 or error.response.status_code in BUSY
    passing = (
        requests.ConnectionError,
        requests.Timeout,
        urllib3.exceptions.ProtocolError,
        urllib3.exceptions.TimeoutError,
    )
    return isinstance(error, passing)


def _reason(error: Exception) -> str:
    """Return the innermost cause in a few words: requests wraps a failed look-up of a host in four exceptions.

    What a server sent may hold control characters, which must not reach a terminal.
    """
    if isinstance(error, requests.HTTPError):
        return _printable(f"HTTP {error.response.status_code} {error.response.reason}")
    cause: BaseException = error
    while inner := cause.__cause__ or cause.__context__:
        cause = inner
    return _printable(getattr(cause, "strerror", None) or str(cause))


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)[:300]


def _get(url: str, headers: dict[str, str]) -> requests.Response:
    try:
        return requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS)
    except ValueError as error:  # an address that a server redirects to
        raise requests.exceptions.InvalidURL(str(error)) from error


def _continue_download(url: str, part: Path) -> None:
    """Append the missing bytes of url to part, or start over if the server does not serve ranges."""
    there = part.stat().st_size if part.exists() else 0
    # identity: a range counts bytes as sent, so they must be sent as stored
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={there}-"} if there else {})
    with _get(url, headers) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink(missing_ok=True)
            raise requests.ConnectionError(f"the server has no bytes from {there:,} on")
        answer.raise_for_status()
        resumed = answer.headers.get("Content-Range", "").startswith(f"bytes {there}-")
        there = there if resumed else 0
        length = None if "Content-Encoding" in answer.headers else answer.headers.get("Content-Length")
        total = there + int(length) if length is not None and LENGTH.fullmatch(length) else None
        # disable: None shows it on a terminal only
        shown = tqdm(desc=part.stem, total=total, initial=there, unit="B", unit_scale=True, disable=None, leave=False)
        with open(part, "ab" if resumed else "wb") as file, shown as bar:
            began = time.monotonic()
            while block := answer.raw.read1(BLOCK, decode_content=True):  # returns what has arrived
                file.write(block)
                bar.update(len(block))
                seconds, received = time.monotonic() - began, file.tell() - there
                if seconds > PATIENCE_SECONDS and received < LEAST_BYTES_PER_SECOND * seconds:
                    raise requests.ConnectionError(f"{received:,} bytes in {seconds:.0f} s, which is too slow")
            if total not in (None, file.tell()):
                raise requests.ConnectionError(f"the connection closed after {file.tell():,} of {total:,} bytes")
