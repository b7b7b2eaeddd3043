"""`hipgpt runs` and `hipgpt diff`: tables about the folders of runs, in every format."""

import csv
import io
import json

import pytest
from support import tiny

from hipgpt.base.tables import table
from hipgpt.gpt.parameters import parameter_count
from hipgpt.reports.runs import run_row


def test_a_row_is_read_from_the_run_s_files(results):
    assert run_row(results / "runs" / "wide") == {
        "run": "wide",
        "parameters": parameter_count(tiny.MODEL),
        "vocab_size": 300,
        "steps": 7,
        "tokens_seen": 56,
        "best_step": 7,
        "validation_loss_nats_per_token": 4.25,
        "validation_bits_per_byte": 2,
        "next_token_accuracy": 0.125,
        "median_tokens_per_second": 80,
        "device": "cpu x86_64 (1 thread)",
        "code_sha256": "0123456789ab",
        "corpus": "plays",
        "corpus_sha256": "abababababab",
    }


def test_a_run_in_progress_has_gaps(tmp_path):
    folder = tiny.save_run(tmp_path)
    for name in ("evaluation.csv", "throughput.csv", "validation.csv"):
        (folder / name).unlink()
    row = run_row(folder)
    assert row["steps"] == 7 and row["parameters"] > 0
    assert row["validation_bits_per_byte"] is row["median_tokens_per_second"] is row["best_step"] is None


def test_the_table_is_aligned_with_numbers_to_the_right(hipgpt):
    status, output, _ = hipgpt("runs")
    assert status is None
    assert output.splitlines() == [
        "run      seed  parameters  steps  tokens  bits/byte  tokens/s",
        "default     0       9,988      7      56          3        80",
        "wide        1       9,988      7      56          2        80",
        "",
        "in all runs",
        "device         cpu x86_64 (1 thread)",
        "code           0123456789ab",
        "corpus         plays",
        "corpus sha256  abababababab",
    ]
    lines = hipgpt("runs", "--filter", "seed=1")[1].splitlines()
    assert lines[1].split()[0] == "wide" and [line.split() for line in lines[3:] if "seed" in line] == [["seed", "1"]]
    assert hipgpt("runs", "--filter", "run=x")[1] == "no run meets every --filter\n"


def test_an_origin_that_is_not_the_same_in_all_runs_is_a_column(hipgpt, tmp_path):
    for name, device in (("one", "cpu x86_64 (1 thread)"), ("two", "cpu x86_64 (2 threads)")):
        record = tiny.save_run(tmp_path, name) / "run.json"
        record.write_text(json.dumps({**json.loads(record.read_text()), "device": device}))
    lines = hipgpt("runs", "--results", str(tmp_path))[1].splitlines()
    assert lines[0].split() == ["run", "parameters", "steps", "tokens", "bits/byte", "tokens/s", "device"]
    assert lines[2].endswith("  cpu x86_64 (2 threads)")
    assert [line.split()[0] for line in lines[4:]] == ["in", "code", "corpus", "corpus"]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ("", ["default", "wide"]),
        ("--sort validation_bits_per_byte", ["wide", "default"]),
        ("--sort run --descending", ["wide", "default"]),
        ("--filter run=w*", ["wide"]),
        ("--filter run!=w*", ["default"]),
        ("--filter validation_bits_per_byte<=2", ["wide"]),
        ("--filter validation_bits_per_byte>2 --filter steps=7", ["default"]),
        ("--filter steps>7", []),
        ("--filter training.seed>0", ["wide"]),
        ("--sort training.seed --descending", ["wide", "default"]),
        ("--filter seed=1", ["wide"]),
        ("--filter bits/byte<=2", ["wide"]),
        ("--filter num_layers=2 --sort bits/byte", ["wide", "default"]),
        ("--filter tie_embeddings=false --filter training.precision=float*", ["default", "wide"]),
        ("--sort tie_embeddings", ["default", "wide"]),
    ],
)
def test_sort_and_filter(hipgpt, options, names):
    status, output, _ = hipgpt("runs", "--json", *options.split())
    assert status is None and [row["run"] for row in json.loads(output)] == names


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--sort weight", "--sort: no column 'weight'; columns are run, parameters, "),
        ("--filter weight>1", "--filter: no column 'weight'; columns are run, parameters, "),
        ("--sort loss", "--sort: no column 'loss', did you mean 'validation_loss_nats_per_token'?"),
        ("--sort bits", "--sort: no column 'bits', did you mean 'bits/byte'?"),
        ("--filter learning_rate_peek>1", "--filter: no column 'learning_rate_peek'; columns are run, parameters, "),
        ("--filter num_layer=2", "--filter: no column 'num_layer', did you mean 'num_layers'?"),
        ("--filter steps", "--filter: got 'steps', expected COLUMN, one of <= >= != = < >, and a value"),
        ("--filter steps>many", "--filter: steps: got 'many', expected a number"),
        ("--filter run>a", "--filter: run is text, which > does not compare; use = or !=, * for any text"),
        ("--results nowhere", "no runs in nowhere/runs; run snakemake first"),
    ],
)
def test_a_mistake_is_named(hipgpt, options, message):
    status, output, _ = hipgpt("runs", *options.split())
    assert status.startswith(f"error: {message}") and output == ""


def test_csv_and_json_and_markdown_hold_the_same(hipgpt):
    rows = json.loads(hipgpt("runs", "--json")[1])
    read = list(csv.DictReader(io.StringIO(hipgpt("runs", "--csv")[1])))
    assert [row["run"] for row in read] == ["default", "wide"]
    assert [list(row) for row in read] == [list(row) for row in rows]
    assert float(read[1]["validation_loss_nats_per_token"]) == rows[1]["validation_loss_nats_per_token"]
    lines = hipgpt("runs", "--md")[1].splitlines()
    assert len(lines) == 4 and lines[0].startswith("| run | parameters |") and lines[1].startswith("| --- | ---: |")


def test_a_cell_cannot_break_out_of_a_table():
    assert table([{"a": "x|y"}], "md").splitlines()[-1] == "| x\\|y |"
    assert table([{"a": 'x,"y"'}], "csv") == 'a\n"x,""y"""\n'
    assert table([], "text") == table([], "md") == table([], "csv") == ""


@pytest.mark.parametrize("form", ["--json", "--csv"])
def test_the_columns_for_programs_are_all_settings_whatever_the_filter(hipgpt, form):
    def columns(text: str) -> list[str]:
        return list(json.loads(text)[0]) if form == "--json" else next(csv.reader(io.StringIO(text)))

    found = columns(hipgpt("runs", form)[1])
    assert {"training.seed", "training.precision"} <= set(found)
    assert columns(hipgpt("runs", form, "--filter", "run=wide")[1]) == found


def test_a_table_without_a_run_has_its_header(hipgpt):
    for form in ("--csv", "--md"):
        header = hipgpt("runs", form)[1].splitlines()[0]
        assert hipgpt("runs", form, "--filter", "run=x")[1].splitlines()[0] == header
    assert hipgpt("runs", "--csv", "--filter", "run=x")[1].count("\n") == 1
    assert hipgpt("runs", "--json", "--filter", "run=x")[1] == "[]\n"


def save_with(results, name: str, **settings: dict) -> None:
    """Save a run with other settings, by section."""
    path = tiny.save_run(results, name) / "run.json"
    record = json.loads(path.read_text())
    for section, values in settings.items():
        record["config"].setdefault(section, {}).update(values)
    path.write_text(json.dumps(record))


def test_a_heading_that_two_settings_share_is_the_whole_key(hipgpt, tmp_path):
    for seed in (1, 2):
        save_with(tmp_path, f"s{seed}", training={"seed": seed}, sampling={"seed": seed})
    where = ["--results", str(tmp_path)]
    assert hipgpt("runs", *where)[1].split()[:3] == ["run", "sampling.seed", "training.seed"]
    status, _, _ = hipgpt("runs", "--filter", "seed=1", *where)
    assert status == "error: --filter: 'seed' may be sampling.seed or training.seed; write one of these names"


def test_a_heading_of_the_table_wins_over_a_setting_that_all_runs_share(hipgpt, tmp_path):
    for seed in (1, 2):
        save_with(tmp_path, f"s{seed}", training={"seed": seed}, sampling={"seed": 1})
    output = hipgpt("runs", "--json", "--filter", "seed = 2", "--results", str(tmp_path))[1]
    assert [row["run"] for row in json.loads(output)] == ["s2"]


def test_steps_are_those_so_far_and_an_unfinished_run_shows_its_goal(hipgpt, tmp_path):
    for name, planned in (("done", 7), ("half", 14)):
        save_with(tmp_path, name, training={"steps": planned})
    where = ["--results", str(tmp_path)]
    lines = hipgpt("runs", *where)[1].splitlines()
    assert lines[0].split()[:4] == ["run", "training.steps", "parameters", "steps"]
    assert lines[1].split()[:4] == ["done", "7", "9,988", "7"]
    assert lines[2].split()[:6] == ["half", "14", "9,988", "7", "of", "14"]
    assert [row["steps"] for row in json.loads(hipgpt("runs", "--json", "--filter", "steps=7", *where)[1])] == [7, 7]


def test_a_table_is_as_wide_as_the_terminal_and_loses_nothing(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    lines = table([{"run": "abcdefghij" * 3, "loss": 1.5, "device": "cpu " * 5}], "text").splitlines()
    assert max(map(len, lines)) <= 30 and "".join(line[:12].strip() for line in lines[1:]).startswith("abcdefghij"[:5])


SPREAD = {
    "lr-0.001_long-name": {"model": {"context_length": 8, "num_heads": 3}, "training": {"learning_rate_peak": 1e-3}},
    "lr-0.002_long-name": {"model": {"context_length": 9, "num_heads": 4}, "training": {"learning_rate_peak": 2e-3}},
}


@pytest.mark.parametrize(
    ("columns", "settings", "last_line"),
    [
        (60, [], "4 more columns: --csv"),
        (80, ["context_length"], "3 more columns: --csv"),
        (96, ["context_length", "num_heads"], "2 more columns: --csv"),
        (160, ["context_length", "num_heads", "learning_rate_peak"], None),
    ],
)
def test_a_terminal_shows_whole_cells_of_as_many_settings_as_fit(
    hipgpt, tmp_path, monkeypatch, columns, settings, last_line
):
    for name, changes in SPREAD.items():
        save_with(tmp_path, name, **changes)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    table, _, _ = hipgpt("runs", "--results", str(tmp_path))[1].partition("\n\n")
    lines = table.splitlines()
    assert max(map(len, lines)) <= columns
    tokens = ["tokens"] if columns == 160 else []
    assert lines[0].split() == ["run", *settings, "parameters", "steps", *tokens, "bits/byte", "tokens/s"]
    assert [line.split()[0] for line in lines[1:3]] == [*SPREAD] and all(line.endswith("  80") for line in lines[1:3])
    assert lines[3:] == ([last_line] if last_line else [])


def test_a_name_that_is_wider_than_the_terminal_stays_whole(hipgpt, tmp_path, monkeypatch):
    tiny.save_run(tmp_path, "a" * 60)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert "a" * 60 in hipgpt("runs", "--results", str(tmp_path))[1]


def test_a_setting_that_changes_no_result_is_only_in_the_columns_for_programs(hipgpt, tmp_path):
    for number in (1, 2):
        save_with(tmp_path, f"run{number}", training={"keep_last": number, "sample_prompt": "a" * number})
    where = ["--results", str(tmp_path)]
    for form in ([], ["--md"]):
        assert "keep_last" not in hipgpt("runs", *form, *where)[1]
    assert [row["training.keep_last"] for row in json.loads(hipgpt("runs", "--json", *where)[1])] == [1, 2]


def test_diff_as_json_has_whole_values(hipgpt):
    rows = json.loads(hipgpt("diff", "default", "wide", "--json")[1])
    assert rows[0] == {"key": "training.seed", "default": 0, "wide": 1, "change": None}
    assert rows[2] == {"key": "validation_bits_per_byte", "default": 3.0, "wide": 2.0, "change": -100 / 3}


def test_only_results_have_a_change_in_per_cent(hipgpt, tmp_path):
    for seed in (1, 2):
        save_with(tmp_path, f"s{seed}", training={"seed": seed, "steps": 10 * seed})
    output = hipgpt("diff", "s1", "s2", "--results", str(tmp_path))[1]
    assert [line.split() for line in output.splitlines()[1:]] == [
        ["training.steps", "10", "20"],
        ["training.seed", "1", "2"],
    ]


def test_diff_shows_what_differs_and_nothing_else(hipgpt):
    status, output, _ = hipgpt("diff", "default", "wide")
    assert status is None
    assert [line.split() for line in output.splitlines()] == [
        ["key", "default", "wide", "change"],
        ["training.seed", "0", "1"],
        ["validation_loss_nats_per_token", "5.25", "4.25", "-19.05%"],
        ["validation_bits_per_byte", "3", "2", "-33.33%"],
    ]
    assert hipgpt("diff", "wide", "wide")[1] == "wide and wide do not differ\n"


def test_diff_shows_the_first_digits_of_hashes(hipgpt, tmp_path):
    for name, digit in (("one", "1"), ("two", "2")):
        path = tiny.save_run(tmp_path, name) / "run.json"
        path.write_text(
            json.dumps({**json.loads(path.read_text()), "git_commit": digit * 40, "tokens_sha256": digit * 64})
        )
    lines = [line.split() for line in hipgpt("diff", "one", "two", "--results", str(tmp_path))[1].splitlines()]
    assert ["git_commit", "1" * 12, "2" * 12] in lines and ["tokens_sha256", "1" * 12, "2" * 12] in lines


@pytest.mark.parametrize("name", ["other", "unfinished", "..", "../runs/wide"])
def test_diff_of_a_run_that_is_not_there(hipgpt, name):
    status, _, _ = hipgpt("diff", "default", name)
    assert status.startswith(f"error: no run '{name}' in results/runs; found: default, wide; name one of them, or run ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"null", "top level: got 'None', expected dict"),
        (b'{"config": {"model": {"vocab_size": "5"}}}', "config.model.vocab_size: got '5', expected int"),
    ],
)
def test_a_damaged_record_is_named(hipgpt, tmp_path, text, message):
    path = tiny.save_run(tmp_path) / "run.json"
    path.write_bytes(text)
    status, _, _ = hipgpt("runs", "--results", str(tmp_path))
    assert status.startswith(f"error: {path}: {message}") and status.endswith("delete it and run the train stage again")


@pytest.mark.parametrize("name", ["metrics.csv", "validation.csv", "throughput.csv", "evaluation.csv"])
@pytest.mark.parametrize("text", [b"\xff\xfe", b"a,b\n1,2\n", b"step\n" + b"9" * 200_000])
def test_a_damaged_table_is_named(hipgpt, tmp_path, name, text):
    path = tiny.save_run(tmp_path) / name
    path.write_bytes(text)
    status, _, _ = hipgpt("runs", "--results", str(tmp_path))
    assert status.startswith(f"error: {path}: damaged (") and status.endswith("delete it and run snakemake again")


def test_a_row_that_is_just_being_written_is_left_out(tmp_path):
    folder = tiny.save_run(tmp_path)
    with open(folder / "metrics.csv", "a") as file:
        file.write("8,6")
    assert run_row(folder)["steps"] == 7
