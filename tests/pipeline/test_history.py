"""A finished run is never lost: a changed recipe keeps it, and it comes back without a rerun."""

import pytest
from support import tiny
from support.workflow_copy import TINY

from hipgpt.base.errors import UserError
from hipgpt.pipeline.history import delete, keep, kept_runs, other_runs, restore, run_files
from hipgpt.training.loop import LATER_RESULTS

BY_TRAINING = {
    "run.json",
    "metrics.csv",
    "validation.csv",
    "throughput.csv",
    "training_samples.txt",
    "checkpoints",
    "logs",
}


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
    assert other_runs(results, "default") == [kept]
    files, replaced = restore(results, kept)
    assert replaced is None and contents(run) == before
    assert {file.relative_to(run) for file in files} == before.keys()
    assert (run / "state" / "huge").exists()


def test_a_run_that_is_not_finished_is_not_kept(results):
    (results / "runs/default/checkpoints/last.safetensors").unlink()
    assert keep(results, "default") is None and kept_runs(results) == []


def test_an_unknown_run_is_refused_by_the_names_there_are(results):
    kept = keep(results, "default")
    for arguments in (("wide",), ("default", "0123")):
        with pytest.raises(UserError, match=f"no other kept run {' '.join(arguments)}; kept are: default {kept.id}"):
            other_runs(results, *arguments)


def test_the_present_run_is_kept_in_exchange(results):
    record = results / "runs/default/run.json"
    first = keep(results, "default")
    record.write_text(record.read_text().replace("cpu", "hip"))
    _, replaced = restore(results, first)
    assert replaced.id != first.id and other_runs(results, "default") == [replaced]
    assert restore(results, replaced)[1] == first  # and back
    for kept in kept_runs(results):
        delete(kept)
    with pytest.raises(UserError, match="no other kept run default; kept are: none; the present run is"):
        other_runs(results, "default")


def test_to_look_for_other_runs_keeps_nothing(results):
    with pytest.raises(UserError):
        other_runs(results, "default")
    assert kept_runs(results) == []


def test_a_deleted_run_is_gone(results):
    kept = keep(results, "default")
    delete(kept)
    assert kept_runs(results) == [] and not kept.folder.exists()


def test_weights_that_the_present_run_has_too_do_not_count(results):
    weights = results / "runs/default/checkpoints/best.safetensors"
    kept = keep(results, "default")
    shared = kept.own_bytes
    size = weights.stat().st_size
    weights.unlink()
    assert kept.own_bytes == shared + size


@pytest.mark.slow
def test_a_run_replaced_by_another_recipe_is_announced_kept_and_restored_without_a_rerun(changed):
    project = changed
    run = project.folder / "results/runs/default"
    before = contents(run)
    project.write_config({**TINY, "training": {**TINY["training"], "seed": 2}})
    output = project.snakemake("all")
    (kept,) = kept_runs(project.folder / "results")
    assert "run default was finished and will be replaced, because its recipe changed (hipgpt why)." in output
    way_back = f"to go back: hipgpt restore default {kept.id}; to have both"
    assert f"kept in results/history/default/{kept.id}; {way_back}" in output
    assert contents(run) != before
    listed = project.hipgpt("runs", "--history")
    assert f"default {kept.id}" in listed
    assert "restored default" in project.hipgpt("restore", "default", kept.id)
    assert contents(run) == before
    names = {file.parts[0] for file in before}
    assert names - BY_TRAINING == set(LATER_RESULTS) - {"tasks.csv"}  # it has no tasks
    project.write_config({**TINY, "training": {**TINY["training"], "seed": 3}})
    project.snakemake("results/runs/default/run.json")
    assert not [name for name in LATER_RESULTS if (run / name).exists()]
    project.hipgpt("restore", "default", kept.id)
    project.write_config(TINY)
    assert project.would_run() <= {"summarize", "overview"}
    project.snakemake("all")
    assert contents(run) == before
    assert len(kept_runs(project.folder / "results")) == 3  # the runs that were replaced are kept too
