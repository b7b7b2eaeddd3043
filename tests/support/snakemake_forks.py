"""Snakemake in forks of a process that has imported it: a start without the imports, which are half of its time.

The process imports nothing of HipGPT, so a fork takes the package, the plugin and the Snakefile of its own folder, as
`python -m snakemake` does. Signals to a group of processes, and limits, need a Snakemake of its own: Project.start.
"""

import atexit
import functools
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

# what a workflow imports in addition to the first: libraries of Snakemake and of HipGPT, which import no part of HipGPT
IMPORTS = ("snakemake.cli", "docutils.core", "jinja2", "jsonschema", "ml_dtypes", "numpy", "safetensors.numpy",
           "smart_open", "snakemake.report", "tqdm")  # fmt: skip


@functools.cache
def _server() -> subprocess.Popen[str]:
    """Return the process that forks. It ends with this one."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    server = subprocess.Popen([sys.executable, __file__], env=variables, stdin=-1, stdout=-1, text=True)
    atexit.register(server.communicate)  # closes its input
    return server


def snakemake(arguments: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run a command of Snakemake in a folder; return its exit status and what it wrote to both streams."""
    with tempfile.TemporaryDirectory() as work:
        pipe = Path(work, "said")  # as a terminal, and unlike a file, it has no size that a limit may cut
        os.mkfifo(pipe)
        asked = {"arguments": arguments, "folder": str(folder), "environment": environment, "pipe": str(pipe)}
        server = _server()
        print(json.dumps(asked), file=server.stdin, flush=True)
        said = pipe.read_bytes()
        return int(server.stdout.readline()), said.decode("utf-8", "backslashreplace")


def _become(arguments: list[str], folder: str, environment: dict[str, str], pipe: str) -> None:
    """Make this process what `python -m snakemake` is in a folder and an environment."""
    handle = os.open(pipe, os.O_WRONLY)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, stream in ((nothing, 0), (handle, 1), (handle, 2)):
        os.dup2(source, stream)
    os.close(handle)
    # the ones that Python made at its start know what the streams were then
    sys.stdout, sys.stderr = (open(stream, "w", buffering=1, closefd=False) for stream in (1, 2))  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:1] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = ["snakemake", *arguments]
    runpy.run_module("snakemake", run_name="__main__", alter_sys=True)


def main() -> None:
    """Fork for each line of the input; the parent answers with the exit status."""
    for name in IMPORTS:
        importlib.import_module(name)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            return _become(**json.loads(line))  # and end as a program does, with all its clean-up
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


if __name__ == "__main__":
    main()
