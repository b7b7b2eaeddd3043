"""Kill `snakemake all` with SIGKILL while each rule runs, rerun it plainly, and compare with an undisturbed run.

    python bench/kill_test.py --rounds 20 --seed 1

Each round takes a fresh tiny project and kills one to three starts, each while a chosen rule runs, some with all their
jobs (a power cut), some Snakemake alone (its job continues). Then it reruns until it ends well. The rules take turns in
the order of the pipeline, so 100 kills give every rule five or more. The moment within the rule is drawn from its time
in an undisturbed run. A start that ends badly must say why in one line without a traceback. Exit status 1 if any round
fails.
"""

import argparse
import collections
import contextlib
import itertools
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
POLL_SECONDS = 0.02


def start(project: Project, log: Path) -> subprocess.Popen:
    with open(log, "w", encoding="utf-8") as file:
        return subprocess.Popen(
            project.command("all", *STEPS), cwd=project.folder, env=project.environment(),
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def started_rules(log: Path) -> list[str]:
    """Return the rules that Snakemake's output names as started, in order."""
    return re.findall(r"^(?:local)?rule (\w+):", log.read_text(encoding="utf-8"), re.MULTILINE)


def watch(process: subprocess.Popen, log: Path) -> dict[str, float]:
    """Return how many seconds each rule of an undisturbed run took, until the next one began."""
    began: dict[str, float] = {}
    while process.poll() is None:
        for rule in started_rules(log):
            began.setdefault(rule, time.monotonic())
        time.sleep(POLL_SECONDS)
    ends = [*list(began.values())[1:], time.monotonic()]
    return {rule: end - start for (rule, start), end in zip(began.items(), ends, strict=True)}


def disturb(
    project: Project, draw: random.Random, targets: list[str], seconds: dict[str, float], log: Path
) -> list[str]:
    """Kill a start while each of these rules runs; return the rules."""
    killed = []
    for target in targets:
        process = start(project, log)
        while process.poll() is None and target not in started_rules(log):
            time.sleep(POLL_SECONDS)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0, seconds[target]))
        if process.poll() is not None:  # done, or refused because what was left alone is still at work
            continue
        alone = draw.random() < 0.3
        (os.kill if alone else os.killpg)(process.pid, signal.SIGKILL)
        process.wait()
        killed.append(target + (" (Snakemake alone)" if alone else ""))
    return killed


def finish(project: Project, log: Path) -> str | None:
    """Run Snakemake until it succeeds. Return a description of what went wrong, or None."""
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
        process = start(undisturbed, log)
        seconds = watch(process, log)
        assert process.returncode == 0, log.read_text(encoding="utf-8")
        expected, turns = contents(undisturbed), itertools.cycle(rule for rule in seconds if rule != "all")
        for number in range(arguments.rounds):
            project = Project(Path(work) / str(number))
            # in the pipeline's order, because a rule that is done does not run again
            targets = sorted((next(turns) for _ in range(draw.randint(1, 3))), key=[*seconds].index)
            killed = disturb(project, draw, targets, seconds, log)
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
