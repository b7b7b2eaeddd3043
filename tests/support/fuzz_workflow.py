"""The fuzz target of a whole `snakemake --dry-run`, whose config.yaml is mutated: a plan, or one line."""

import contextlib
import functools
import os
import sys
import tempfile
import traceback
from pathlib import Path

from snakemake.cli import main

from hipgpt.base.errors import UserError
from support.workflow_copy import Project


@functools.cache
def project(process: int) -> Project:
    """Return a copy of the project for a process, whose config.yaml changes with each case."""
    folder = tempfile.TemporaryDirectory()
    found = Project(Path(folder.name))
    found.keep = folder  # until the process ends
    return found


def read_plan(folder: Path) -> None:
    """Plan `all` with the config of the case. Raises UserError with the line by which it is refused."""
    copy = project(os.getpid())
    (copy.folder / "config.yaml").write_bytes((folder / "config.yaml").read_bytes())
    status, said = _dry_run(copy.folder)
    if status == 0:
        assert "Job stats:" in said or "Nothing to be done" in said, said
        return
    *before, last = said.splitlines() or [""]
    assert last.startswith("error: ") and "config" in last, said
    assert not any(line.startswith(("Traceback", "error: ")) or "Exception" in line for line in before), said
    raise UserError(last)


def _dry_run(folder: Path) -> tuple[int, str]:
    """Run Snakemake's main in a process of its own, which need not import it again; return its status and output."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.chdir(folder)
            handle = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(handle, stream)
            # pytest put others in their place
            sys.stdout, sys.stderr = (open(stream, "w", encoding="utf-8", closefd=False) for stream in (1, 2))  # noqa: SIM115
            sys.argv = ["snakemake", "--cores", "1", "--dry-run", "all"]
            try:
                main()
            except SystemExit as error:
                if isinstance(error.code, str):
                    print(error.code, file=sys.stderr)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(error.code if isinstance(error.code, int) else int(error.code is not None))
            except BaseException:
                traceback.print_exc()
        os._exit(99)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), (folder / "said").read_text(encoding="utf-8", errors="replace")
