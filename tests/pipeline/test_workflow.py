"""The workflow as a user sees it: one command makes everything, and only changed stages run again."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.workflow_copy import TINY, Project

from hipgpt.base.paths import ROOT

pytestmark = pytest.mark.slow

AFTER_TRAIN = {"export", "evaluate", "sample", "playground", "inspect", "plot", "describe", "summarize", "overview"}
ALL = {"download", "train_tokenizer", "plot_tokenizer", "tokenize", "manifest", "baselines", "train"} | AFTER_TRAIN
OF_SHARDS = {"tokenize", "manifest", "baselines", "train"} | AFTER_TRAIN


def override(project: Project, **sections: dict) -> None:
    project.write_config({**TINY, **{key: {**TINY.get(key, {}), **value} for key, value in sections.items()}})


EDIT, EDIT_CPP = "EDITED = 1\n", "constexpr int EDITED = 1;\n"


def append(path: str, text: str) -> Callable[[Project], None]:
    def change(project: Project) -> None:
        with open(project.folder / path, "a") as file:
            file.write(text)

    return change


def touch_every_file(project: Project) -> None:
    for path in project.folder.rglob("*"):
        if ".snakemake" not in path.parts:
            os.utime(path)


def clone_and_copy_results_with_their_dates(project: Project) -> None:
    old = project.folder.rename(project.folder.with_name("old"))
    Project(project.folder)
    shutil.copytree(old / "results", project.folder / "results")


def clone_and_copy_results_and_records_without_dates(project: Project) -> None:
    old = project.folder.rename(project.folder.with_name("old"))
    Project(project.folder)
    for part in ("results", ".snakemake"):
        shutil.copytree(old / part, project.folder / part, copy_function=shutil.copyfile)


def delete(path: str) -> Callable[[Project], None]:
    return lambda project: (project.folder / "results" / path).unlink()


CHANGES = {
    "nothing": (lambda project: None, set()),
    "touch of every file": (touch_every_file, set()),
    "fresh clone with copied results": (clone_and_copy_results_with_their_dates, set()),
    "fresh clone with results and records copied at another time": (
        clone_and_copy_results_and_records_without_dates,
        set(),
    ),
    "a comment in a kernel": (append("kernels/gpu/attention.hip", "// more words\n"), set()),
    "a comment in training": (append("hipgpt/training/loop.py", "# more words\n"), set()),
    "a sentence in README": (append("README.md", "\nanother line\n"), set()),
    "a tracker": (lambda p: override(p, training={"trackers": ["tensorboard"]}), set()),
    "how the state is saved": (lambda p: override(p, training={"keep_last": 3, "save_every_steps": 4}), set()),
    "the device by name, which `auto` chose": (lambda p: p.write_config({**TINY, "device": "cpu"}), set()),
    "a name of its own": (lambda p: p.write_config({**TINY, "name": "long"}), {"train"} | AFTER_TRAIN),
    "learning rate": (lambda p: override(p, training={"learning_rate_peak": 1e-3}), {"train"} | AFTER_TRAIN),
    "layers and heads swapped": (
        lambda p: override(p, model={"num_layers": 2, "num_heads": 1}),
        {"train"} | AFTER_TRAIN,
    ),
    "vocabulary size": (lambda p: override(p, tokenizer={"vocab_size": 280}), ALL - {"download"}),
    "number of shards": (lambda p: p.write_config({**TINY, "train_shards": 1}), OF_SHARDS),
    "prompts": (
        lambda p: override(p, sampling={"prompts": ["my lord"]}),
        {"sample", "playground", "describe", "overview"},
    ),
    "evaluation stride": (
        lambda p: override(p, evaluation={"stride_tokens": 2}),
        {"evaluate", "export", "describe", "summarize", "overview"},
    ),
    "an edit of the corpus": (append("texts/0.txt", "\nand more text"), ALL),
    "an edit in sampling.py": (append("hipgpt/inference/sampling.py", EDIT), {"sample", "describe", "overview"}),
    "an edit in plots.py": (
        append("hipgpt/reports/plots.py", EDIT),
        {"plot", "plot_tokenizer", "describe", "overview"},
    ),
    "an edit in a CPU kernel": (
        append("kernels/cpu/layernorm.cpp", EDIT_CPP),
        {"train"} | AFTER_TRAIN,
    ),
    "an edit in a header of kernels": (
        append("kernels/formulas.h", EDIT_CPP),
        {"train"} | AFTER_TRAIN,
    ),
    "an edit in the tokenizer's kernel": (
        append("kernels/bpe/api.cpp", EDIT_CPP),
        ALL - {"download"},
    ),
    "a deleted checkpoint": (delete("runs/default/checkpoints/best.safetensors"), {"train"} | AFTER_TRAIN),
    "a deleted shard": (delete("corpora/tiny/bpe-290/train_00001.bin"), OF_SHARDS),
    "a deleted picture": (delete("runs/default/plots/loss.png"), {"plot", "describe", "overview"}),
    "an edit in pages.py": (append("hipgpt/reports/pages.py", EDIT), {"describe", "overview"}),
    "an edit in comparison.py, without a sweep": (append("hipgpt/reports/comparison.py", EDIT), set()),
    "a second run": (
        lambda p: p.write_config({**TINY, "runs": {"relu": {"model": {"activation": "relu"}}}}),
        {"train"} | AFTER_TRAIN,
    ),
}


def test_the_small_test_that_a_user_runs_needs_the_repository_only(tmp_path):
    project = Project(tmp_path)
    for part in (".test", "docs"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("results", ".snakemake"))
    command = (tmp_path / ".test/config.yaml").read_text().split("#   ")[1].split("\n")[0]
    done = subprocess.run([sys.executable, "-m", *command.split()], cwd=tmp_path, env=project.environment())
    assert done.returncode == 0 and (tmp_path / ".test/results/runs/tiny/report.html").exists()


@pytest.mark.parametrize("change", CHANGES)
def test_exactly_what_depends_on_a_change_reruns(changed, change):
    make_change, expected = CHANGES[change]
    make_change(changed)
    assert changed.would_run() == expected


def test_every_stage_runs_at_first(tmp_path):
    assert Project(tmp_path / "project").would_run() == ALL


def test_layers_and_heads_swapped_from_a_state_where_both_differ_reruns_training(changed):
    override(changed, model={"num_layers": 1, "num_heads": 2})
    assert changed.would_run() == set()
    override(changed, model={"num_layers": 2, "num_heads": 1})
    assert "train" in changed.would_run()


def test_a_second_run_shares_corpus_and_tokenizer_and_leaves_the_first_alone(changed):
    before = (changed.folder / "results/runs/default/checkpoints/best.safetensors").stat().st_mtime_ns
    changed.write_config({**TINY, "runs": {"relu": {"model": {"activation": "relu"}}}})
    changed.snakemake("all")
    assert (changed.folder / "results/runs/default/checkpoints/best.safetensors").stat().st_mtime_ns == before
    with open(changed.folder / "results/summary.csv") as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["default", "relu"]
    assert changed.would_run() == set()


def test_a_deleted_shard_is_remade_with_the_same_bytes_and_training_resumes_at_its_end(changed):
    shard = changed.folder / "results/corpora/tiny/bpe-290/train_00001.bin"
    metrics = changed.folder / "results/runs/default/metrics.csv"
    bytes_before, metrics_before = shard.read_bytes(), metrics.read_bytes()
    shard.unlink()
    output = changed.snakemake("all")
    assert shard.read_bytes() == bytes_before and metrics.read_bytes() == metrics_before
    assert "resuming after step 12 of 12; to train again, remove results/runs/default/state" in output
    assert changed.would_run() == set()


def test_a_state_is_resumed_after_another_number_of_states_is_kept(changed):
    (changed.folder / "results/runs/default/metrics.csv").unlink()
    override(changed, training={"keep_last": 3, "save_every_steps": 4})
    assert "resuming after step 12 of 12" in changed.snakemake("results/runs/default/metrics.csv")


def test_values_on_the_command_line_arrive_as_their_types(changed):
    rules = changed.would_run("--config", "training={steps: 6, learning_rate_peak: 1e-3}")
    assert rules == {"train"} | AFTER_TRAIN
    assert changed.would_run("--config", "training={steps: 12}", "model={embed_dim: 16}") == set()


def test_a_mistake_in_the_config_is_one_line_without_traceback(changed):
    output = changed.snakemake("all", "--config", "model={num_head: 3}", expect=1)
    assert "config: model.num_head: unknown key, did you mean 'num_heads'?" in output
    assert "Traceback" not in output


def test_the_corpus_is_larger_than_what_snakemake_compares_by_itself(finished):
    assert (finished.folder / "results/corpora/tiny/train.txt").stat().st_size > 1_000_000


def test_every_artifact_is_readable_and_has_content(finished):
    results = finished.folder / "results"
    run = results / "runs" / "default"
    with open(run / "metrics.csv") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == list(range(1, 13))
    with open(run / "validation.csv") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [4, 8, 12]
    with open(run / "evaluation.csv") as file:
        assert [row["predictor"] for row in csv.DictReader(file)] == ["model", "unigram", "bigram", "trigram", "lzma"]
    assert "the king" in (run / "samples.txt").read_text()
    assert "--- step 6\nthe" in (run / "training_samples.txt").read_text()
    for picture in ("loss", "learning_rate", "throughput"):
        assert (run / "plots" / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    assert "step 12 of 12" in (run / "logs/train.log").read_text()


def test_each_stage_runs_alone_by_its_file(tmp_path):
    project = Project(tmp_path / "project")
    project.snakemake("results/corpora/tiny/bpe-290/tokenizer.json")
    assert {path.name for path in project.folder.glob("results/corpora/tiny/*")} == {
        "train.txt", "validation.txt", "documents.bin", "provenance.json", "bpe-290", "logs",
    }  # fmt: skip
    assert not Path(project.folder / "results/runs").exists()


def test_without_keep_text_the_text_goes_and_nothing_misses_it(tmp_path):
    project = Project(tmp_path / "project")
    project.write_config({**TINY, "keep_text": False})
    project.snakemake("all")
    corpus = project.folder / "results/corpora/tiny"
    assert {path.name for path in corpus.iterdir()} == {"provenance.json", "bpe-290", "logs"}
    assert project.would_run() == set()


def test_the_report_is_written_offline_with_captions(changed):
    changed.snakemake("--report", "results/report.html")
    report = (changed.folder / "results/report.html").read_text()
    assert "on the whole validation split" in report and '"labels": {"result": "loss.png"}' in report
