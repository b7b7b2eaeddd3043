"""The last words of the workflow: the loss next to the baselines, a sample, and commands that can be typed."""

import csv

import pytest
from support import tiny

from hipgpt.reports.closing import closing
from hipgpt.reports.samples import COLUMNS


def write_sample(folder, continuation: str) -> None:
    row = dict.fromkeys(COLUMNS, "1") | {"prompt": "to be", "continuation": continuation}
    with open(folder / "samples.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerow(row)


def test_a_run_s_loss_stands_among_those_of_the_baselines_the_best_first(tmp_path):
    folder = tiny.save_run(tmp_path)
    write_sample(folder, " or not\nto be")
    (folder / "report.html").touch()
    report = f"snakemake --cores 1 --report {tmp_path}/report.html --configfile 'my runs.yaml'"
    assert closing(tmp_path, ["default"], ["my runs.yaml"]).splitlines() == [
        "",
        "run default, on the whole validation split (fewer bits are better):",
        "",
        "predictor  bits per byte",
        "lzma       2.5000",
        "model      3.0000",
        "",
        "a sample:",
        "",
        "    to be or not",
        "    to be",
        "",
        "to open in a browser:",
        "",
        f"    {folder}/report.html  # its curves, samples and attention",
        "",
        "next:",
        "",
        '    hipgpt generate "Your words"  # continue a text of yours',
        "    hipgpt runs  # show all runs in a table",
        f"    {report}  # put all runs into one page",
    ]


def test_of_several_runs_the_best_are_listed_with_the_tables_of_their_sweep(tmp_path):
    for seed in range(6):
        tiny.save_run(tmp_path, f"s_{seed}", seed=seed)  # 3 - seed bits per byte
    (tmp_path / "sweeps/s").mkdir(parents=True)
    for name in ("summary.html", "sweeps/s/seeds.csv", "sweeps/s/settings.png", "runs/s_5/report.html"):
        (tmp_path / name).touch()
    assert closing(tmp_path, [f"s_{seed}" for seed in range(6)], sweeps=["s", "unfinished"]).splitlines() == [
        "",
        "the best 5 of 6 runs, on the whole validation split (fewer bits are better):",
        "",
        "run  bits per byte",
        *(f"s_{seed}  {3 - seed:.4f}" for seed in (5, 4, 3, 2, 1)),
        "",
        "sweeps:",
        "",
        f"    {tmp_path}/sweeps/s/seeds.csv  # each setting, with means over seeds",
        f"    {tmp_path}/sweeps/s/settings.png  # loss by setting",
        "",
        "to open in a browser:",
        "",
        f"    {tmp_path}/summary.html  # all runs: overlay curves, sort, filter",
        "",
        "next:",
        "",
        '    hipgpt generate "Your words" --run s_5  # continue a text of yours',
        "    hipgpt runs  # show all runs in a table",
        f"    snakemake --cores 1 --report {tmp_path}/report.html  # put all runs into one page",
    ]


def test_few_runs_are_all_listed(tmp_path, results):
    text = closing(results, ["default", "wide"])
    assert text.startswith("\n2 runs, on the whole") and "the best" not in text and "a sample" not in text


@pytest.mark.parametrize("runs", [[], ["unfinished"]])
def test_without_an_evaluated_run_there_is_nothing_to_say(results, runs):
    assert closing(results, runs) == ""


def test_a_sample_is_short_and_its_control_characters_are_escaped(tmp_path):
    write_sample(tiny.save_run(tmp_path), "\x1b[2J" + "line\n" * 20)
    text = closing(tmp_path, ["default"])
    assert "    to be\\x1b[2Jline\n" in text and text.count("    line\n") == 5
