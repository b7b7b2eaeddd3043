"""Push exported files to a repository of the Hugging Face hub, or of the server that HF_ENDPOINT names."""

import re
from collections.abc import Sequence
from pathlib import Path

from hipgpt.base.errors import UserError

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


def check_push(repository: str) -> None:
    """Raise UserError if `push` would fail before it asks the server: its name, the package or a token is missing."""
    if not REPOSITORY.fullmatch(repository):
        raise UserError(f"--push: got {repository!r}, expected OWNER/NAME")
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise UserError(
            "the package huggingface_hub is missing, but --push needs it; pip install -e '.[hub]'"
        ) from error
    if hub.get_token() is None:
        raise UserError("--push: found no token of the hub; set HF_TOKEN, or log in by hf auth login")


def push(files: Sequence[Path], repository: str, message: str, private: bool = False) -> str:
    """Add files to the top of a repository by one commit, and return the address of the repository.

    repository: OWNER/NAME; it is created if it does not exist, public unless `private`. Raises UserError if the server
    refuses.
    """
    import huggingface_hub as hub

    additions = [hub.CommitOperationAdd(path.name, path) for path in files]
    try:
        address = hub.create_repo(repository, private=private, exist_ok=True).url
        hub.create_commit(repository, additions, commit_message=message)
    except (hub.errors.HTTPError, OSError, RuntimeError, ValueError) as error:  # uploads fail with a RuntimeError
        reason = " ".join(str(error).split())
        raise UserError(f"--push: {hub.constants.ENDPOINT} refused {repository}: {reason}") from error
    return str(address)
