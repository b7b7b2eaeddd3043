"""Figures of sweeps: means over seeds are drawn, runs are named, and every kind of sweep can be drawn."""

import pandas as pd
import pytest

from hipgpt.reports.sweep_plots import (
    LOSS,
    MOST_NAMED,
    SPREAD,
    mean_points,
    plot_curves,
    plot_parallel,
    plot_settings,
    swept_points,
)  # fmt: skip
from hipgpt.reports.swept import swept_settings


def record(width: int, rate: float, optimizer: str = "adamw", seed: int = 0) -> dict:
    training = {"steps": 7, "learning_rate_peak": rate, "optimizer": optimizer, "seed": seed}
    config = {"model": {"embed_dim": width, "num_layers": 2}, "training": training}
    return {"config": config, "device": f"cpu {rate}", "corpus": {"corpus": "plays"}, "tokenizer_sha256": "ab" * 32}


RATES = (1e-3, 2e-3, 4e-3)
SWEEPS = {
    "one setting": [record(32, rate) for rate in RATES],
    "two settings": [record(width, rate) for width in (32, 64) for rate in RATES],
    "two settings, one point missing": [record(32, 1e-3), record(32, 2e-3), record(64, 1e-3)],
    "texts": [record(32, 1e-3, optimizer) for optimizer in ("adamw", "muon")],
    "seeds": [record(32, 1e-3, seed=seed) for seed in (1, 2)],
    "a setting and seeds": [record(32, rate, seed=seed) for rate in RATES for seed in (1, 2)],
    "more runs than a legend names": [record(32, rate / 1000) for rate in range(1, MOST_NAMED + 3)],
    "one run": [record(32, 1e-3)],
}
VALIDATION = pd.DataFrame({"tokens_seen": [8, 16], "loss_nats_per_token": [6.0, 5.0]})


def points_of(name: str) -> list[dict]:
    return swept_points(swept_settings(SWEEPS[name]), [6.0 - n / 10 for n in range(len(SWEEPS[name]))])


def test_a_point_has_the_settings_in_which_the_runs_differ_the_learning_rate_first():
    points = points_of("two settings")
    assert points[0] == {"learning_rate_peak": 1e-3, "embed_dim": 32, LOSS: 6.0}
    assert [*points[0]] == ["learning_rate_peak", "embed_dim", LOSS]


def test_a_point_that_is_drawn_is_the_mean_of_its_seeds():
    found = mean_points(points_of("a setting and seeds"))
    assert [point["learning_rate_peak"] for point in found] == list(RATES)
    assert all("seed" not in point for point in found)
    assert found[0][LOSS] == pytest.approx(5.95) and found[0][SPREAD] == pytest.approx(0.1 / 2**0.5)


def test_the_seed_is_drawn_if_nothing_else_is_swept():
    found = mean_points(points_of("seeds"))
    assert [point["seed"] for point in found] == [1, 2] and [point[LOSS] for point in found] == [6.0, 5.9]


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_is_drawn_and_the_same_one_gives_the_same_bytes(tmp_path, name):
    points = points_of(name)
    figures = {
        "settings": lambda picture: plot_settings(points, picture),
        "parallel": lambda picture: plot_parallel(points, [f"run {n}" for n in range(len(points))], picture),
        "curves": lambda picture: plot_curves(points, [VALIDATION] * len(points), picture),
    }
    for figure, draw in figures.items():
        pictures = [tmp_path / folder / "figure.png" for folder in "ab"]
        for picture in pictures:
            draw(picture)
        assert pictures[0].read_bytes().startswith(b"\x89PNG")
        vectors = [picture.with_suffix(".svg").read_bytes() for picture in pictures]
        assert vectors[0] == vectors[1] and b"<svg" in vectors[0]
        if figure == "settings" and name == "two settings":
            assert b"figure" in vectors[0] and vectors[0].count(b"axes_") >= 3  # lines, heat map, its colour bar


def test_the_legend_names_the_runs_or_the_best_of_them(tmp_path):
    for name, named in (("two settings", 6), ("more runs than a legend names", MOST_NAMED)):
        points = points_of(name)
        plot_parallel(points, [f"run {n}" for n in range(len(points))], tmp_path / "figure.png")
        drawing = (tmp_path / "figure.svg").read_text()  # the text of a label is a comment in front of its glyphs
        shown = [n for n in range(len(points)) if f"<!-- run {n} -->" in drawing]
        assert shown == list(range(len(points) - named, len(points)))  # later points have a lower loss
