"""Cut the power at any moment of a stage, rerun the stage on each disk that this may leave, and compare.

    python bench/power_loss.py [--stage NAME] [--reruns 50] [--seed N]

strace records the writes of each stage of a tiny project. For every moment, the contents are derived that a disk may
hold if the power fails then (tests/support/power_loss.py). If all files of the stage exist, Snakemake takes it as done,
so they must have their final bytes already. From some of these disks, drawn by chance, the stage runs again. It must
end with the bytes of an undisturbed run, or in one line that names a file. Exit status 1 if there was another end.
"""

import argparse
import collections
import contextlib
import importlib
import os
import pkgutil
import random
import re
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import traceback
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from support.disk import read_disk  # noqa: E402
from support.power_loss import Contents, restore, states  # noqa: E402
from support.system_calls import record  # noqa: E402
from support.workflow_copy import NOT_REPRODUCIBLE, TINY  # noqa: E402

import hipgpt  # noqa: E402
from hipgpt.base.compiler import host_library  # noqa: E402
from hipgpt.base.paths import KERNELS  # noqa: E402

STAGE_SECONDS = 60
DRAWN = 4  # random choices of pending writes for each moment, besides the extremes
COMMAND = re.compile(r"^    (?:trap : TERM; exec 3>&2 2>/dev/null; )?(\S+ \S+\.py .*?)(?: 2>&3.*)?$", re.MULTILINE)

# Programs of three lines for writes that no stage's script makes.
KERNEL = """import os, pathlib
from hipgpt.base.compiler import host_library
host_library(pathlib.Path("kernel.cpp").resolve())
"""
REPLACE = """from pathlib import Path
from hipgpt.pipeline.history import keep, kept_runs, restore
keep(Path("results"), "default")
"""
REMOVE = """import shutil
shutil.rmtree("results/runs/default")
"""
GO_BACK = """restore(Path("results"), kept_runs(Path("results"))[0])
"""
SEAL = """from pathlib import Path
from hipgpt.base.files import replacing
from hipgpt.pipeline.seals import check_seals, open_seals, seal
results = Path("results")
check_seals(results)
open_seals(results)
for number in range(2):
    with replacing(results / f"{number}.csv") as file:
        file.write(f"{number}".encode() * 5000)
seal(results, [results / "0.csv", results / "1.csv"])
"""


@dataclass(frozen=True)
class Stage:
    """arguments: a Python script and its arguments; again: those of the rerun; root: the folder it writes into.

    fresh: the rerun gets a new interpreter, because this one has answers of the compiler in its memory.
    """

    name: str
    arguments: list[str]
    again: list[str]
    root: Path
    fresh: bool = False


class Work:
    """A folder with a tiny project, in which stages run one after the other."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "texts").mkdir(parents=True)
        text = "".join(f"the king {n} shall speak of love and war before the night\n" for n in range(300))
        (folder / "texts" / "text.txt").write_text(text, encoding="utf-8")
        (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY), encoding="utf-8")
        (folder / "kernel.cpp").write_text('extern "C" int f(int x) { return x + 1; }\n', encoding="utf-8")
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}

    def stages(self) -> list[Stage]:
        """Return the stages in the order of the pipeline, from the commands of Snakemake's dry run."""
        options = ["--snakefile", ROOT / "Snakefile", "--directory", self.folder, "--configfile", "tiny.yaml"]
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--dry-run", "--printshellcmds", "all", *options]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr
        found = []
        for line in COMMAND.findall(done.stdout + done.stderr):
            _, *arguments = shlex.split(line)
            found.append(Stage(Path(arguments[0]).stem, arguments, arguments, self.folder / "results"))
        resumed = next(stage for stage in found if stage.name == "train")
        found.insert(found.index(resumed) + 1, replace(resumed, name="train, resumed"))
        kernel = self._program("kernel", KERNEL)
        remove, back = self._program("remove", REPLACE + REMOVE), self._program("back", REPLACE + GO_BACK)
        seal = self._program("seal", SEAL)
        return [
            *found,
            Stage("replaced run", remove, back, self.folder / "results"),
            Stage("kernel cache", kernel, kernel, self.folder / "cache", fresh=True),
            Stage("seals", seal, seal, self.folder / "results"),
        ]

    def _program(self, name: str, text: str) -> list[str]:
        path = self.folder / f"{name}.py"
        head = "from hipgpt.base.errors import exit_on_user_error\n@exit_on_user_error\ndef main():\n"
        path.write_text(head + textwrap.indent(text, "    ") + "main()\n", encoding="utf-8")
        return [str(path)]

    def check(self, stage: Stage, seed: int, reruns: int) -> tuple[int, list[str]]:
        """Run a stage with a record of its writes. Return the number of disks, and how each checked one ended.

        An end is "" if the bytes are those of an undisturbed run.
        """
        environment = self.environment | ({"XDG_CACHE_HOME": str(stage.root)} if stage.name == "kernel cache" else {})
        if stage.name == "train, resumed":  # without what was written after the first of its states
            shutil.rmtree(self.folder / "results/runs/default/checkpoints")
            for state in sorted((self.folder / "results/runs/default/state").glob("*/step_*"))[1:]:
                shutil.rmtree(state)
        before = dict(read_disk(stage.root).files()) if stage.root.exists() else {}
        start, operations = record([sys.executable, *stage.arguments], stage.root, cwd=self.folder, env=environment)
        after = dict(read_disk(stage.root).files())
        goes_back = stage.again != stage.arguments
        wanted = _results(before if goes_back else after)
        made = {} if goes_back else {name: text for name, text in wanted.items() if before.get(name) != text}
        draw, ends, chosen, number = random.Random(f"{stage.name} {seed}"), [], [], 0
        for number, contents in enumerate(states(start, operations, draw, DRAWN), start=1):
            if all(name in contents for name in made):
                ends += [f"taken as done with a wrong {name}" for name in made if contents[name] != made[name]]
            if len(chosen) < reruns:
                chosen.append(contents)
            elif (place := draw.randrange(number)) < reruns:  # so that each is as likely as another
                chosen[place] = contents
        for contents in chosen:
            restore(stage.root, contents)
            ends.append(self._end(stage, wanted, environment))
        restore(stage.root, before if goes_back else after)
        return number, ends

    def _end(self, stage: Stage, wanted: Contents, environment: dict[str, str]) -> str:
        """Run a stage again in a process of its own. Return "" if it ends with these results."""
        said = self.folder / "said"
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                self._child(stage, said, environment)
            os._exit(99)
        _, status = os.waitpid(child, 0)
        text = said.read_text(encoding="utf-8")
        if os.WIFSIGNALED(status):
            return f"died of signal {os.WTERMSIG(status)}"
        lines = [line for line in text.splitlines() if line.startswith("error: ")]
        if os.waitstatus_to_exitcode(status):
            named = len(lines) == 1 and "Traceback" not in text
            return f"refused: {lines[0]}" if named else f"failed: {text[-2000:]}"
        found = _results(dict(read_disk(stage.root).files()))
        different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        return f"differs silently: {', '.join(different)}" if different else ""

    def _child(self, stage: Stage, said: Path, environment: dict[str, str]) -> None:
        signal.alarm(STAGE_SECONDS)
        os.chdir(self.folder)
        os.environ.update(environment)
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(handle, stream)
        sys.stdout, sys.stderr = (open(stream, "w", encoding="utf-8", closefd=False) for stream in (1, 2))  # noqa: SIM115
        if stage.fresh:
            os.execv(sys.executable, [sys.executable, *stage.again])
        sys.argv, status = stage.again, 0
        sys.path.insert(0, str(Path(stage.again[0]).parent))
        try:
            runpy.run_path(stage.again[0], run_name="__main__")
        except SystemExit as error:
            if isinstance(error.code, str):
                print(error.code, file=sys.stderr)
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            traceback.print_exc()
            status = 98
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _results(contents: Contents) -> Contents:
    """Leave out timings, and the states that training resumes from."""
    return {
        path: content
        for path, content in contents.items()
        if content is not None
        and "state" not in path.split("/")
        and (Path(path).name not in NOT_REPRODUCIBLE or path == "SHA256SUMS")
        and not path.startswith("history/")
    }


def prepare() -> None:
    """Do once what every forked rerun would do again: import the package, and ask the compiler for its version."""
    for module in pkgutil.walk_packages(hipgpt.__path__, "hipgpt."):
        if ".backends" not in module.name:  # some need a GPU
            importlib.import_module(module.name)
    importlib.import_module("matplotlib.pyplot")
    host_library(KERNELS / "bpe" / "api.cpp")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", action="append", help="one of them (default: all); may be given again")
    parser.add_argument("--reruns", type=int, default=50, help="of each stage, at most")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    prepare()
    failed = 0
    print("| stage | disks | reruns | refused | wrong |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder) / "work")
        for stage in work.stages():
            chosen = not arguments.stage or stage.name in arguments.stage
            disks, ends = work.check(stage, arguments.seed, arguments.reruns if chosen else 0)
            refused = [end for end in ends if end.startswith("refused: ")]
            wrong = [end for end in ends if end and end not in refused]
            failed += len(wrong)
            print(f"| {stage.name} | {disks} | {len(ends)} | {len(refused)} | {len(wrong)} |", flush=True)
            for end, times in collections.Counter(wrong + refused).items():
                print(f"    {times} times: {end}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
