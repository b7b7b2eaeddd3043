"""Figures of sweeps: the settings in which runs differ are found, and every kind of sweep can be drawn."""

import pytest

from hipgpt.reports.sweep_plots import LOSS, plot_parallel, plot_settings, swept_points


def record(width: int, rate: float, optimizer: str = "adamw") -> dict:
    training = {"steps": 7, "learning_rate_peak": rate, "optimizer": optimizer}
    return {"config": {"model": {"embed_dim": width, "num_layers": 2}, "training": training}, "device": f"cpu {rate}"}


RATES = (1e-3, 2e-3, 4e-3)
SWEEPS = {
    "one setting": [record(32, rate) for rate in RATES],
    "two settings": [record(width, rate) for width in (32, 64) for rate in RATES],
    "two settings, one point missing": [record(32, 1e-3), record(32, 2e-3), record(64, 1e-3)],
    "texts": [record(32, 1e-3, optimizer) for optimizer in ("adamw", "muon")],
    "one run": [record(32, 1e-3)],
}


def test_a_point_has_the_settings_in_which_the_runs_differ_the_learning_rate_first():
    points = swept_points(SWEEPS["two settings"], [6.0, 5, 4, 3, 2, 1])
    assert points[0] == {"learning_rate_peak": 1e-3, "embed_dim": 32, LOSS: 6.0}
    assert [*points[0]] == ["learning_rate_peak", "embed_dim", LOSS]


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_is_drawn_and_the_same_one_gives_the_same_bytes(tmp_path, name):
    points = swept_points(SWEEPS[name], [5.0 - n / 10 for n in range(len(SWEEPS[name]))])
    for draw in (plot_settings, plot_parallel):
        pictures = [tmp_path / folder / "figure.png" for folder in "ab"]
        for picture in pictures:
            draw(points, picture)
        assert pictures[0].read_bytes().startswith(b"\x89PNG")
        vectors = [picture.with_suffix(".svg").read_bytes() for picture in pictures]
        assert vectors[0] == vectors[1] and b"<svg" in vectors[0]
        if draw is plot_settings and name == "two settings":
            assert b"figure" in vectors[0] and vectors[0].count(b"axes_") >= 3  # lines, heat map, its colour bar
