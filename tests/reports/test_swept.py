"""Settings in which runs differ, and means over seeds, in the tables of runs and of sweeps."""

import csv
import json
import re
from pathlib import Path

import pytest
from support import tiny

from hipgpt.reports.comparison import compare
from hipgpt.reports.overview import write_overview
from hipgpt.reports.summary import summarize
from hipgpt.reports.swept import MEASURES, means_over_seeds, swept_settings

RESULT = "validation_bits_per_byte"


def run(results: Path, name: str, **changes: object) -> Path:
    """Write a run. changes: of training, and tokenizer_sha256."""
    folder = tiny.save_run(results, name, seed=changes.get("seed", 0))
    record = json.loads((folder / "run.json").read_text()) | {"operations_per_step": 1000}
    record["tokenizer_sha256"] = changes.pop("tokenizer_sha256", record["tokenizer_sha256"])
    record["config"]["training"] |= changes
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def seeds_and_rates(results: Path) -> list[Path]:
    pairs = [(rate, seed) for rate in (0.001, 0.002) for seed in (0, 1)]
    return [run(results, f"s_{rate}_{seed}", learning_rate_peak=rate, seed=seed) for rate, seed in pairs]


def read(path: Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


def test_the_table_of_a_sweep_has_the_swept_settings_as_columns(tmp_path):
    compare(seeds_and_rates(tmp_path), tmp_path)
    rows = read(tmp_path / "runs.csv")
    assert [*rows[0]][-3:] == ["operations", "training.learning_rate_peak", "training.seed"]
    assert [(row["training.learning_rate_peak"], row["training.seed"]) for row in rows] == [
        ("0.001", "0"), ("0.001", "1"), ("0.002", "0"), ("0.002", "1"),
    ]  # fmt: skip


def test_seeds_of_one_setting_have_a_mean_and_a_standard_deviation(tmp_path):
    compare(seeds_and_rates(tmp_path), tmp_path)
    rows = read(tmp_path / "seeds.csv")
    assert [row["training.learning_rate_peak"] for row in rows] == ["0.001", "0.002"]
    for row in rows:  # losses 5.25 and 4.25
        assert "training.seed" not in row and row["runs"] == "2"
        assert float(row["validation_loss_nats_per_token_mean"]) == 4.75
        assert float(row["validation_loss_nats_per_token_standard_deviation"]) == pytest.approx(0.5**0.5)


def test_runs_of_the_same_settings_and_seed_count_once(tmp_path):
    folders = [*seeds_and_rates(tmp_path), run(tmp_path, "default", learning_rate_peak=0.001, seed=0)]
    compare(folders, tmp_path)
    assert [row["runs"] for row in read(tmp_path / "seeds.csv")] == ["2", "2"]


def test_a_sweep_of_too_few_sizes_has_no_power_law_and_says_how_many_it_has(tmp_path):
    compare(seeds_and_rates(tmp_path), tmp_path)
    for row in read(tmp_path / "fit.csv"):
        assert (row["points"], row["sizes"], row["scale"], row["exponent"]) == ("4", "1", "", "")


def test_the_summary_has_settings_and_means_and_one_without_seeds_has_no_means(tmp_path):
    folders = seeds_and_rates(tmp_path)
    write_overview(folders, tmp_path / "summary.html")
    summarize(folders, tmp_path / "summary.csv")
    assert [row["training.seed"] for row in read(tmp_path / "summary.csv")] == ["0", "1", "0", "1"]
    page = (tmp_path / "summary.html").read_text()
    assert page.count('data-key="training.seed"') == 1 and "Means over seeds" in page
    write_overview(folders[::2], tmp_path / "summary.html")
    assert "Means over seeds" not in (tmp_path / "summary.html").read_text()


def test_the_page_of_all_runs_says_once_what_all_runs_share(tmp_path):
    folders = seeds_and_rates(tmp_path)
    write_overview(folders, tmp_path / "summary.html")
    page = (tmp_path / "summary.html").read_text()
    columns = re.findall('data-key="(.*?)"', page)
    assert "device" not in columns and "steps" not in columns
    assert "The same in all: parameters " in page and "steps 7," in page and "device cpu x86_64 (1 thread)," in page
    others = [name for name in MEASURES if name != RESULT]
    assert columns == ["run", RESULT, "training.learning_rate_peak", "training.seed", *others]
    write_overview(folders[:1], tmp_path / "summary.html")
    columns = re.findall('data-key="(.*?)"', (tmp_path / "summary.html").read_text())
    assert columns[:4] == ["run", RESULT, "parameters", "steps"] and "device" not in columns


def test_runs_with_two_tokenizers_have_means_of_their_own(tmp_path):
    folders = [run(tmp_path, f"{sha}{seed}", seed=seed, tokenizer_sha256=sha * 64) for sha in "ab" for seed in (0, 1)]
    settings = swept_settings([json.loads((folder / "run.json").read_text()) for folder in folders])
    assert settings[0] == {"training.seed": 0, "tokenizer_sha256": "a" * 12}
    rows = [{"validation_loss_nats_per_token": n, "validation_bits_per_byte": None, "next_token_accuracy": 0.5}
            for n in range(4)]  # fmt: skip
    means = means_over_seeds(settings, rows)
    assert [row["validation_loss_nats_per_token_mean"] for row in means] == [0.5, 2.5]
    assert means[0]["validation_bits_per_byte_mean"] is None
