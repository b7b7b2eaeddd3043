"""A finished run is never lost: a changed recipe keeps it, and it comes back without a rerun."""

import pytest
from support import tiny
from support.workflow_copy import TINY, Project

from hipgpt.base.errors import UserError
from hipgpt.pipeline.history import keep, kept_runs, prune, restore, run_files


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in run_files(folder)}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tiny.save_run(tmp_path / "results")
    (folder / "checkpoints" / "last.safetensors").write_bytes((folder / "checkpoints/best.safetensors").read_bytes())
    (folder / "state").mkdir()
    (folder / "state" / "huge").write_text("not kept")
    return tmp_path / "results"


def test_a_kept_run_comes_back_file_by_file(results):
    run = results / "runs" / "default"
    before = contents(run)
    kept = keep(results, "default")
    assert [kept] == kept_runs(results) and keep(results, "default") == kept  # kept once
    for file in run_files(run):
        file.unlink()
    (run / "metrics.csv").write_text("another run\n")
    found, files = restore(results, "default")
    assert found == kept and contents(run) == before
    assert {file.relative_to(run) for file in files} == before.keys()
    assert (run / "state" / "huge").exists()


def test_a_run_that_is_not_finished_is_not_kept(results):
    (results / "runs/default/checkpoints/last.safetensors").unlink()
    assert keep(results, "default") is None and kept_runs(results) == []


def test_an_unknown_run_is_refused_by_the_names_there_are(results):
    kept = keep(results, "default")
    for arguments in (("wide",), ("default", "0123")):
        with pytest.raises(UserError, match=f"no kept run {' '.join(arguments)}; kept are: default {kept.id}"):
            restore(results, *arguments)


def test_pruned_runs_are_gone(results):
    kept = keep(results, "default")
    assert prune(results, "wide") == [] and prune(results) == [kept]
    assert kept_runs(results) == [] and not kept.folder.exists()


@pytest.mark.slow
def test_a_run_replaced_by_another_recipe_is_announced_kept_and_restored_without_a_rerun(tmp_path):
    project = Project(tmp_path / "project")
    project.snakemake("all")
    run = project.folder / "results/runs/default"
    before = contents(run)
    project.write_config({**TINY, "training": {**TINY["training"], "seed": 2}})
    output = project.snakemake("all")
    (kept,) = kept_runs(project.folder / "results")
    assert "run default was finished and will be replaced, because its recipe changed (hipgpt why)." in output
    assert f"kept in results/history/default/{kept.id}; to go back: hipgpt restore default {kept.id}" in output
    assert contents(run) != before
    listed = project.hipgpt("runs", "--history")
    assert f"default {kept.id}" in listed
    assert "is back" in project.hipgpt("restore", "default", kept.id)
    assert contents(run) == before
    project.write_config(TINY)
    assert project.would_run() <= {"summarize"}
    project.snakemake("all")
    assert contents(run) == before
    assert len(kept_runs(project.folder / "results")) == 2  # the run that was replaced is kept too
