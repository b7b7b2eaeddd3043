"""Sweeps: lists become runs with readable names; the fit recovers the power law that made the points."""

import csv
import re

import numpy as np
import pytest
import yaml
from support.workflow_copy import ROOT, TINY, Project

from hipgpt.base.errors import UserError
from hipgpt.config.reading import read_config
from hipgpt.gpt.parameters import parameter_count
from hipgpt.pipeline.sweeps import load_runs
from hipgpt.reports.comparison import fit_power_law

pytestmark = pytest.mark.slow


def load(**sweeps: dict):
    return load_runs({**read_config(ROOT / "config.yaml"), "sweep": sweeps})


def test_a_grid_is_every_combination():
    config = load(s={"grid": {"model.num_layers": [1, 2], "training.learning_rate_peak": [0.001, "2e-3"]}})
    runs = {
        "s_num_layers-1_learning_rate_peak-0.001": (1, 0.001),
        "s_num_layers-1_learning_rate_peak-0.002": (1, 0.002),
        "s_num_layers-2_learning_rate_peak-0.001": (2, 0.001),
        "s_num_layers-2_learning_rate_peak-0.002": (2, 0.002),
    }
    assert config.sweeps == {"s": tuple(runs)}
    assert list(config.runs) == ["default", *runs]
    for name, (layers, rate) in runs.items():
        run = config.runs[name]
        assert (run.model.num_layers, run.training.learning_rate_peak) == (layers, rate)
        assert run.model.embed_dim == config.runs["default"].model.embed_dim


def test_zip_takes_the_lists_side_by_side_and_names_no_more_than_it_needs():
    config = load(s={"zip": {"model.num_layers": [1, 2], "model.num_heads": [2, 8]}})
    assert config.sweeps == {"s": ("s_num_layers-1", "s_num_layers-2")}
    assert [config.runs[name].model.num_heads for name in config.sweeps["s"]] == [2, 8]


def test_values_of_any_kind_make_names_of_files():
    config = load(s={"grid": {"corpus": ["tiny_shakespeare"], "training.sample_prompt": ["a/../b", "é ü"]}})
    assert config.sweeps["s"] == (
        "s_corpus-tiny_shakespeare_sample_prompt-a-..-b",
        "s_corpus-tiny_shakespeare_sample_prompt----",
    )


def test_tokens_per_parameter_sets_the_steps():
    config = load(s={"zip": {"model.embed_dim": [64, 128]}, "tokens_per_parameter": 20})
    for name in config.sweeps["s"]:
        run = config.runs[name]
        tokens = run.training.steps * run.training.batch_sequences * run.model.context_length
        step = run.training.batch_sequences * run.model.context_length
        assert 20 * parameter_count(run.model) <= tokens < 20 * parameter_count(run.model) + step


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        (
            {"zip": {"model.num_layers": [1, 2], "model.num_heads": [1]}},
            "sweep.s.zip: lists of lengths .* one length; grid",
        ),
        ({"grid": {"num_layers": [1, 2]}}, "sweep.s: got 'num_layers', expected a dotted key of a run, such as"),
        ({"grid": {"model.num_layer": [1, 2]}}, r"model.num_layer: unknown key, did you mean 'num_layers'\?"),
        ({"grid": {"model.num_layers": [1, 0]}}, "model.num_layers: got 0, expected integer >= 1"),
        ({"grid": {"model.num_layers": []}}, "sweep.s.grid.model.num_layers: got "),
        ({"grid": {"model.num_layers": [2, 2]}}, "sweep.s: two of its points are the same"),
        ({"grid": {"model.num_layers": [1]}, "zip": {"model.num_layers": [1]}}, "sweep.s: got "),
        ({}, "sweep.s: got "),
        ({"grid": {"model.num_layers": [1]}, "tokens_per_parameter": 0}, "tokens_per_parameter: got 0"),
    ],
)
def test_a_mistake_is_one_line(sweep, message):
    with pytest.raises(UserError, match=message) as error:
        load(s=sweep)
    assert "\n" not in str(error.value)


def test_a_name_that_is_taken_is_refused():
    config = {**read_config(ROOT / "config.yaml"), "sweep": {"s": {"grid": {"model.num_layers": [1]}}}}
    with pytest.raises(UserError, match="sweep.s: makes a run named 's_num_layers-1', which exists; rename the sweep"):
        load_runs({**config, "runs": {"s_num_layers-1": {}}})


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_to_start_from_is_whole(path):
    config = read_config(ROOT / "config.yaml", path)
    several = bool(config.get("sweep") or config.get("runs"))
    assert (len(load_runs(config).runs) > 1) == several


def test_the_fit_finds_the_law_and_its_error_shrinks_with_the_noise():
    x = np.geomspace(1e4, 1e7, 6)
    exact = fit_power_law(x, 12 * x**-0.07)
    assert np.isclose(exact.exponent, 0.07) and np.isclose(np.exp(exact.log_scale), 12)
    assert exact.exponent_error < 1e-12 and exact.scatter < 1e-12
    assert np.allclose(exact(x), 12 * x**-0.07) and np.allclose(exact.error_factor(x), 1)


def test_one_standard_error_holds_the_true_exponent_as_often_as_it_should():
    """Of many noisy draws, 63.7 % should be within one standard error (Student's t with 5 degrees of freedom)."""
    random, x = np.random.default_rng(0), np.geomspace(1e4, 1e7, 7)
    draws = [fit_power_law(x, 12 * x**-0.07 * np.exp(random.normal(0, 0.02, len(x)))) for _ in range(2000)]
    assert np.isclose(np.sqrt(np.mean([law.scatter**2 for law in draws])), 0.02, rtol=0.05)
    share = np.mean([abs(law.exponent - 0.07) < law.exponent_error for law in draws])
    assert abs(share - 0.637) < 4 * np.sqrt(0.637 * 0.363 / 2000)  # four standard deviations of the share


def test_a_sweep_runs_in_parallel_and_is_compared_and_resumes_where_it_stopped(tmp_path):
    project = Project(tmp_path / "project")
    ladder = {"zip": {"model.embed_dim": [4, 8, 16]}, "tokens_per_parameter": 0.25}
    project.write_config({**TINY, "sweep": {"ladder": ladder}})
    project.snakemake("all", "--set-threads", "train=1")
    folder = project.folder / "results" / "sweeps" / "ladder"
    with open(folder / "runs.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["ladder_embed_dim-4", "ladder_embed_dim-8", "ladder_embed_dim-16"]
    assert all(int(row["operations"]) > 0 for row in rows)
    assert [row["model.embed_dim"] for row in rows] == ["4", "8", "16"]
    with open(folder / "fit.csv") as file:
        fits = list(csv.DictReader(file))
    assert [fit["x"] for fit in fits] == ["parameters", "operations"]
    x, loss = (np.array([float(row[key]) for row in rows]) for key in ("parameters", "validation_loss_nats_per_token"))
    law = fit_power_law(x, loss)
    assert np.isclose(float(fits[0]["exponent"]), law.exponent, rtol=1e-5)
    assert np.isclose(float(fits[0]["exponent_standard_error"]), law.exponent_error, rtol=1e-4)
    for picture in ("curves", "loss_by_parameters", "loss_by_operations"):
        assert (folder / f"{picture}.png").read_bytes().startswith(b"\x89PNG")
    assert project.would_run() == set()
    ladder["zip"]["model.embed_dim"].append(32)
    (project.folder / "tiny.yaml").write_text(yaml.safe_dump({**TINY, "sweep": {"ladder": ladder}}))
    output = project.snakemake("--dry-run", "all")
    assert re.search(r"^train +1$", output, re.MULTILINE) and "compare" in output
