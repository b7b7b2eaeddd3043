"""`hipgpt why`: the reasons of a rerun in plain words."""

import subprocess
import sys

import pytest
from support.workflow_copy import TINY, Project

from hipgpt.pipeline.reasons import Job, explain

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(finished, tmp_path_factory) -> Project:
    return finished.copied_to(tmp_path_factory.mktemp("why") / "project")


@pytest.fixture
def why(project):
    """Return a function that writes a config, asks why, and puts the config back."""

    def ask(config: dict = TINY, *arguments: str) -> list[str]:
        project.write_config(config)
        configs = [] if "--configfile" in arguments else ["--configfile", "tiny.yaml"]
        command = [sys.executable, "-c", "from hipgpt.cli.main import main; main()", "why", *arguments, *configs]
        done = subprocess.run(command, cwd=project.folder, env=project.environment(), capture_output=True, text=True)
        project.write_config(TINY)
        return (done.stdout + done.stderr).splitlines()

    return ask


def test_nothing(why):
    assert why() == ["nothing would rerun"]


def test_a_setting_is_named_with_both_values_and_what_follows_with_its_cause(why):
    lines = why({**TINY, "model": {**TINY["model"], "num_layers": 3}, "sampling": {**TINY["sampling"], "seed": 5}})
    assert lines == [
        "train (run default): model.num_layers 1 -> 3",
        "evaluate, export, sample, inspect, playground, plot, describe (run default): because train would run",
        "summarize, overview: because train would run",
    ]


def test_several_settings_are_a_line_each(why):
    lines = why({**TINY, "training": {**TINY["training"], "steps": 13, "seed": 2}})
    at = lines.index("train (run default): training.seed 1 -> 2")
    assert lines[at + 1] == "    training.steps 12 -> 13"


def test_a_value_may_contain_the_words_before_and_now(why):
    lines = why({**TINY, "sampling": {**TINY["sampling"], "prompts": ["before: now: ; a", "b, 'c' now: {"]}})
    assert lines == [
        "sample, playground (run default): sampling.prompts ['the king'] -> ['before: now: ; a', \"b, 'c' now: {\"]",
        "describe (run default): because sample and playground would run",
        "overview: because sample and playground would run",
    ]


def test_an_edit_of_the_code_names_its_stage(project, why):
    path = project.folder / "hipgpt/reports/plots.py"
    text = path.read_text()
    path.write_text(text + "EDITED = 1\n")
    lines = why()
    path.write_text(text)
    assert lines == [
        "plot_tokenizer (corpus tiny, tokenizer bpe-290): the code of plot_tokenizer changed",
        "plot (run default): the code of plot changed",
        "describe (run default): because plot would run",
        "overview: because plot would run",
    ]


def test_an_edit_of_a_text_and_a_lost_file(project, why):
    text, sample = project.folder / "texts/0.txt", project.folder / "results/runs/default/samples.txt"
    whole, sampled = text.read_bytes(), sample.read_bytes()
    text.write_bytes(whole + b"\nmore")
    assert any(line.startswith("download (corpus tiny): files_sha256.texts/0.txt ") for line in why())
    text.write_bytes(whole)
    sample.unlink()
    assert why() == [
        "sample (run default): missing: results/runs/default/samples.txt",
        "describe (run default): because sample would run",
        "overview: because sample would run",
    ]
    sample.write_bytes(sampled)


def test_new_runs_are_one_line(why):
    lines = why({**TINY, "runs": {"wide": {}}, "sweep": {"seeds": {"grid": {"training.seed": [1, 2]}}}})
    rules = ("train", "evaluate", "export", "sample", "inspect", "playground", "plot", "describe")
    assert lines == [
        f"{', '.join(rules)} (3 runs: seeds_seed-1, seeds_seed-2 and 1 more): not made yet",
        "summarize: 3 runs: wide, seeds_seed-1 and 1 more are new",
        "    because train and evaluate would run",
        "overview: 3 runs: wide, seeds_seed-1 and 1 more are new",
        "    because train, evaluate and describe would run",
        "compare (sweep seeds): not made yet",
    ]


def test_missing_files_are_listed_in_the_order_of_their_rule(project, why):
    folder = project.folder / "results/runs/default/plots"
    pictures = {folder / name: (folder / name).read_bytes() for name in ("throughput.png", "loss.png")}
    for picture in pictures:
        picture.unlink()
    lines = why()
    for picture, whole in pictures.items():
        picture.write_bytes(whole)
    plots = "results/runs/default/plots"
    assert lines[0] == f"plot (run default): missing: {plots}/loss.png, {plots}/throughput.png"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonsense"], "error: snakemake: unrecognized arguments: --nonsense"),
        (["no_such_file"], "error: snakemake: No rule to produce no_such_file"),
        (
            ["--configfile", "none.yaml"],
            "error: --configfile: none.yaml: no such file; write targets before",
        ),
    ],
)
def test_a_mistake_that_snakemake_finds_is_one_line(why, arguments, message):
    lines = why(TINY, *arguments)
    assert len(lines) == 1 and lines[0].startswith(message)


def test_a_mistake_in_the_config_is_one_line(why):
    lines = why({**TINY, "model": {"num_head": 1}})
    assert len(lines) == 1
    assert lines[0].startswith("error: config: model.num_head: unknown key, did you mean 'num_heads'?")


def test_equal_reasons_of_several_runs_are_one_line():
    runs = [f"r{number}" for number in range(6)]
    before, after = (
        {name: {"training": {"steps": steps}, "code": {"train": steps}} for name in runs} for steps in (1, 2)
    )
    after["r0"] = before["r0"]
    jobs = [Job("plot", {"run": name}, ["a.png"], ["a.png"], [], [], [], [], [], False, False, False) for name in runs]
    jobs.append(Job("summarize", {}, ["s"], [], [], [], [], [repr(before)], [repr(after)], False, False, False))
    assert list(explain(jobs)) == [
        "plot (6 runs: r0, r1 and 4 more): not made yet",
        "summarize: training.steps 1 -> 2 (5 runs: r1, r2 and 3 more)",
        "    the code of train changed (5 runs: r1, r2 and 3 more)",
    ]


def test_a_job_without_a_reason_is_listed_all_the_same():
    job = Job("plot", {"run": "wide"}, ["a.png"], [], [], [], [], [], [], False, False, False)
    assert list(explain([job])) == ["plot (run wide): Snakemake names no reason"]
