"""Files of a repository of the Hugging Face Hub, through the package huggingface_hub.

It reads HF_TOKEN, and the address of another server from HF_ENDPOINT. A download that was cut off is continued.
"""

import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import quote

from hipgpt.base.errors import UserError
from hipgpt.base.files import make_folder, replacing

INSTALL = "pip install -e '.[hub]'"
NAMES_SHOWN = 8


class HubFiles(NamedTuple):
    """commit: the one that the revision named; paths: the files on this machine by their names in the repository."""

    commit: str
    paths: dict[str, Path]


def fetch_from_hub(repository: str, revision: str, patterns: Sequence[str], folder: Path, kind: str) -> HubFiles:
    """Download files of a repository into a folder of the commit below `folder`, in the order of their names.

    repository: OWNER/NAME; revision: a branch, a tag or a commit; patterns: names or globs (fnmatch; * also matches /);
    kind: "dataset" or "model". The folder remembers the commit of a revision, so that a later call gives the same files
    although the branch has moved. Raises UserError if the package is missing, the server refuses, or nothing matches.
    """
    try:
        from huggingface_hub import HfApi, errors, hf_hub_download
        from huggingface_hub.errors import HTTPError
    except ImportError:
        raise UserError(f"{repository}: needs the package huggingface_hub; {INSTALL}") from None
    except ValueError as error:  # the package reads the address when it is imported
        raise UserError(f"HF_ENDPOINT: got {os.environ.get('HF_ENDPOINT')!r}, expected an address ({error})") from None
    server = os.environ.get("HF_ENDPOINT")
    where = f"{repository} at {revision}"
    remembered = folder / f"commit of {quote(revision, safe='')}"
    if remembered.is_file():
        revision = remembered.read_text(encoding="utf-8")
    try:
        api = HfApi(endpoint=server)
        found = (api.dataset_info if kind == "dataset" else api.model_info)(repository, revision=revision)
        known = sorted(sibling.rfilename for sibling in found.siblings or [])
        names = [name for name in known if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
        if not names:
            listed = ", ".join(known[:NAMES_SHOWN]) or "nothing"
            raise UserError(f"{where}: no file matches {' or '.join(patterns)}; it holds {len(known)}: {listed}, ...")
        commit = str(found.sha)
        target = folder / commit[:12]
        make_folder(target)
        with replacing(remembered) as file:
            file.write(commit.encode())
        paths = {}
        for name in names:
            _check_inside(where, name)
            paths[name] = Path(
                hf_hub_download(repository, name, repo_type=kind, revision=commit, local_dir=target, endpoint=server)
            )
    except (HTTPError, errors.EntryNotFoundError, OSError, ValueError) as error:
        if getattr(error, "errno", None):  # of the disk, not of the network
            raise
        raise UserError(
            f"{where}: cannot be fetched ({str(error).strip() or type(error).__name__}); check the name, the network, "
            "HF_ENDPOINT, and HF_TOKEN if it is not public"
        ) from error
    return HubFiles(commit, paths)


def _check_inside(where: str, name: str) -> None:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise UserError(f"{where}: the file {name!r} points outside of the repository: refused")
