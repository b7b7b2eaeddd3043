"""Kill `snakemake all` with SIGKILL while each rule runs, rerun it plainly, and compare with an undisturbed run.

    python bench/kill_test.py --kills 100 --seed 1

Each round takes a fresh tiny project and kills one to six starts, each while a chosen rule runs, some with all their
jobs, some Snakemake alone (its job continues). Then it reruns until it ends well. The rules killed least so far are
chosen first. The moment within the rule is drawn from its time in an undisturbed run. Rounds follow until there are so
many kills, and five or more in every rule. A start that ends badly must say why in one line without a traceback. A
table of kills by rule comes last. Exit status 1 if any round fails.
"""

import argparse
import collections
import contextlib
import os
import random
import re
import shutil
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

STEPS = ("--config", "training={steps: 120, save_every_steps: 10}")
BETWEEN = "between rules"
MOST_KILLS_IN_A_ROUND = 6
LEAST_KILLS_IN_A_RULE = 5
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


def running_rules(log: Path) -> list[str]:
    """Return the rules that have started and not ended, according to Snakemake's output."""
    finished = re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)", log.read_text(encoding="utf-8"), re.MULTILINE)
    return [rule for rule in started_rules(log) if rule not in finished]


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
) -> list[tuple[str, str]]:
    """Kill a start while each of these rules runs; return the rule that ran at each kill, and the victim."""
    kills = []
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
        running = running_rules(log)
        kills.append((target if target in running else [*running, BETWEEN][0], "alone" if alone else "jobs too"))
    return kills


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


def differing(project: Project, expected: dict[str, bytes]) -> list[str]:
    found = contents(project)
    return sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    draw, rounds, failures = random.Random(arguments.seed), 0, 0
    victims: collections.Counter[tuple[str, str]] = collections.Counter()
    with tempfile.TemporaryDirectory() as work:
        undisturbed, log = Project(Path(work) / "undisturbed"), Path(work) / "log"
        process = start(undisturbed, log)
        seconds = watch(process, log)
        assert process.returncode == 0, log.read_text(encoding="utf-8")
        expected, rules = contents(undisturbed), [rule for rule in seconds if rule != "all"]
        by_rule = collections.Counter(dict.fromkeys(rules, 0))
        while sum(by_rule.values()) < arguments.kills or min(map(by_rule.get, rules)) < LEAST_KILLS_IN_A_RULE:
            project, rounds = Project(Path(work) / str(rounds)), rounds + 1
            chosen = sorted(rules, key=lambda rule: (by_rule[rule], draw.random()))
            # in the pipeline's order, because a rule that is done does not run again
            targets = sorted(chosen[: draw.randint(1, MOST_KILLS_IN_A_ROUND)], key=rules.index)
            kills = disturb(project, draw, targets, seconds, log)
            by_rule.update(rule for rule, _ in kills)
            victims.update(kills)
            wrong, names = finish(project, log), differing(project, expected)
            verdict = wrong or (f"differs: {', '.join(names)}" if names else "same bytes")
            failures += verdict != "same bytes"
            print(f"round {rounds}: {', '.join(f'{rule} ({how})' for rule, how in kills)}: {verdict}", flush=True)
            shutil.rmtree(project.folder)
    print(f"{rounds} rounds, {sum(by_rule.values())} kills, {failures} failures\n\n| rule | with its jobs | alone |")
    print("|---|---|---|")
    for rule in by_rule:
        print(f"| {rule} | {victims[rule, 'jobs too']} | {victims[rule, 'alone']} |")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
