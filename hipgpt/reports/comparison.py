"""Compare runs: plot their curves, and their final losses over parameters and compute, with a fitted power law."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hipgpt.base.files import replacing
from hipgpt.base.json_files import read_json
from hipgpt.base.tables import table
from hipgpt.reports.plots import axes_of, save
from hipgpt.reports.runs import RETRAIN, Row, read_record, run_row
from hipgpt.reports.sweep_plots import logarithmic, plot_curves, plot_parallel, plot_settings, swept_points
from hipgpt.reports.swept import means_over_seeds, swept_settings

FEWEST_POINTS = 3  # a line through two points has no residuals, so its error cannot be estimated
FITTED = ("scale", "exponent", "exponent_standard_error", "relative_scatter")
AXES = {"parameters": "parameters", "operations": "floating-point operations of training"}


@dataclass(frozen=True)
class PowerLaw:
    """loss = scale * x ** -exponent. covariance: (2, 2), of (log scale, exponent), from the residuals.

    scatter: standard deviation of log loss around the line, which is about the relative distance of a run from it.
    """

    log_scale: float
    exponent: float
    covariance: NDArray[np.float64]
    scatter: float

    @property
    def exponent_error(self) -> float:
        """The standard error of the exponent."""
        return float(np.sqrt(self.covariance[1, 1]))

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.exp(self.log_scale - self.exponent * np.log(x))

    def error_factor(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return exp(standard error of log loss) at x, (N,). The error band is loss / factor to loss * factor."""
        gradient = np.stack([np.ones_like(x), -np.log(x)])
        variance: NDArray[np.float64] = np.einsum("in,ij,jn->n", gradient, self.covariance, gradient)
        return np.exp(np.sqrt(variance))


def fit_power_law(x: NDArray[np.float64], loss: NDArray[np.float64]) -> PowerLaw:
    """Fit log loss = log scale - exponent * log x by least squares. x, loss: (N,), positive, N >= FEWEST_POINTS.

    Kaplan et al. 2020, arXiv:2001.08361, equation 1.1. There is no constant term, because a few model sizes do not
    determine one.
    """
    design = np.stack([np.ones_like(x), -np.log(x)], axis=1)
    solution, *_ = np.linalg.lstsq(design, np.log(loss), rcond=None)
    residuals = np.log(loss) - design @ solution
    variance = residuals @ residuals / (len(x) - 2)
    covariance = variance * np.linalg.inv(design.T @ design)
    return PowerLaw(float(solution[0]), float(solution[1]), covariance, float(np.sqrt(variance)))


def compare(folders: Sequence[Path], output: Path) -> None:
    """Write the figures and tables of finished runs.

    curves.png, settings.png, parallel.png, loss_by_parameters.png and loss_by_operations.png, each as SVG too;
    runs.csv, seeds.csv and fit.csv.
    """
    rows = [_row(folder) for folder in folders]
    runs = pd.DataFrame(rows)
    settings = swept_settings([read_record(folder) for folder in folders])
    points = swept_points(settings, runs.validation_loss_nats_per_token.tolist())
    plot_curves(points, [pd.read_csv(folder / "validation.csv") for folder in folders], output / "curves.png")
    plot_settings(points, output / "settings.png")
    plot_parallel(points, [folder.name for folder in folders], output / "parallel.png")
    fits = [_plot_scaling(runs, x, output / f"loss_by_{x}.png") for x in AXES]
    tables = {
        "runs.csv": [row | found for row, found in zip(rows, settings, strict=True)],
        "seeds.csv": means_over_seeds(settings, rows),
        "fit.csv": fits,
    }
    for name, found in tables.items():
        with replacing(output / name) as file:
            file.write(table(found, "csv").encode())


def _row(folder: Path) -> Row:
    row, record = run_row(folder), read_json(folder / "run.json", {"operations_per_step": int}, RETRAIN)
    return {**row, "operations": row["steps"] * record["operations_per_step"]}


def _plot_scaling(runs: pd.DataFrame, column: str, picture: Path) -> Row:
    """Plot the loss over a column, and return the row of fit.csv."""
    x, loss = runs[column].to_numpy(float), runs.validation_loss_nats_per_token.to_numpy(float)
    figure, axes = axes_of(f"validation loss by {column}", AXES[column], "loss, nats per token")
    logarithmic(axes)
    axes.set_yscale("log")
    axes.plot(x, loss, "o", color="#1d4e89")
    sizes = len(np.unique(x))
    row: Row = {"x": column, "points": len(x), "sizes": sizes, **dict.fromkeys(FITTED)}
    if sizes == 1:
        axes.set_xticks(x[:1], [f"{x[0]:,.0f}"])
        axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axes.set_title(f"validation loss: all runs have the same number of {AXES[column]}")
    if sizes >= FEWEST_POINTS:
        law, line = fit_power_law(x, loss), np.geomspace(x.min(), x.max(), 100)
        factor = law.error_factor(line)
        label = rf"loss $\propto$ {column}$^{{-b}}$, b = {law.exponent:.4f} ± {law.exponent_error:.4f}"
        axes.plot(line, law(line), color="#c2410c", label=label)
        axes.fill_between(line, law(line) / factor, law(line) * factor, color="#c2410c", alpha=0.15, linewidth=0)
        axes.legend(frameon=False, title=f"{len(x)} runs; band and ±: one standard error")
        found = float(np.exp(law.log_scale)), law.exponent, law.exponent_error, law.scatter
        row |= dict(zip(FITTED, found, strict=True))
    axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%.3g"))
    axes.yaxis.set_minor_formatter(matplotlib.ticker.FormatStrFormatter("%.3g"))
    save(figure, picture)
    return row
