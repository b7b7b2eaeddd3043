"""--json: each command prints one JSON document, whose keys are those of docs/reference/json.md."""

import json
import re
import shutil

import pytest
from support import tiny

from hipgpt.base.paths import ROOT
from hipgpt.cli.main import main
from hipgpt.config.settings import SamplingConfig
from hipgpt.pipeline.history import keep
from hipgpt.pipeline.reasons import Job

PARTS = re.split(r"^## (\w+)$", (ROOT / "docs/reference/json.md").read_text(), flags=re.MULTILINE)[1:]
KEYS = {
    name: re.findall(r"^\| `(\w+)`", text, re.MULTILINE) for name, text in zip(PARTS[::2], PARTS[1::2], strict=True)
}


@pytest.fixture
def asked(hipgpt):
    """Return a function that runs a command with --json and returns its document. All of its keys must be known."""

    def ask(command: str, *arguments: str, but: tuple[str, ...] = ()):
        status, output, errors = hipgpt(command, *arguments, "--json")
        assert (status, errors) == (None, ""), status
        document = json.loads(output)
        for one in document if isinstance(document, list) else [document]:
            assert [key for key in one if key not in but] == KEYS[command]
        return document

    return ask


def test_generate_has_texts_and_tokens(asked, hipgpt):
    found = asked("generate", "to be", "-n", "2", "--num-tokens", "9", "--seed", "3")
    assert (found["run"], found["prompt"]) == ("default", "to be")
    assert found["sampling"] == vars(SamplingConfig(9, seed=3))
    for sample in found["samples"]:
        assert sample["text"] == tiny.tokenizer().decode(sample["tokens"]).decode("utf-8", "replace")
        assert len(sample["tokens"]) == 9
    assert (
        f"to be{found['samples'][1]['text']}\n" in hipgpt("generate", "to be", "-n2", "--num-tokens=9", "--seed=3")[1]
    )


def test_generate_stops_before_the_text_and_keeps_the_tokens_that_were_drawn(asked, monkeypatch):
    monkeypatch.setattr("hipgpt.inference.sampling.generate_one", lambda *arguments, **options: iter(b"xaabyy"))
    assert asked("generate", "--stop", "ab")["samples"] == [{"text": "xa", "tokens": list(b"xaab"), "ended": "stop"}]


@pytest.mark.parametrize(
    ("options", "ended"),
    [
        (["--num-tokens", "6"], "length"),
        (["--num-tokens", "7"], "end of text"),
        (["--num-tokens", "6", "--stop", "yy"], "stop"),
        (["--num-tokens", "9", "--stop", "z"], "end of text"),
    ],
)
def test_a_sample_says_why_it_ended(asked, monkeypatch, options, ended):
    monkeypatch.setattr("hipgpt.inference.sampling.generate_one", lambda *arguments, **options: iter(b"xaabyy"))
    assert asked("generate", *options)["samples"][0]["ended"] == ended


def test_tokenize_has_ids_and_texts(asked):
    found = asked("tokenize", "to be, élan\n")
    assert [token["id"] for token in found["tokens"]] == tiny.tokenizer().encode("to be, élan\n").tolist()
    assert found["bytes"] == len("to be, élan\n".encode())
    assert found["tokens"][0]["text"] and found["tokens"][-1]["text"].endswith("\n")


def test_diff_has_the_values_of_both_runs(asked):
    found = asked("diff", "default", "wide", but=("default", "wide"))
    assert {"key": "config.training.seed".removeprefix("config."), "default": 0, "wide": 1, "change": None} in found


def test_why_has_a_group_for_each_run_and_reason(asked, monkeypatch):
    jobs = [job("plot", "wide"), job("train", "wide"), job("plot", "default", forced=True)]
    monkeypatch.setattr("hipgpt.cli.why._planned", lambda arguments: jobs)
    assert asked("why") == [
        {"rules": ["train", "plot"], "wildcards": {"run": "wide"}, "reasons": ["not made yet"]},
        {"rules": ["plot"], "wildcards": {"run": "default"}, "reasons": ["it is forced"]},
    ]
    monkeypatch.setattr("hipgpt.cli.why._planned", lambda arguments: [])
    assert asked("why") == []


def job(rule: str, run: str, forced: bool = False) -> Job:
    outputs = [f"{rule}/{run}"]
    return Job(rule, {"run": run}, outputs, [] if forced else outputs, [], [], [], [], [], False, False, forced)


def test_info_has_whole_numbers(asked):
    found = asked("info", "--memory-gib", "1", "--configfile", str(ROOT / "configs/search.yaml"))
    assert found["parameters"] == 1_554_312 and found["fits"] is True and found["available_bytes"] == 1 << 30
    assert found["ops"][-1]["op"] == "a step"
    assert found["operations"] == found["steps"] * found["ops"][-1]["operations"]


def test_export_has_its_files(asked, tmp_path):
    found = asked("export", "--output", str(tmp_path))
    assert found["repository"] is None
    assert {file["path"]: file["bytes"] for file in found["files"]} == {
        str(path): path.stat().st_size for path in tmp_path.iterdir()
    }


def test_restore_and_prune_name_the_kept_runs(asked, results, tmp_path, monkeypatch):
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    run = folder / "runs/default"
    shutil.copy(run / "checkpoints/best.safetensors", run / "checkpoints/last.safetensors")
    kept = keep(folder, "default")
    restored = asked("restore", "default", kept.id, "--results", str(folder))
    assert restored.items() >= {"id": kept.id, "replaced": None}.items()
    (pruned,) = asked("prune", "--yes", "--results", str(folder))
    assert pruned.items() >= {"run": "default", "id": kept.id, "bits_per_byte": 3.0}.items()
    assert pruned["settings"]["training.steps"] == 7 and pruned["bytes"] > 0


def test_every_command_with_the_option_is_described(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["hipgpt", "--help"])
    with pytest.raises(SystemExit):
        main()
    commands = re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE)
    for command in commands:
        monkeypatch.setattr("sys.argv", ["hipgpt", command, "--help"])
        with pytest.raises(SystemExit):
            main()
        assert ("--json" in capsys.readouterr().out) is (command in KEYS), command
