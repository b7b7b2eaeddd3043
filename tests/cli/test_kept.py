"""`hipgpt prune` and `hipgpt restore` say what a kept run is before they delete it or bring it back."""

import json
import shutil

import pytest
import yaml
from support import tiny

from hipgpt.pipeline.history import keep, kept_runs

CONFIG = {
    "device": "cpu",
    "corpus": "plays",
    "corpora": {"plays": {"kind": "file", "path": "plays"}},
    "tokenizer": {"vocab_size": 300},
    "model": {key: value for key, value in vars(tiny.MODEL).items() if value is not None and key != "vocab_size"},
    "training": {"steps": 7, "seed": 0, "precision": "auto", "optimizer": "adamw"},
    "evaluation": {"stride_tokens": 4},
}


@pytest.fixture
def project(tmp_path, monkeypatch, hipgpt):
    """A folder whose config is that of the finished run `default`, and a function that keeps the run with changes."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))

    def finish(run: str = "default", **training):
        folder = tiny.save_run(tmp_path / "results", run)
        shutil.copy(folder / "checkpoints/best.safetensors", folder / "checkpoints/last.safetensors")
        record = json.loads((folder / "run.json").read_text())
        record["config"]["training"] |= training
        (folder / "run.json").write_text(json.dumps(record))

    def finish_and_keep(run: str = "default", **training):
        finish(run, **training)
        kept = keep(tmp_path / "results", run)
        shutil.rmtree(tmp_path / "results/runs" / run)
        return kept

    finish_and_keep.present = finish
    return finish_and_keep


@pytest.fixture
def terminal(monkeypatch):
    """Return a function that answers the next question on a terminal. It collects the questions."""
    questions = []

    def answer(text: str) -> list[str]:
        def ask(question: str) -> str:
            questions.append(question)
            return text

        for stream in ("stdin", "stdout"):
            monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)
        monkeypatch.setattr("builtins.input", ask)
        return questions

    return answer


def kept_of(folder) -> list[str]:
    return sorted(kept.id for kept in kept_runs(folder / "results"))


@pytest.mark.parametrize(("answer", "left"), [("y", 0), ("yes", 0), ("Y", 0), ("", 2), ("n", 2), ("default", 2)])
def test_prune_shows_the_runs_with_their_settings_and_asks(hipgpt, project, tmp_path, terminal, answer, left):
    first, second = project(steps=60), project(steps=90, seed=5)
    questions = terminal(answer)
    status, output, _ = hipgpt("prune")
    assert status is None and questions == ["delete 2 runs, 0.2 MB? [y/N] "]
    assert output.splitlines() == [
        f"default {second.id}: training.steps 90, training.seed 5, 3 bits per byte, 0.1 MB",
        f"default {first.id}: training.steps 60, 3 bits per byte, 0.1 MB",
        "nothing was deleted" if left else "deleted 2 runs, 0.2 MB",
    ]
    assert len(kept_of(tmp_path)) == left


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_prune_deletes_nothing_without_a_terminal_and_without_yes(hipgpt, project, tmp_path, options):
    kept = project(steps=60)
    status, _, _ = hipgpt("prune", *options)
    assert status == (
        "error: prune: would delete 1 run, 0.1 MB, and there is no terminal to ask on; add --yes, or --dry-run"
    )
    assert kept_of(tmp_path) == [kept.id]


def test_prune_of_one_name_with_yes_leaves_the_others(hipgpt, project, tmp_path):
    kept = project("default", steps=60)
    project("wide", seed=3)
    assert hipgpt("prune", "wide", "--yes")[1].endswith("deleted 1 run, 0.1 MB\n")
    assert kept_of(tmp_path) == [kept.id]
    assert hipgpt("prune", "wide", "--yes") == (None, "no run is kept\n", "")


def test_a_dry_run_of_prune_only_shows_the_runs(hipgpt, project, tmp_path):
    kept = project(steps=60)
    assert hipgpt("prune", "--dry-run") == (
        None,
        f"default {kept.id}: training.steps 60, 3 bits per byte, 0.1 MB\n",
        "",
    )
    assert kept_of(tmp_path) == [kept.id]


def test_prune_deletes_a_run_whose_files_are_damaged(hipgpt, project, tmp_path):
    kept = project(steps=60)
    (kept.folder / "files/run.json").write_text("{")
    output = hipgpt("prune", "--yes")[1]
    assert output.startswith(f"default {kept.id}: its files are damaged, 0.1 MB\n") and not kept_of(tmp_path)


def test_prune_deletes_without_a_config_to_compare_with(hipgpt, project, tmp_path):
    kept = project(steps=60)
    (tmp_path / "config.yaml").write_text("stpes: 3")
    assert hipgpt("prune", "--yes")[1].startswith(f"default {kept.id}: 3 bits per byte, ")
    assert not kept_of(tmp_path)


def test_restore_says_which_settings_came_back_and_what_to_write_into_the_config(hipgpt, project, tmp_path):
    kept = project(steps=60, learning_rate_peak=1e-3)
    project.present()
    status, output, _ = hipgpt("restore", "default")
    first, second, *rest = output.splitlines()
    about = f"default {kept.id}: training.steps 60, training.learning_rate_peak 0.001, 3 bits per byte, "
    assert status is None and first.startswith(f"restored {about}")
    assert second.startswith("the run that it replaces is kept as ")
    assert rest[:3] == ["", "the config differs; so that snakemake keeps this run, write:", ""]
    pasted = yaml.safe_load("\n".join(rest[3:]))
    assert pasted == {"training": {"steps": 60, "learning_rate_peak": 1e-3}}


def test_the_settings_of_a_further_run_are_below_its_name(hipgpt, project):
    project("wide", steps=60)
    output = hipgpt("restore", "wide")[1]
    assert yaml.safe_load(output.partition("write:")[2]) == {"runs": {"wide": {"training": {"steps": 60}}}}


def test_the_settings_of_the_run_that_the_config_describes_are_at_the_top(hipgpt, project, tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"name": "wide"}))
    project("wide", steps=60)
    pasted = hipgpt("restore", "wide")[1].partition("write:")[2]
    assert yaml.safe_load(pasted) == {"training": {"steps": 60}}


def test_a_config_that_says_what_the_run_says_needs_no_change(hipgpt, project):
    kept = project(precision="bfloat16")  # `auto` in the config may mean it
    status, output, _ = hipgpt("restore", "default")
    assert status is None and len(output.splitlines()) == 1 and f"default {kept.id}: 3 bits per byte, " in output


def test_a_setting_that_the_run_lacks_is_named(hipgpt, project, tmp_path):
    project(steps=60)
    rotary = {"architecture": "llama", "activation": "swiglu", "output_bias": False, "num_kv_heads": 1}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG | {"model": CONFIG["model"] | rotary}))
    pasted = hipgpt("restore", "default")[1].partition("write:")[2]
    assert yaml.safe_load(pasted)["model"] == {"architecture": "gpt2", "activation": "gelu", "output_bias": True}
    assert pasted.endswith("# and without model.num_kv_heads\n")


def test_settings_that_tell_runs_apart_come_first(hipgpt, project, tmp_path):
    first, second = project(steps=60), project(steps=90)
    (tmp_path / "config.yaml").write_text("corpus: shakespeare")
    lines = [line.partition(", ")[0] for line in hipgpt("prune", "--dry-run")[1].splitlines()]
    assert lines == [f"default {second.id}: training.steps 90", f"default {first.id}: training.steps 60"]


def test_restore_asks_for_the_id_if_several_runs_are_kept(hipgpt, project, tmp_path):
    first, second = project(steps=60), project(steps=90)
    message, *lines = hipgpt("restore", "default")[0].splitlines()
    assert message == ("error: restore: 2 runs default are kept; name the id of one of them: hipgpt restore default ID")
    assert [line.partition(", ")[0] for line in lines] == [
        f"default {second.id}: training.steps 90",
        f"default {first.id}: training.steps 60",
    ]
    assert not (tmp_path / "results/runs/default").exists()
    assert hipgpt("restore", "default", first.id)[0] is None
