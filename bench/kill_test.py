"""Kill `snakemake all` with SIGKILL at random moments, rerun it plainly, and compare with an undisturbed run.

    python bench/kill_test.py --rounds 20 --seed 1

Each round takes a fresh tiny project, kills one to three starts at random moments of an undisturbed run's length, some
with all their jobs (a power cut) or Snakemake alone (its job goes on), and reruns until it ends well. A start that ends
badly must say why in one line without a traceback. Exit status 1 if any round fails.
"""

import argparse
import collections
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from pipeline.test_faults import contents  # noqa: E402
from support.workflow_copy import Project  # noqa: E402

STEPS = ("--config", "training={steps: 600, save_every_steps: 50}")
STARTS_AFTER_THE_LAST_KILL = 20


def start(project: Project, log: Path) -> subprocess.Popen:
    with open(log, "w", encoding="utf-8") as file:
        return subprocess.Popen(
            project.command("all", *STEPS), cwd=project.folder, env=project.environment(),
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def running_rule(log: Path) -> str:
    """Return the rule that Snakemake's output named last."""
    return (
        re.findall(r"^(?:local)?rule (\w+):", log.read_text(encoding="utf-8"), re.MULTILINE) or ["before any rule"]
    )[-1]


def disturb(project: Project, draw: random.Random, seconds: float, log: Path) -> list[str]:
    """Kill up to three starts; return what was running."""
    killed = []
    for _ in range(draw.randint(1, 3)):
        process = start(project, log)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0, seconds / (1 + len(killed))))
        if process.poll() is not None:  # done, or refused because what was left alone is still at work
            continue
        alone = draw.random() < 0.3
        (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
        process.wait()
        killed.append(running_rule(log) + (" (Snakemake alone)" if alone else ""))
    return killed


def finish(project: Project, log: Path) -> str | None:
    """Rerun until it ends well; return what went wrong, if it did."""
    for _ in range(STARTS_AFTER_THE_LAST_KILL):
        if start(project, log).wait() == 0:
            return None
        text = log.read_text(encoding="utf-8")
        if "Traceback" in text:
            return f"a traceback:\n{text}"
        if "wait for it to end or stop it" not in text:
            return f"ended badly without saying that another process is at work:\n{text}"
        time.sleep(0.5)
    return "another process stays at work"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    draw, tally, failures = random.Random(arguments.seed), collections.Counter(), 0
    with tempfile.TemporaryDirectory() as work:
        undisturbed, log = Project(Path(work) / "undisturbed"), Path(work) / "log"
        began = time.monotonic()
        assert start(undisturbed, log).wait() == 0, log.read_text(encoding="utf-8")
        seconds, expected = time.monotonic() - began, contents(undisturbed)
        for number in range(arguments.rounds):
            project = Project(Path(work) / str(number))
            killed = disturb(project, draw, seconds, log)
            tally.update(killed)
            wrong, found = finish(project, log), contents(project)
            names = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
            verdict = wrong or (f"differs: {', '.join(names)}" if names else "same bytes")
            failures += verdict != "same bytes"
            print(f"round {number + 1}: killed in {', '.join(killed)}: {verdict}", flush=True)
    print(f"{arguments.rounds} rounds, {sum(tally.values())} kills, {failures} failures; killed while running:")
    for rule, count in tally.most_common():
        print(f"  {count:3} {rule}")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
